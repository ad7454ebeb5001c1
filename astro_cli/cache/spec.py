"""The description of a rolling cache (window, sink, positions, sink policy), and which combinations cannot stream. Free
of torch, for recipes.

Window and sink are counted in latent frames; the window includes the sink and the current block.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from astro_cli.config.base import Config
from astro_cli.config.errors import RecipeError

MOST_FRAMES = 10**6  # latent frames: a day at 16 fps has 350,000


class CacheSpec(Config):
    """How much of the past is visible, how keys are positioned, and what the sink does with evicted frames.

    Attributes:
        window: visible latent frames, sink and current block included; None = everything.
        sink: first frames that are never evicted.
        relative: positions are places in the window, 0 .. n-1 (Infinity-RoPE), so length is unbounded; else absolute
            frame numbers.
        policy: "fixed" keeps the sink, "ema" blends evicted frames into it (Reward Forcing).
        alpha: share of the old sink that "ema" keeps.
    """

    window: int | None = Field(default=None, gt=0, le=MOST_FRAMES)
    sink: int = Field(default=0, ge=0, le=MOST_FRAMES)
    relative: bool = False
    policy: Literal["fixed", "ema"] = "fixed"
    alpha: float = Field(default=0.999, ge=0, le=1)  # Reward Forcing, released code

    def check(self, block: int, *, first_frame_alone: bool = False) -> None:
        """Refuse a cache that cannot stream in blocks of that many frames.

        Raises:
            RecipeError: sink, window or alpha that do not fit, with the key.
        """
        if problem := cache_problem(self.window, self.sink, block, first_frame_alone=first_frame_alone):
            key, what, hint = problem
            raise RecipeError("cache", key, what, hint=hint)
        if not 0 <= self.alpha <= 1:  # a copy with changes is not validated
            raise RecipeError("cache", "alpha", f"found {self.alpha}, expected a share between 0 and 1")


def cache_problem(
    window: int | None, sink: int, block: int, *, first_frame_alone: bool = False
) -> tuple[str, str, str] | None:
    """(key, what, hint) of a window and sink that cannot stream, None where they can. All in latent frames."""
    if sink < 0:
        return "sink", f"found {sink}, expected 0 or more frames", ""
    if window is None:
        return None
    least = sink + block
    if sink >= window:
        return (
            "sink",
            f"found {sink}, expected fewer frames than the window ({window})",
            f"use a window of at least {least}, or no window",
        )
    if window < least:
        what = (
            f"found {window}, expected at least {least} (sink {sink} + block {block}): it cannot hold the sink "
            "and a block"
        )
        return "window", what, f"use at least {least}, or no window"
    if window % block and not (first_frame_alone and window % block == 1):
        nearest = max(window // block * block, -(-least // block) * block)
        return (
            "window",
            f"found {window}, expected a multiple of the block ({block})",
            f"use {nearest} or {nearest + block}",
        )
    return None

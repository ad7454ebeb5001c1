"""What a training reward is: the protocol every scorer follows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from astro_cli.config.errors import RunError
from astro_cli.spec import STRUCTURE

if TYPE_CHECKING:  # recipes are read without torch
    from torch import Tensor

# What a recipe may name: visual quality, motion quality, text alignment. Every backbone has its own scorers.
KEYS = ("vq", "mq", "ta")
EMBEDDED_KEYS = (*KEYS, "ta_noisy", STRUCTURE)  # of the embedded world


class Reward(Protocol):
    """Scores clips against prompts; higher is better. A reward must not depend on what else is in the batch.

    `num_frames_min` is the shortest clip the score is defined for.
    """

    key: str
    num_frames_min: int

    def score(self, frames_BTCHW: Tensor, prompts: list[str]) -> Tensor:
        """Scores (B,) float32 of frames in [0, 1], one prompt per clip."""
        ...


def check_scores(key: str, scores: Tensor, clips: int) -> Tensor:
    """The scores (B,) of that many clips, as they are.

    Raises:
        RunError: another shape, or scores that are not finite.
    """
    if scores.shape != (clips,) or not bool(scores.isfinite().all()):
        bad = (
            f"shape {tuple(scores.shape)}"
            if scores.shape != (clips,)
            else f"{int((~scores.isfinite()).sum())} non-finite scores"
        )
        raise RunError(
            "reward", key, f"{bad} for {clips} clips", hint="the run can be resumed from its last checkpoint"
        )
    return scores

"""Orders of frames that make a temporal negative of a clip: reversed, locally shuffled, or frozen.

Source: TeleBoost (arXiv 2602.07595), section 4.2; Discriminator-Free DPO (arXiv 2504.08542).

**Deviations**: the paper gives no windows and lengths. Frames are shuffled in windows of three, none of which keeps its
order. A frozen clip repeats a frame from a random one in the first half on, or shows every second frame twice.
"""

from __future__ import annotations

import torch

from astro_cli.core.rng import stream

WINDOW = 3  # frames that are shuffled among themselves


def frame_order(kind: str, frames: int, seed: int) -> torch.Tensor:
    """(T,) the frame that is shown at each moment instead of it; a function of its arguments alone.

    Args:
        kind: "reverse", "shuffle" or "freeze".
        frames: T, 2 or more.
    """
    assert frames >= 2, "one frame has one order"
    times, rng = torch.arange(frames), stream(seed, "order", kind)
    if kind == "reverse":
        return times.flip(0)
    if kind == "shuffle":
        return torch.cat([_deranged(window, rng) for window in times.split(WINDOW)])
    assert kind == "freeze", kind
    if torch.rand((), generator=rng) < 0.5:
        return times // 2 * 2
    return times.clamp(max=int(torch.randint(max(1, frames // 2), (), generator=rng)))


def _deranged(window: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Another order of the window's frames; a single frame stays."""
    drawn = window
    while len(window) > 1 and torch.equal(drawn, window):
        drawn = window[torch.randperm(len(window), generator=rng)]
    return drawn

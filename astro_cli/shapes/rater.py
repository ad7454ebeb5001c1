"""What a simulated rater of the embedded world sees of a clip: the aspects of TeleBoost's human study, by the oracle.

Source: TeleBoost (arXiv 2602.07595), section 7.1 and Table 1: visual quality, motion quality, text alignment,
preservation and overall. **Deviations**: the raters are simulated; overall is the mean of the others.
"""

from __future__ import annotations

import torch

from astro_cli.shapes.grammar import parse
from astro_cli.shapes.oracle import ATTRIBUTES, agreement, measure

ASPECTS = ("visual", "motion", "text", "preservation")


def aspects(frames_BTCHW: torch.Tensor, prompts: list[str], pace: float = 1.0) -> dict[str, torch.Tensor]:
    """(B,) in [0, 1] of each of `ASPECTS`, in a world of this pace: the object's presence, sharp and clean; its steady
    motion; the share of the stated attributes that are shown; and that it stays the same object."""
    seen = measure(frames_BTCHW, pace)
    agreed = agreement(seen, [parse(prompt) for prompt in prompts])
    return {
        "visual": seen.presence * (seen.sharpness + seen.cleanliness) / 2,
        "motion": seen.presence * (seen.smoothness + seen.flicker) / 2,
        "text": torch.stack([agreed[name] for name in ATTRIBUTES]).nanmean(0),
        "preservation": seen.identity,
    }


class OverallScore:
    """The mean of the aspects, as a scorer of clips; `pace` is that of the world's speeds."""

    key = "overall"
    num_frames_min = 3

    def __init__(self, pace: float = 1.0) -> None:
        self.pace = pace

    @torch.no_grad()
    def score(self, frames_BTCHW: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        """(B,) in [0, 1]."""
        seen = aspects(frames_BTCHW.float(), prompts, self.pace)
        return torch.stack([seen[name] for name in ASPECTS]).mean(0)

"""What a training reward is: the protocol every scorer follows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # recipes are read without torch
    from torch import Tensor

# What a recipe may name: visual quality, motion quality, text alignment. Every backbone has its own scorers.
KEYS = ("vq", "mq", "ta")
EMBEDDED_KEYS = (*KEYS, "ta_noisy")  # of the embedded world


class Reward(Protocol):
    """Scores clips against prompts; higher is better. A reward must not depend on what else is in the batch.

    `num_frames_min` is the shortest clip the score is defined for.
    """

    key: str
    num_frames_min: int

    def score(self, frames_BTCHW: Tensor, prompts: list[str]) -> Tensor:
        """Scores (B,) float32 of frames in [0, 1], one prompt per clip."""
        ...

"""What a video file holds, and what a frame is. Free of torch and of decoders.

Dimensions: H, W pixel rows and columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Frame = np.ndarray  # (H, W, 3) uint8 RGB


@dataclass(frozen=True)
class VideoInfo:
    """What the container says, counted by decoding where it does not say."""

    frames: int
    fps: float
    width: int
    height: int

    @property
    def seconds(self) -> float:
        return self.frames / self.fps

"""The decoder of a video that grows: latents -> frames, block after block. Owns the temporal features in between.

A codec says how: its step decodes the next latents given the features that earlier latents left. So a clip from the
middle of a video is decoded after its history, and clips that continue one history share it: `skip` the history once,
`fork` its features, `push` each clip's own latents.
Dimensions: B video, F latent frame, T picture, C channel, H, W rows and columns.

**Deviations**: none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

# What each temporal convolution still sees of earlier latents: a tensor whose first dimension is the video, or a mark
# of the codec's own.
Features = list[Any]
Step = Callable[[torch.Tensor, Features], tuple[torch.Tensor, Features]]


class StreamingDecoder:
    """A batch of videos on their way from latents to frames; a new one stands at the start of the videos.

    Args:
        step: latents (B, F, C, H, W) and the features before them -> their frames (B, T, 3, H, W) in [0, 1], float32,
            and the features after them. The features that it is given stay as they are.
        features: those at the start of a video; none where every latent is decoded by itself.
        reach: how many earlier latents a frame depends on at most; absent: on all of them.
    """

    def __init__(self, step: Step, features: Features, reach: int | None = None) -> None:
        self.step, self.features, self.reach = step, features, reach

    def push(self, latents_BFCHW: torch.Tensor, *, gradient: bool = False) -> torch.Tensor:
        """The next latents -> their frames (B, T, 3, H, W) in [0, 1], float32.

        Args:
            gradient: frames carry gradients to these latents, and to earlier ones that were pushed so.
        """
        with torch.set_grad_enabled(gradient):
            frames, self.features = self.step(latents_BFCHW, self.features)
        return frames

    def skip(self, latents_BFCHW: torch.Tensor) -> StreamingDecoder:
        """Pass latents without decoding frames for the caller; those out of later frames' reach are left out. Returns
        itself."""
        if not self.features:
            return self
        if self.reach is not None:
            latents_BFCHW = latents_BFCHW[:, -self.reach :]
        for index in range(latents_BFCHW.shape[1]):
            self.push(latents_BFCHW[:, index : index + 1])
        return self

    def fork(self, rows: torch.Tensor) -> StreamingDecoder:
        """A decoder of B videos that continue videos `rows` (B,) of this one, which stays as it is."""
        features = [
            value[rows.to(value.device)] if isinstance(value, torch.Tensor) else value for value in self.features
        ]
        return StreamingDecoder(self.step, features, self.reach)

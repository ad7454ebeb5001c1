"""Watches a video through Wan's VAE: its frames are encoded as they come, four frames to a latent.

Dimensions: T frame, H, W pixel rows and columns, D feature.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from astro_cli.models.vae import CELL, PICTURES, WanVAE
from eval.contract import Frame, Score, ScoreError

WHITE = 255.0


class Latents:
    """Scores the latents of a video, flat and over the root of their length, so that a distance is a root mean square
    of latent differences.

    Args:
        chosen: the last frame of every latent: 0, 4, 8, ...; frames behind the last whole latent are left out.
        finish: gets the features (D,) by frame number.
    """

    def __init__(
        self, vae: WanVAE, chosen: list[int], finish: Callable[[dict[int, np.ndarray]], dict[str, Score]]
    ) -> None:
        self.encoder, self.chosen, self.finish = vae.encoder(), set(chosen), finish
        self.waiting: list[Frame] = []
        self.features: dict[int, np.ndarray] = {}

    def see(self, index: int, frame_HWC: Frame) -> None:
        height, width = frame_HWC.shape[:2]
        if height % CELL or width % CELL:
            raise ScoreError(
                "trajectory", "encoder", f"frames of {width} x {height}, Wan's VAE takes multiples of {CELL}"
            )
        self.waiting.append(frame_HWC)
        if len(self.waiting) < (PICTURES if index else 1):
            return
        frames_TCHW = torch.from_numpy(np.stack(self.waiting)).permute(0, 3, 1, 2).float() / WHITE
        latent = self.encoder.encode(frames_TCHW[None]).flatten().numpy()
        self.features[index] = latent / np.sqrt(len(latent))
        self.waiting = []

    def scores(self) -> dict[str, Score]:
        assert self.features.keys() == self.chosen
        return self.finish(self.features)

"""Likeness of a video and its prompt by ViCLIP, which two VBench dimensions score on prompts of their own.

Dimensions: N frame, H, W pixel rows and columns, C colour channel, D feature.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from eval.contract import NetworkCache, Sample, Score, ScoreError
from eval.networks.pictures import clip_input
from eval.vbench.networks import on, viclip
from eval.vbench.pictures import SIDE_PX
from eval.video.sampling import middle
from eval.watchers.watching import Chosen

FRAMES = 8


class ViclipScorer:
    """cos(video, prompt) of 8 frames, the middle ones of equal parts, resized without antialiasing and rounded; text
    cut at 32 tokens.

    Source: VBench, arXiv 2311.17982; vbench 0.1.5, overall_consistency.py, temporal_style.py.
    **Deviations:** none.
    """

    def __init__(self, name: str, loaded: NetworkCache) -> None:
        self.name, self.network = name, viclip(loaded)

    def watch(self, sample: Sample) -> Chosen:
        if not sample.prompt.strip():
            raise ScoreError(sample.path, "prompt", f"empty, {self.name} compares the video with it")
        return Chosen(
            middle(FRAMES, sample.info.frames),
            lambda frames_NHWC: {self.name: Score(self._cosine(frames_NHWC, sample.prompt))},
        )

    @torch.no_grad()
    def _cosine(self, frames_NHWC: np.ndarray, prompt: str) -> float:
        x_1NCHW = on(self.network, clip_input(frames_NHWC, SIDE_PX, "tensor"))[None]
        video_1D = functional.normalize(self.network.encode_vision(x_1NCHW, test=True).float(), dim=-1)
        text_1D = functional.normalize(self.network.encode_text(prompt).float(), dim=-1)
        return float((video_1D @ text_1D.T).item())

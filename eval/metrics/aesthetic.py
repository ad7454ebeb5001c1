"""LAION's aesthetic score: a linear layer on CLIP ViT-L/14's features, mean over all frames. VBench's dimension of that
kind is another scorer.

Dimensions: N frame, D feature.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from astro_cli.config.base import Config
from eval.contract import Declaration, MetricInfo, NetworkCache, Sample, Score
from eval.networks.clip_names import clip_need, file_names
from eval.networks.weights_paths import need, require
from eval.watchers.watching import Batches

if TYPE_CHECKING:
    from torch import nn

    from eval.networks.clip import ClipTower

NAME, FRACTION = "aesthetic", "aesthetic.fraction"
TOWER = "ViT-L-14"
HEAD = ("aesthetic/sa_0_4_vit_l_14_linear.pth", "aesthetic/sa_0_4_vit_l_14_linear.safetensors")
BATCH = 32
TOP = 10.0  # of the raters' scale


class AestheticConfig(Config):
    """Resizing: "pil" as CLIP's own code, "tensor" (no antialiasing) as VBench's aesthetic_quality."""

    resize: Literal["pil", "tensor"] = "pil"


class _Scorer:
    def __init__(self, tower: ClipTower, head: nn.Linear, resize: Literal["pil", "tensor"]) -> None:
        self.tower, self.head = tower, head
        self.resize: Literal["pil", "tensor"] = resize

    def watch(self, sample: Sample) -> Batches:
        frames: list[float] = []
        return Batches(BATCH, partial(self._take, frames), partial(self._finish, frames))

    def _take(self, frames: list[float], frames_NHWC: np.ndarray) -> None:
        features_ND = self.tower.images(frames_NHWC, self.resize).to(self.head.weight.device)
        frames.extend(self.head(features_ND).squeeze(-1).tolist())

    def _finish(self, frames: list[float]) -> dict[str, Score]:
        """mean over all frames of w . f / |f| + b; also divided by 10.

        Source: LAION aesthetic predictor, sa_0_4_vit_l_14_linear; VBench 0.1.5, aesthetic_quality.py.
        **Deviations:** none from LAION; VBench averages in float32.
        """
        value = float(np.mean(frames))
        return {NAME: Score(value, {"frames": frames}), FRACTION: Score(value / TOP)}


def _build(config: AestheticConfig, loaded: NetworkCache) -> _Scorer:
    from eval.networks.clip import shared
    from eval.networks.heads import linear

    tower, path = shared(loaded, TOWER), require(*HEAD)
    head = loaded.get(("aesthetic", path), lambda: linear(path, tower.width, "LAION's aesthetic head of CLIP ViT-L/14"))
    return _Scorer(tower, head, config.resize)


def _files(config: AestheticConfig) -> tuple[Path, ...]:
    return (require(*file_names(TOWER)), require(*HEAD))


SCORER = Declaration(
    metrics=(
        MetricInfo(NAME, "up", "0..10", "LAION aesthetic predictor on CLIP ViT-L/14, mean of all frames"),
        MetricInfo(FRACTION, "up", "0..1", "the same divided by 10, VBench's scale"),
    ),
    config=AestheticConfig,
    version=1,
    build=_build,
    needs=(clip_need(TOWER), need("LAION's aesthetic head", *HEAD)),
    files=_files,
)

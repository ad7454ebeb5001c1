"""VideoCLIP-XL: cosine of eight frames of the video, seen together, with its prompt.

Dimensions: T frame, D feature.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from astro_cli.config.base import Config
from eval.contract import Declaration, MetricInfo, NetworkCache, Sample, Score, ScoreError
from eval.networks.weights_paths import need, require
from eval.video.sampling import strided
from eval.watchers.watching import Chosen

if TYPE_CHECKING:
    from eval.networks.viclip import VideoTower

NAME = "videoclip_xl"
FILES = ("videoclip_xl/VideoCLIP-XL.bin", "videoclip_xl/VideoCLIP-XL.safetensors")


class VideoClipConfig(Config):
    """`scale` times the cosine is the score: 100 in the released demo. Prompts beyond 248 tokens are cut, as there."""

    scale: float = Field(100.0, gt=0)
    too_long: Literal["cut", "refuse"] = "cut"


class _Scorer:
    def __init__(self, tower: VideoTower, config: VideoClipConfig) -> None:
        self.tower, self.config = tower, config

    def watch(self, sample: Sample) -> Chosen:
        if sample.info.frames < self.tower.frames:
            raise ScoreError(
                sample.path, "frames", f"{sample.info.frames}, VideoCLIP-XL needs {self.tower.frames} or more"
            )
        texts = self.tower.texts([sample.prompt], self.config.too_long, sample.path)
        chosen = strided(self.tower.frames, sample.info.frames)
        note = {
            "frames": chosen,
            "tokens": texts.words.counts[0],
            "cut": texts.words.cut[0],
            "scale": self.config.scale,
        }
        return Chosen(chosen, partial(self._scores, text_D=texts.features_MD[0].numpy(), note=note))

    def _scores(self, frames_THWC: np.ndarray, text_D: np.ndarray, note: dict[str, Any]) -> dict[str, Score]:
        """scale cos(video, text); frames 0, s, ..., 7 s with s = floor(T / 8).

        Source: VideoCLIP-XL, Wang et al. 2410.00741, released demo.py.
        **Deviations:** none in the demo's scale. TeleBoost 2602.07595v1, Table 3 prints 2.07 to 2.68, which fits scale
        10; it does not say so.
        """
        from eval.networks.pictures import squeezed_input

        video_1D = self.tower.videos(squeezed_input(frames_THWC, self.tower.side)[None])
        cosine = float(video_1D[0].numpy() @ text_D)
        return {NAME: Score(self.config.scale * cosine, {**note, "cosine": cosine})}


def _build(config: VideoClipConfig, loaded: NetworkCache) -> _Scorer:
    from eval.networks.viclip import VIDEOCLIP_XL, shared

    return _Scorer(shared(loaded, require(*FILES), VIDEOCLIP_XL), config)


def _files(config: VideoClipConfig) -> tuple[Path, ...]:
    return (require(*FILES),)


SCORER = Declaration(
    metrics=(MetricInfo(NAME, "up", "cosine x scale (100)", "VideoCLIP-XL: eight frames with the prompt"),),
    config=VideoClipConfig,
    version=1,
    build=_build,
    needs=(need("VideoCLIP-XL", *FILES),),
    files=_files,
)

"""CLIP score per segment: 100 x cosine of frames with the prompt of their own 10 s. `long_clip` is the same with
another tower.

Dimensions: K segment, D feature.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from astro_cli.config.base import Config
from eval.contract import Declaration, MetricInfo, NetworkCache, Sample, Score
from eval.networks.clip_names import clip_need, file_names
from eval.networks.weights_paths import require
from eval.watchers.encoding import Encoded
from eval.watchers.segments import frames_of, parts

if TYPE_CHECKING:
    from eval.networks.clip import ClipTower

NAME = "clip"
PERCENT = 100.0
SEGMENTS = 6  # columns of the published tables: 0-10 s to 50-60 s
UNIT = "cosine x 100"


class ClipConfig(Config):
    """Frames per second scored, length of a segment of a one-prompt video in seconds, and what becomes of prompts
    beyond 77 tokens.
    """

    model: Literal["ViT-B-32", "ViT-B-16", "ViT-L-14"] = "ViT-L-14"
    rate: float = Field(1.0, gt=0)
    segment_seconds: float = Field(10.0, gt=0)
    too_long: Literal["cut", "refuse"] = "cut"


def segment_metrics(name: str, text: str) -> tuple[MetricInfo, ...]:
    """The mean under the scorer's own name, then one metric per segment."""
    windows = [
        MetricInfo(f"{name}.segment_{k + 1}", "up", UNIT, f"{text}, {10 * k}-{10 * k + 10} s") for k in range(SEGMENTS)
    ]
    return (MetricInfo(name, "up", UNIT, f"{text}, mean of the segments"), *windows)


class SegmentScorer:
    """Scores frames of every segment against its own prompt with one CLIP tower.

    score_k = 100 mean over frames j of segment k of cos(image_j, text_k); value = mean over k.

    Source: the protocol of Astrolabe 2603.17051v1, Table 3, and Delta Forcing 2605.14382v1, Table 1; boundaries by
        time.

    **Deviations:** the papers print neither the CLIP model nor the frames they score. Ours: ViT-L/14, one frame per
    second at the middle of each second. A segment past the sixth counts in the mean and in the details and has no
    metric of its own.
    """

    def __init__(
        self, name: str, tower: ClipTower, rate: float, seconds: float, too_long: Literal["cut", "refuse"]
    ) -> None:
        self.name, self.tower, self.rate, self.seconds = name, tower, rate, seconds
        self.too_long: Literal["cut", "refuse"] = too_long

    def watch(self, sample: Sample) -> Encoded:
        segments = parts(sample, self.seconds)
        texts = self.tower.texts([part.prompt for part in segments], self.too_long, sample.path)
        frames = [frames_of(part, sample.info, self.rate) for part in segments]
        notes = [
            {"start": part.start, "end": part.end, "frames": chosen, "tokens": count, "cut": cut}
            for part, chosen, count, cut in zip(segments, frames, texts.words.counts, texts.words.cut, strict=True)
        ]
        finish = partial(self._scores, text_KD=texts.features_MD.numpy(), notes=notes)
        return Encoded((index for chosen in frames for index in chosen), self._encode, finish)

    def _encode(self, frames_NHWC: np.ndarray) -> np.ndarray:
        return self.tower.images(frames_NHWC).numpy()

    def _scores(
        self, features: dict[int, np.ndarray], text_KD: np.ndarray, notes: list[dict[str, Any]]
    ) -> dict[str, Score]:
        values = []
        for text_D, note in zip(text_KD, notes, strict=True):
            similarities = [features[index] @ text_D for index in note["frames"]]
            values.append(PERCENT * float(np.mean(similarities)))
        segments = [{**note, "score": value} for note, value in zip(notes, values, strict=True)]
        scores = {self.name: Score(float(np.mean(values)), {"segments": segments})}
        return scores | {
            f"{self.name}.segment_{k + 1}": Score(values[k] if k < len(values) else None) for k in range(SEGMENTS)
        }


def _build(config: ClipConfig, loaded: NetworkCache) -> SegmentScorer:
    from eval.networks.clip import shared

    return SegmentScorer(NAME, shared(loaded, config.model), config.rate, config.segment_seconds, config.too_long)


def _files(config: ClipConfig) -> tuple[Path, ...]:
    return (require(*file_names(config.model)),)


SCORER = Declaration(
    metrics=segment_metrics(NAME, "CLIP with the segment's own prompt"),
    config=ClipConfig,
    version=1,
    build=_build,
    needs=(clip_need("ViT-L-14"),),
    files=_files,
)

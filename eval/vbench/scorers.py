"""Scorers on features or scores of single frames, which several VBench dimensions share.

Dimensions: N frame, H, W pixel rows and columns, C colour channel, D feature.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eval.contract import Sample, Score
from eval.vbench.dimension import at_least
from eval.vbench.images import image_of
from eval.vbench.similarity import Conformity, Consistency
from eval.watchers.watching import Batches

BATCH = 16  # frames per pass of a network
Features = Callable[[np.ndarray], torch.Tensor]  # (N, H, W, C) uint8 -> (N, D)


class ConsistencyScorer:
    """VBench's temporal consistency of features; see `Consistency`."""

    def __init__(self, name: str, features: Features) -> None:
        self.name, self.features = name, features

    def watch(self, sample: Sample) -> Batches:
        at_least(sample, 2, self.name)
        statistic = Consistency()

        def finish() -> dict[str, Score]:
            return {self.name: Score(statistic.value(), {"frames": len(statistic.similarities) + 1})}

        return Batches(BATCH, lambda frames_NHWC: statistic.add(self.features(frames_NHWC)), finish)


class ConformityScorer:
    """VBench-I2V's likeness to the prompt's image; see `Conformity`.

    Args:
        image: the features (1, D) of the picture in a file.
    """

    def __init__(self, name: str, features: Features, image: Callable[[Path], torch.Tensor]) -> None:
        self.name, self.features, self.image = name, features, image

    def watch(self, sample: Sample) -> Batches:
        at_least(sample, 2, self.name)
        statistic = Conformity(self.image(image_of(sample))[0])

        def finish() -> dict[str, Score]:
            parts = {"to_image_max": max(statistic.to_image), "neighbours_min": min(statistic.neighbours)}
            return {self.name: Score(statistic.value(), {"frames": len(statistic.to_image), **parts})}

        return Batches(BATCH, lambda frames_NHWC: statistic.add(self.features(frames_NHWC)), finish)


class MeanScorer:
    """The mean over all frames of a score per frame.

    Args:
        per_frame: for a sample, what gives (N,) scores of (N, H, W, C) frames.
    """

    def __init__(self, name: str, per_frame: Callable[[Sample], Callable[[np.ndarray], Any]]) -> None:
        self.name, self.per_frame = name, per_frame

    def watch(self, sample: Sample) -> Batches:
        score, values = self.per_frame(sample), list[float]()

        def finish() -> dict[str, Score]:
            return {self.name: Score(float(np.mean(values)), {"frames": len(values)})}

        return Batches(BATCH, lambda frames_NHWC: values.extend(float(value) for value in score(frames_NHWC)), finish)

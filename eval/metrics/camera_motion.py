"""VBench-I2V's camera motion: whether the camera moves as the prompt asks, by points that CoTracker2 follows through
the video.

Dimensions: T frame, H, W pixel rows and columns, C colour, N point, 2 = x, y in pixels.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from eval.contract import NetworkCache, Sample, Score, ScoreError
from eval.vbench.camera import GRID, PHRASES, camera_types, prompt_motion
from eval.vbench.dimension import DimensionConfig, at_least, declare
from eval.vbench.vbench_files import cotracker_checkout, cotracker_code, need, need_cotracker, path_of, require
from eval.watchers.watching import Chosen

if TYPE_CHECKING:
    from eval.networks.cotracker import GridTracker

NAME = "camera_motion"
LEAST_FRAMES = (
    5  # CoTracker2's windows of 8 frames go on by 4: in fewer frames than these it follows no point and leaves zeros
)


class _Scorer:
    """1 where the type of motion that the prompt names is among those seen between the first and the last frame, else
    0.

    The tracker needs all frames of a video at once: they are held as uint8 until its score is there.

    Source: VBench++, arXiv 2411.13503; vbench 0.1.5, vbench2_beta_i2v/camera_motion.py.
    **Deviations:** the prompt is the sample's, vbench reads it from the file's name. The code is the user's checkout
    and the file's tensors are read here, vbench has torch.hub download both. A video of fewer than five frames is
    refused, vbench scores zeros as tracks.
    """

    def __init__(self, tracker: GridTracker) -> None:
        self.tracker = tracker

    def watch(self, sample: Sample) -> Chosen:
        at_least(sample, LEAST_FRAMES, NAME)
        requested = prompt_motion(sample.prompt)
        if requested is None:
            hint = f"prompts of VBench-I2V for this dimension end in one of: {', '.join(PHRASES)}"
            raise ScoreError(sample.path, "prompt", f"asks for no camera motion: {sample.prompt!r}", hint=hint)
        return Chosen(range(sample.info.frames), partial(self._scores, sample, requested))

    def _scores(self, sample: Sample, requested: str, frames_THWC: np.ndarray) -> dict[str, Score]:
        tracks_TN2 = self.tracker.tracks(frames_THWC, GRID)
        if not np.isfinite(tracks_TN2).all():
            first = int(np.argwhere(~np.isfinite(tracks_TN2))[0, 0])
            raise ScoreError(sample.path, "tracks", f"not finite from frame {first} on, CoTracker2 lost its points")
        seen = camera_types(tracks_TN2, min(frames_THWC.shape[1:3]))
        return {
            NAME: Score(
                float(requested in seen), {"asked": requested, "seen": sorted(seen), "frames": len(frames_THWC)}
            )
        }


def _build(config: DimensionConfig, loaded: NetworkCache) -> _Scorer:
    from eval.networks.cotracker import load

    checkout, path = cotracker_checkout(), require("cotracker")
    return _Scorer(loaded.get((NAME, checkout, path), lambda: load(checkout, path)))


def _files(config: DimensionConfig) -> tuple[Path, ...]:
    return (path_of("cotracker"), *cotracker_code())


SCORER = replace(
    declare(
        NAME,
        "VBench-I2V: 1 where the camera moves as asked, else 0 (CoTracker2)",
        _build,
        unit="0 or 1",
        needs=(need_cotracker(), need("cotracker")),
    ),
    files=_files,
)

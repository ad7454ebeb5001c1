"""HPSv3 of a video's frames: the mean over all, and over the best 30 %. The network is `astro_cli.rewards.hpsv3`.

Dimensions: N frame of a batch, T frame, H, W pixel rows and columns, C colour.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from astro_cli.config.base import Config
from astro_cli.config.errors import PromptError
from astro_cli.rewards.scorer_places import missing_hpsv3
from eval.contract import Declaration, MetricInfo, Need, NetworkCache, Sample, Score, ScoreError
from eval.watchers.watching import Batches

if TYPE_CHECKING:
    from astro_cli.rewards.hpsv3 import HPSv3

NAME = "hpsv3"
ALL, BEST = f"{NAME}.all", f"{NAME}.top30"
BATCH = 4  # frames held at a time


class HPSv3Config(Config):
    """Share of frames counted as best, positions of the language model ("official": sequential, as released), number
    format of the network.
    """

    fraction: float = Field(0.3, gt=0, le=1)
    positions: Literal["official", "mrope"] = "official"
    dtype: Literal["bfloat16", "float32"] = "bfloat16"


class _Scorer:
    """Every frame is scored against the sample's prompt as it comes; none is kept.

    top30 = mean of the best max(1, int(fraction T)) frames.

    Source: HPSv3 (arXiv 2508.03789); over video as in Astrolabe (arXiv 2603.17051, section 3.4; released scorer: best
        30 %, all frames logged).

    **Deviations:** Table 1 of Astrolabe does not say which of the two it prints.
    """

    def __init__(self, config: HPSv3Config, scorer: HPSv3) -> None:
        self.config, self.scorer = config, scorer

    def watch(self, sample: Sample) -> Batches:
        from astro_cli.rewards.templates import fill

        if not sample.prompt:
            raise ScoreError(sample.path, "prompt", "missing, HPSv3 scores a frame against a prompt")
        try:
            fill(self.scorer.template, sample.prompt)
        except PromptError as error:
            raise ScoreError(sample.path, error.key, error.what) from error
        frame_scores: list[float] = []
        return Batches(BATCH, partial(self._take, sample, frame_scores), partial(self._finish, frame_scores))

    def _take(self, sample: Sample, frame_scores: list[float], frames_NHWC: np.ndarray) -> None:
        scores = self.scorer.score(frames_NHWC, sample.prompt).tolist()
        if not np.isfinite(scores).all():
            raise ScoreError(
                sample.path,
                "score",
                f"not finite at one of frames {len(frame_scores)} to {len(frame_scores) + len(scores) - 1}",
            )
        frame_scores += scores

    def _finish(self, frame_scores: list[float]) -> dict[str, Score]:
        import torch

        from astro_cli.rewards.hpsv3 import best_mean

        best = best_mean(torch.tensor(frame_scores), self.config.fraction).item()
        return {ALL: Score(float(np.mean(frame_scores)), {"frames": frame_scores}), BEST: Score(best)}


def _build(config: HPSv3Config, loaded: NetworkCache) -> _Scorer:
    import torch

    from astro_cli.rewards.hpsv3 import load_hpsv3

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = {"bfloat16": torch.bfloat16, "float32": torch.float32}[config.dtype]
    key = (NAME, config.positions, config.dtype)
    return _Scorer(config, loaded.get(key, lambda: load_hpsv3(device, dtype, config.positions)))


def _files(config: HPSv3Config) -> tuple[Path, ...]:
    from astro_cli.rewards.hpsv3 import files

    return files()


SCORER = Declaration(
    metrics=(
        MetricInfo(ALL, "up", "unbounded, about 7..11", "HPSv3, mean over all frames"),
        MetricInfo(BEST, "up", "unbounded, about 7..12", "HPSv3, mean over the best 30 % of frames (Astrolabe)"),
    ),
    config=HPSv3Config,
    version=1,
    build=_build,
    needs=(Need("HPSv3", lambda: (lack := missing_hpsv3()) and f"weights of HPSv3: {lack}"),),
    files=_files,
)

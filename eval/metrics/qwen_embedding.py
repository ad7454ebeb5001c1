"""How near a video is to its prompt in the space of a vision-language embedding model. The model is
`eval/judges/local.py`.

Dimensions: T frame, H, W pixel rows and columns, C colour, D feature.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from astro_cli.config.base import Config
from eval.contract import Declaration, MetricInfo, Need, NetworkCache, Sample, Score, ScoreError
from eval.judges import judge_location
from eval.judges.frames import JudgedFrames, judged_frames, prompt_of
from eval.watchers.watching import Chosen

if TYPE_CHECKING:
    from eval.judges.local import LocalModel

NAME = "qwen_embedding"
MOST = 64  # frames shown, as in the model's own example


class QwenEmbeddingConfig(Config):
    """The model's folder or name (by default what ASTRO_EMBEDDING_MODEL says), frames per second shown, and the
    instruction of both sides.
    """

    model: str = Field(default_factory=judge_location.embedding_model)
    rate: float = Field(1.0, gt=0)
    instruction: str = "Represent the user's input."


class _Scorer:
    """cos(e(prompt), e(frames)), e = last hidden state of the last token, as Qwen3-VL-Embedding pools.

    Source: TeleBoost (arXiv 2602.07595), Table 3, names the metric; pooling and instruction are the model's own
        default.

    **Deviations:** the paper prints neither model size, sampling nor instruction. Ours: 1 frame per second, at most 64,
    the default instruction.
    """

    def __init__(self, config: QwenEmbeddingConfig, model: LocalModel) -> None:
        self.config, self.model = config, model

    def watch(self, sample: Sample) -> Chosen:
        prompt = prompt_of(sample)
        part = judged_frames(sample, min(self.config.rate, MOST / sample.info.seconds))
        return Chosen(part.indices, partial(self._finish, sample, prompt, part))

    def _finish(self, sample: Sample, prompt: str, part: JudgedFrames, frames_THWC: np.ndarray) -> dict[str, Score]:
        text_D = self.model.embed_text(self.config.instruction, prompt)
        video_D = self.model.embed_video(self.config.instruction, frames_THWC, part)
        value = float(text_D @ video_D)
        if not np.isfinite(value):
            raise ScoreError(sample.path, "score", f"found {value}, a cosine is finite")
        return {NAME: Score(value, {"frames": len(part.indices), "model": self.config.model})}


def _build(config: QwenEmbeddingConfig, loaded: NetworkCache) -> _Scorer:
    from eval.judges.local import load_local

    folder = judge_location.require(config.model)
    return _Scorer(config, loaded.get((NAME, folder), lambda: load_local(folder)))


def _files(config: QwenEmbeddingConfig) -> tuple[Path, ...]:
    return (judge_location.require(config.model),)


SCORER = Declaration(
    metrics=(MetricInfo(NAME, "up", "cosine", "Qwen3-VL-Embedding: cosine of prompt and video"),),
    config=QwenEmbeddingConfig,
    version=1,
    build=_build,
    needs=(Need("Qwen embedding", judge_location.missing_embedder),),
    files=_files,
)

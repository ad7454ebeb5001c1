"""A vision-language model rates the last seconds of a video from 1 to 5. Rubric, parser and models are in
`eval/judges`.

Dimensions: T frame, H, W pixel rows and columns, C colour.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from astro_cli.config.base import Config
from eval.contract import Declaration, MetricInfo, Need, NetworkCache, Sample, Score, ScoreError
from eval.judges import judge_location, rubric
from eval.judges.frames import JudgedFrames, judged_frames, prompt_of
from eval.watchers.watching import Chosen

NAME = "qwen_judge"
Ask = Callable[[str, np.ndarray, JudgedFrames], dict[str, Score]]
QUOTED = 200  # characters of an unreadable answer in the error; the details keep all of a readable one
TEXTS = {key: name.lower() for key, name in rubric.DIMENSIONS.items()}


class QwenJudgeConfig(Config):
    """Who is asked, how, and what is shown.

    Attributes:
        judge: "text" reads the answer; "logit" is the expected number over the odds of "1" to "5" (a local model only).
        backend: a transformers folder here, or an OpenAI-compatible endpoint; by default the endpoint where
            ASTRO_JUDGE_URL names one.
        model: folder or name; by default what ASTRO_JUDGE_MODEL says, else Reward Forcing's judge.
        seconds: at the end of the video.
        rate: frames per second shown.
        max_tokens: of an answer.
    """

    judge: Literal["text", "logit"] = "text"
    backend: Literal["local", "endpoint"] = Field(
        default_factory=lambda: "endpoint" if judge_location.endpoint_url() else "local"
    )
    model: str = Field(default_factory=judge_location.judge_model)
    seconds: float = Field(5.0, gt=0)
    rate: float = Field(2.0, gt=0)
    max_tokens: int = Field(512, gt=0)

    @model_validator(mode="after")
    def _check(self) -> QwenJudgeConfig:
        if self.judge == "logit" and self.backend == "endpoint":
            raise ValueError("judge: found 'logit' with backend 'endpoint', the odds of tokens need backend 'local'")
        return self


class _Scorer:
    """One question per video for "text", one per dimension for "logit".

    Source: Reward Forcing (arXiv 2512.04678), section 4.1 and supplement S3: Qwen3-VL-235B-A22B-Instruct, 128 MovieGen
        prompts, last 5 s of 60 s.

    **Deviations:** frames per second shown are not published: ours, 2. Greedy decoding, the published sampling is not
    stated. An answer in which one of the three numbers cannot be read fails the video, and is never a 0.
    """

    def __init__(self, config: QwenJudgeConfig, ask: Ask) -> None:
        self.config, self.ask = config, ask

    def watch(self, sample: Sample) -> Chosen:
        text = rubric.question(prompt_of(sample, self.config.seconds))
        part = judged_frames(sample, self.config.rate, self.config.seconds)
        return Chosen(part.indices, partial(self._finish, sample, text, part))

    def _finish(self, sample: Sample, text: str, part: JudgedFrames, frames_THWC: np.ndarray) -> dict[str, Score]:
        try:
            return self.ask(text, frames_THWC, part)
        except UnreadableAnswer as error:
            raise ScoreError(sample.path, "answer", str(error)) from error


class UnreadableAnswer(ValueError):
    """An answer without its three numbers."""


def read_answer(answer: str, notes: dict[str, Any]) -> dict[str, Score]:
    """Scores of an answer, its text kept beside the first.

    Raises:
        UnreadableAnswer: a dimension without a number, with all that is wrong and the beginning of the answer.
    """
    reading = rubric.read(answer)
    if reading.failures:
        wrong = "; ".join(f"{rubric.DIMENSIONS[key]}: {what}" for key, what in reading.failures.items())
        raise UnreadableAnswer(f"unreadable, {wrong}; it says {answer[:QUOTED]!r}")
    first = next(iter(rubric.DIMENSIONS))
    return {
        f"{NAME}.{key}": Score(float(value), {"answer": answer, **notes} if key == first else {})
        for key, value in reading.scores.items()
    }


def _build(config: QwenJudgeConfig, loaded: NetworkCache) -> _Scorer:
    notes = {"model": config.model, "backend": config.backend}
    if config.backend == "endpoint":
        from eval.judges.endpoint import Endpoint

        endpoint = Endpoint(
            judge_location.endpoint_url(),
            config.model,
            os.environ.get(judge_location.KEY_VARIABLE, ""),
            max_tokens=config.max_tokens,
        )
        return _Scorer(config, lambda text, frames, part: read_answer(endpoint.ask(text, frames, part.times), notes))
    from eval.judges.local import load_local

    folder = judge_location.require(config.model)
    local = loaded.get((NAME, folder), lambda: load_local(folder))

    def spoken(text: str, frames_THWC: np.ndarray, part: JudgedFrames) -> dict[str, Score]:
        return read_answer(local.answer(text, frames_THWC, part, config.max_tokens), notes)

    def expected(text: str, frames_THWC: np.ndarray, part: JudgedFrames) -> dict[str, Score]:
        """sum_n n p(n), n = 1..5, of the token after "Dimension: "."""
        numbers = range(rubric.LOWEST, rubric.HIGHEST + 1)
        scores = {}
        for key, name in rubric.DIMENSIONS.items():
            odds = local.odds(text, f"{name}: ", [str(number) for number in numbers], frames_THWC, part).tolist()
            value = sum(number * share for number, share in zip(numbers, odds, strict=True))
            scores[f"{NAME}.{key}"] = Score(value, {"odds": odds, **notes})
        return scores

    return _Scorer(config, spoken if config.judge == "text" else expected)


def _files(config: QwenJudgeConfig) -> tuple[Path, ...]:
    return () if config.backend == "endpoint" else (judge_location.require(config.model),)


SCORER = Declaration(
    metrics=tuple(
        MetricInfo(f"{NAME}.{key}", "up", "1..5", f"Qwen-VL judge: {text} of the last 5 s")
        for key, text in TEXTS.items()
    ),
    config=QwenJudgeConfig,
    version=1,
    build=_build,
    needs=(Need("Qwen judge", judge_location.missing_judge),),
    files=_files,
)

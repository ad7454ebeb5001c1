"""The evaluation's scorers as training rewards: one implementation of VideoCLIP-XL, VideoAlign and the judges.

A reward is named by a metric's id, e.g. "videoalign.vq" or "qwen_judge.text_alignment". A scorer with several rewards
looks at a clip once. `astro_cli.rewards.scorers` refers to this module by its name.
Dimensions: B clip, T frame, C colour, H, W pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from astro_cli.config.base import Config
from astro_cli.config.errors import AstroError, RunError, did_you_mean
from astro_cli.config.problems import first_problem
from astro_cli.media.video import VideoInfo
from astro_cli.rewards.base import KEYS, Reward
from astro_cli.zoo.needs import NeededPart
from astro_cli.zoo.places import checkpoints_folder
from eval.contract import Declaration, NetworkCache, Sample, Scorer
from eval.metrics.catalog import declarations

if TYPE_CHECKING:  # recipes are read without torch
    import numpy as np
    from torch import Tensor


def metric_ids() -> list[str]:
    """What a recipe may name."""
    return [metric.id for declaration in declarations().values() for metric in declaration.metrics if declaration.sees]


def scorer_of(metric: str) -> str:
    return metric.partition(".")[0]


def problem(metrics: Iterable[str], tables: Mapping[str, Mapping[str, Any]]) -> str:
    """What is wrong with rewards and the tables of their scorers' own keys: "key: what", "" where nothing is."""
    metrics = list(metrics)
    for metric in metrics:
        if metric not in (known := metric_ids()):
            return f"rewards.{metric}: unknown reward, {did_you_mean(metric, [*KEYS, *known])}"
    for name, table in tables.items():
        if name not in (named := [scorer_of(metric) for metric in metrics]):
            return f"scorers.{name}: no reward of it, {did_you_mean(name, named)}"
        try:
            _config(declarations()[name], table)
        except ValidationError as error:
            problem = first_problem(error)
            return f"scorers.{name}.{problem.key}: {problem.what}"
    return ""


def needs(metrics: Iterable[str], tables: Mapping[str, Mapping[str, Any]]) -> list[NeededPart]:
    """A part per scorer: whether it is here, and what to put where."""
    rewards: dict[str, list[str]] = {}
    for metric in metrics:
        rewards.setdefault(scorer_of(metric), []).append(metric)
    parts, folder = [], checkpoints_folder() / "eval"
    for name, own in rewards.items():
        lacks = _lacks(name, tables.get(name, {}))
        parts.append(NeededPart(f"reward {', '.join(own)}", None if lacks else folder, f"below {folder}", lacks))
    return parts


def _lacks(name: str, table: Mapping[str, Any]) -> list[str]:
    """What a scorer lacks and where to put it."""
    declaration = declarations()[name]
    config = _config(declaration, table)
    lacks = [lack for need in (*declaration.needs, *declaration.config_needs(config)) if (lack := need.missing())]
    if lacks:
        return lacks
    try:
        declaration.files(config)
    except AstroError as error:
        return [f"{error.where}: {error.what}", *filter(None, [error.hint])]
    return []


def files(metrics: Iterable[str], tables: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[Path, ...]]:
    """The files that decide a metric's scores, those of a model's folder one by one."""
    files = {}
    for metric in metrics:
        declaration = declarations()[scorer_of(metric)]
        paths = declaration.files(_config(declaration, tables.get(scorer_of(metric), {})))
        files[metric] = tuple(part for path in paths for part in _parts(path))
    return files


def _parts(path: Path) -> list[Path]:
    return sorted(part for part in path.rglob("*") if part.is_file()) if path.is_dir() else [path]


def load(metrics: Iterable[str], tables: Mapping[str, Mapping[str, Any]], fps: float) -> list[Reward]:
    """The rewards in the order of `metrics`; each scorer is built once."""
    cache, watching, rewards = NetworkCache(), dict[str, _Watching](), list[Reward]()
    for metric in metrics:
        name = scorer_of(metric)
        if name not in watching:
            declaration = declarations()[name]
            scorer = declaration.build(_config(declaration, tables.get(name, {})), cache)
            watching[name] = _Watching(scorer, fps)
        rewards.append(ScorerReward(metric, watching[name]))
    return rewards


def _config(declaration: Declaration, table: Mapping[str, Any]) -> Config:
    return declaration.config.model_validate(dict(table))


class _Watching:
    """A scorer that is shown a batch of clips once, however many of its metrics are asked for."""

    def __init__(self, scorer: Scorer, fps: float) -> None:
        self.scorer, self.fps = scorer, fps
        self._of: tuple[Tensor | None, list[str]] = (None, [])
        self._scores: list[dict[str, float | None]] = []

    def scores(self, frames_BTCHW: Tensor, prompts: list[str]) -> list[dict[str, float | None]]:
        if self._of[0] is not frames_BTCHW or self._of[1] != prompts:
            clips = (frames_BTCHW.permute(0, 1, 3, 4, 2) * 255).round().clamp(0, 255).byte().cpu().numpy()
            self._scores = [self._watched(clip, prompt) for clip, prompt in zip(clips, prompts, strict=True)]
            self._of = (frames_BTCHW, prompts)
        return self._scores

    def _watched(self, clip_THWC: np.ndarray, prompt: str) -> dict[str, float | None]:
        info = VideoInfo(len(clip_THWC), self.fps, clip_THWC.shape[2], clip_THWC.shape[1])
        content = hashlib.sha256(clip_THWC.tobytes()).hexdigest()  # scorers remember clips by it
        watcher = self.scorer.watch(Sample(Path("clip"), content, info, prompt, prompt))
        for index, frame in enumerate(clip_THWC):
            watcher.see(index, frame)
        return {metric: score.value for metric, score in watcher.scores().items()}


class ScorerReward:
    """One metric of a scorer; its clips must be long enough for the scorer, which says so where they are not."""

    num_frames_min = 1

    def __init__(self, key: str, watching: _Watching) -> None:
        self.key, self.watching = key, watching

    def score(self, frames_BTCHW: Tensor, prompts: list[str]) -> Tensor:
        """Scores (B,) of frames in [0, 1].

        Raises:
            ScoreError: a clip that the scorer cannot score.
            RunError: one that its metric does not apply to.
        """
        values = []
        for clip in self.watching.scores(frames_BTCHW, prompts):
            value = clip[self.key]
            if value is None:
                raise RunError("reward", self.key, "it does not apply to a training clip")
            values.append(value)
        return frames_BTCHW.new_tensor(values)

"""A checkpoints folder for tiny weights, folders of tiny clips with a manifest, and a scorer that needs no weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from astro_cli.config.base import Config
from astro_cli.generate.mp4 import write_mp4
from astro_cli.zoo.places import CHECKPOINTS_VARIABLE
from eval.contract import Declaration, Frame, MetricInfo, NetworkCache, Sample, Score, ScoreError
from eval.metrics import catalog
from eval.suites.suite import Suite, parse_suite

FRAMES, HEIGHT, WIDTH, FPS = 5, 48, 64, 8
MakeFolder = Callable[..., Path]


@pytest.fixture
def checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder scorers look for their weights in."""
    monkeypatch.setenv(CHECKPOINTS_VARIABLE, str(tmp_path))
    return tmp_path / "eval"


def clip(seed: int) -> np.ndarray:
    """(T, H, W, 3): a bright square that moves over a ramp, elsewhere for every seed."""
    frames = np.tile(np.arange(WIDTH, dtype=np.uint8)[None, None, :, None], (FRAMES, HEIGHT, 1, 3))
    for index in range(FRAMES):
        left = (5 * seed + (1 + seed % 3) * index) % (WIDTH - 12)
        frames[index, 8:20, left : left + 12] = 230
    return frames


@pytest.fixture
def folder_of(tmp_path: Path) -> MakeFolder:
    """A folder with a clip per (prompt id, seed)."""

    def make(name: str, prompts: Sequence[str], seeds: Sequence[int] = (0,), shift: int = 0) -> Path:
        folder, lines = tmp_path / name, []
        folder.mkdir()
        for number, prompt in enumerate(prompts):
            for seed in seeds:
                file = f"{number:03d}-{seed}.mp4"
                write_mp4(clip(shift + number * 7 + seed), folder / file, FPS)
                lines.append({"video": file, "prompt_id": f"p{number:03d}", "prompt": prompt, "seed": seed})
        (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return folder

    return make


class FakeConfig(Config):
    gain: float = 1.0


class FakeWatcher:
    def __init__(self, sample: Sample, gain: float, bad: dict[str, float | str], seen: list[tuple[str, int]]) -> None:
        self.sample, self.gain, self.bad, self.seen = sample, gain, bad, seen
        self.total, self.count = 0.0, 0

    def see(self, index: int, frame_HWC: Frame) -> None:
        self.seen.append((self.sample.path.name, index))
        if self.bad.get(self.sample.path.name) == "see":
            raise ScoreError(self.sample.path, "frames", "cannot go on")
        self.total, self.count = self.total + float(frame_HWC.mean()), self.count + 1

    def scores(self) -> dict[str, Score]:
        value = self.bad.get(self.sample.path.name, self.gain * self.total / self.count)
        if isinstance(value, str):
            raise ScoreError(self.sample.path, value, "no score")
        return {"brightness": Score(value, {"frames": np.int64(self.count)})}


class FakeScorer:
    def __init__(self, gain: float, bad: dict[str, float | str], seen: list[tuple[str, int]]) -> None:
        self.gain, self.bad, self.seen = gain, bad, seen

    def watch(self, sample: Sample) -> FakeWatcher:
        return FakeWatcher(sample, self.gain, self.bad, self.seen)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeScorer:
    """A scorer `brightness` beside the real ones: mean pixel value; `bad` says per file what it scores or where it
    fails, `seen` what it saw.
    """
    scorer = FakeScorer(1.0, {}, [])

    def build(config: FakeConfig, loaded: NetworkCache) -> FakeScorer:
        scorer.gain = config.gain
        return scorer

    declaration = Declaration((MetricInfo("brightness", "up", "0..255", "mean pixel"),), FakeConfig, 1, build)
    known = {**catalog.declarations(), "brightness": declaration}
    monkeypatch.setattr(catalog, "declarations", lambda: known)
    return scorer


@pytest.fixture
def suite_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Suite]:
    """Makes a suite of one's own the one that `astro eval` runs."""
    from eval.scoring import run as suite_run

    def make(text: str) -> Suite:
        suite = parse_suite('title = "test"\nversion = 1\nsource = "here"\n' + text, "test.toml")
        monkeypatch.setattr(suite_run, "load_suite", lambda name: suite)
        return suite

    return make

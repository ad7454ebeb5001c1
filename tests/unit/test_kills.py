"""Killed at any moment and started again, a command ends with the bits it would have ended with, and leaves no litter.

What a kill may leave is what `tests.killed_disk` takes: the state before every file or folder that gets its name or
loses it, and in the middle of every line that is appended.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from released_layouts import network, write_original
from test_training_records import finished  # noqa: F401 - a fixture

from astro_cli.commands import training_run
from astro_cli.config import durable
from astro_cli.config.errors import OutputError
from astro_cli.generate.arm import load_arm
from astro_cli.models import importing, weights
from astro_cli.models.wan.transformer import CausalWan
from astro_cli.recipe import load_recipe
from astro_cli.training import checkpoints
from eval.records import jsonl, store
from eval.records.video_scores import SampleStore, ScoreLine
from eval.report.training_records import record_training
from eval.world.run import evaluate_arm
from tests.killed_disk import states_of
from tests.probe_runs import PROBE
from tests.tiny_world import TINY

pytestmark = pytest.mark.usefixtures("outside_kinds")

TIMES = ("seconds", "tokens_per_second", "share/")


@dataclass(frozen=True)
class Scenario:
    """What is done in a folder, what of it must be the same in the end, and how many states there are at least."""

    work: Callable[[Path], None]
    result: Callable[[Path], object]
    fewest: int


def bytes_of(folder: Path) -> dict[str, bytes]:
    """All files but the lock, and none that are unfinished."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock"]
    assert not [path for path in folder.rglob("*") if durable.is_temporary(path)]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


# --- training: the folder, metrics, checkpoints with optimisers and states, final weights of two roles, adapters


@pytest.fixture
def training(tmp_path, monkeypatch) -> Scenario:
    (tmp_path / "probe.toml").write_text(PROBE)
    recipe_name = str(tmp_path / "probe.toml")
    sets = [*TINY, "model.num_layers=1", "video.frames=3", "stages.probe.steps=2", "runtime.save_every=1"]
    student = CausalWan(load_recipe(recipe_name, sets).model)
    rng = torch.Generator().manual_seed(0)
    weights.write(
        tmp_path / "base.safetensors",
        {name: torch.randn(value.shape, generator=rng) / 5 for name, value in student.state_dict().items()},
    )
    monkeypatch.setattr(checkpoints, "KEEP", 1)  # so that one is deleted
    recipe = load_recipe(recipe_name, [*sets, f"base.student={tmp_path / 'base.safetensors'}"])

    def work(folder: Path) -> None:
        def start(resume: bool) -> None:
            training_run.train(recipe, recipe_name, [], folder / "run", resume=resume)

        try:
            start(True)
        except OutputError:
            start(False)  # there was no run to continue: else this is refused too

    def result(folder: Path) -> object:
        files = bytes_of(folder / "run")
        rows = [json.loads(line) for line in files.pop("metrics.jsonl").splitlines()]
        return files, [{key: value for key, value in row.items() if not key.startswith(TIMES)} for row in rows]

    return Scenario(work, result, 40)


# --- import of a release, over an older import of other weights


@pytest.fixture
def imports(tmp_path, monkeypatch) -> Scenario:
    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(tmp_path / "all"))
    write_original(tmp_path / "all" / "Wan2.1-T2V-1.3B", network(1).state_dict())

    def work(folder: Path) -> None:
        options = {"lora": (), "dtype": None, "ema": None, "report": lambda *_: None}
        importing.import_checkpoint("wan_1.3b", folder / "import", shard_size=20_000, **options)

    return Scenario(work, bytes_of, 8)


# --- records: of an evaluation in the embedded world, of a training, and of single videos


def without_dates(path: Path) -> list[dict]:
    rows = [fields for _, fields in jsonl.read(path)]
    assert path.read_bytes().endswith(b"\n")
    return [{key: value for key, value in row.items() if key != "created"} for row in rows]


@pytest.fixture
def evaluation() -> Scenario:
    benchmark = SimpleNamespace(
        NAME="shapes", VERSION=1, METRICS=("vq", "mq", "ta"), prompt_set=lambda count: ["a"] * count,
        num_frames=lambda arm: 9, protocol=lambda arm: {},
        evaluate=lambda arm, seed, prompts, progress: {"vq": [0.5], "mq": [0.25], "ta": [None]},
    )  # fmt: skip
    suite, arm = SimpleNamespace(name="shapes", load=lambda: benchmark), load_arm("shapes/self_forcing")

    def work(folder: Path) -> None:
        evaluate_arm(arm, 0, 1, folder, lambda *_: None, suite)

    return Scenario(work, lambda folder: without_dates(store.record_path(folder, "shapes")), 4)


@pytest.fixture
def measures(finished) -> Scenario:  # noqa: F811
    def work(folder: Path) -> None:
        record_training(finished, folder)

    return Scenario(work, lambda folder: without_dates(store.record_path(folder, "shapes")), 4)


@pytest.fixture
def videos() -> Scenario:
    lines = [
        ScoreLine(
            video=f"{number}.mp4", video_hash=f"v{number}", prompt_id="0", prompt_hash="p", seed=0, scorer="s",
            config_hash="c", weights_hash="w", decoder="pyav", scores={"a": 0.5},
        )
        for number in range(3)
    ]  # fmt: skip

    def work(folder: Path) -> None:
        scores = SampleStore(folder, "suite")
        scores.load(["s"])
        for line in lines:
            if scores.find(line.key) is None:
                scores.add("s", line)

    return Scenario(work, lambda folder: without_dates(SampleStore(folder, "suite").path("s")), 4)


@pytest.mark.parametrize("name", ["training", "imports", "evaluation", "measures", "videos"])
def test_killed_at_any_moment_and_started_again(name, request, tmp_path):
    scenario: Scenario = request.getfixturevalue(name)
    states = states_of(scenario.work, tmp_path / "whole", tmp_path / "states")
    expected = scenario.result(tmp_path / "whole")
    assert len(states) >= scenario.fewest
    for state in states:
        scenario.work(state)
        assert scenario.result(state) == expected, state


def test_a_second_kill_while_a_run_goes_on_changes_nothing_either(training, tmp_path):
    first = states_of(training.work, tmp_path / "whole", tmp_path / "first")
    expected = training.result(tmp_path / "whole")
    second = states_of(training.work, first[len(first) // 2], tmp_path / "second")
    for state in second[::4]:
        training.work(state)
        assert training.result(state) == expected, state

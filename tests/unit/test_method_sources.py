"""Sources and states of a method outside the package in the trainer: batches, warnings, the end of a run, resuming."""

from __future__ import annotations

import pytest

from astro_cli.config.errors import RunError
from astro_cli.training.build import build, make_accelerator
from astro_cli.training.rundir import RunDir
from astro_cli.training.trainer import Trainer, Unwatched
from tests.probe_runs import CPU, rows, same, state, train


def test_a_source_from_outside_the_package_runs_in_the_trainer(probe, tmp_path):
    out = tmp_path / "run"
    train(probe(), out)
    logged = rows(out)
    assert [row.get("warning", "") for row in logged] == ["", "it walks", "", ""]
    assert all(row["walk/length"] > 0 for row in logged)


def test_a_source_ends_the_run(probe, tmp_path):
    with pytest.raises(RunError, match="walked enough") as caught:
        train(probe("stages.probe.objective.stop=1"), tmp_path / "run")
    assert caught.value.hint == "let it rest"
    assert len(rows(tmp_path / "run")) == 2


class Power(Unwatched):
    """Cuts the power after a step."""

    def __init__(self, after: int) -> None:
        self.after = after

    def step(self, row: dict) -> None:
        if row["step"] == self.after:
            raise KeyboardInterrupt


def test_the_states_of_objective_and_source_continue_with_the_same_bits(probe, tmp_path):
    recipe = probe("runtime.save_every=1")
    whole = train(recipe, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "cut", watcher=Power(2))
    resumed = train(recipe, tmp_path / "cut", resume=True)
    assert same(state(whole), state(resumed))
    lengths = [[row["walk/length"] for row in rows(tmp_path / name)] for name in ("whole", "cut")]
    assert lengths[0] == lengths[1]


def test_an_update_that_breaks_the_weights_leaves_no_checkpoint_of_them(probe, tmp_path):
    class Breaking(Unwatched):
        def step(self, row: dict) -> None:
            if row["step"] == 1:
                next(iter(trainer.run_context.roles.modules["discriminator"].parameters())).data[0] = float("inf")

    recipe, out = probe("runtime.save_every=1"), tmp_path / "run"
    run_context, backbone = build(recipe, CPU)
    run = RunDir(out)
    run.open(recipe, "", resume=False, device="cpu")
    trainer = Trainer(recipe, run_context, backbone, run, make_accelerator(recipe), Breaking())
    with pytest.raises(RunError, match=r"after 2 steps: .* holds numbers that are NaN or infinite"):
        trainer.fit(resume=False)
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["00000001"]

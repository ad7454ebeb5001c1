"""Networks that are divided among processes (`accelerate launch --use_fsdp`) train as whole ones do, and their
checkpoints resume on another number of processes, whole or divided.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from test_processes import SFT, launch, weights_of
from test_training import without_times

from tests.command_line import run

DIVIDED = {"ACCELERATE_USE_FSDP": "true"}  # what accelerate's launcher sets
SAVED = ["--set", "runtime.save_every=1"]


@pytest.fixture
def arguments(tiny, tiny_teacher) -> list[str]:
    return [*SFT, *tiny, "--set", f"base.student={tiny_teacher}", *SAVED]


def cut_off(out: Path) -> None:
    """Leave what a run that was killed in its second step has."""
    shutil.rmtree(out / "final")
    shutil.rmtree(sorted((out / "checkpoints").iterdir())[-1])


def assert_equal(one: Path, other: Path) -> None:
    for row, same in zip(*(without_times(out / "metrics.jsonl") for out in (one, other)), strict=True):
        assert row["student/loss"] == pytest.approx(same["student/loss"], rel=1e-5)
        assert row["student/grad_norm"] == pytest.approx(same["student/grad_norm"], rel=1e-4)
    for key, value in weights_of(one).items():
        torch.testing.assert_close(value, weights_of(other)[key], atol=1e-5, rtol=0)


@pytest.mark.slow  # starts four processes
def test_divided_networks_train_as_whole_ones_and_resume_on_other_numbers_of_processes(
    arguments, tmp_path, monkeypatch
):
    whole, divided, again = tmp_path / "whole", tmp_path / "divided", tmp_path / "again"
    assert run([*arguments, "--out", str(whole)], monkeypatch) == 0
    launch(2, arguments, divided, DIVIDED)
    assert_equal(whole, divided)
    shutil.copytree(whole, again)
    cut_off(divided)
    parts = sorted((divided / "checkpoints").glob("*/network-student/*.safetensors"))
    assert len(parts) == 2  # a file per process
    with safe_open(parts[0], "pt") as file:
        rows = file.get_slice("proj_out.weight").get_shape()[0]
    assert 2 * rows == weights_of(whole)["proj_out.weight"].shape[0]
    assert run([*arguments, "--out", str(divided), "--resume"], monkeypatch) == 0  # two divided -> one
    assert_equal(whole, divided)
    cut_off(again)
    launch(2, [*arguments, "--resume"], again, DIVIDED)  # one -> two divided
    assert_equal(whole, again)


def test_what_cannot_be_divided_is_refused(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(*next(iter(DIVIDED.items())))
    ode = ["distill", "--recipe", "self_forcing_ode_shapes", *tiny, "--out", str(tmp_path / "run")]
    assert run(ode, monkeypatch) == 2
    assert "stages.ode.objective.kind: found 'ode', which does not train networks that are divided" in (
        " ".join(capsys.readouterr().err.split())
    )
    assert not (tmp_path / "run").exists()

"""`astro sft` on tiny networks: clips weighed by structure train, a killed run resumes to the same bits, and what is
wrong is said before a folder is made.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from test_bad_input import message
from test_training import kill_after_a_step, run, same_bits, without_times

OF_TINY = ("runtime.save_every=1", "video.frames=3", "teacher.steps=2")
SMALL = ("batch=4", "accumulate=2", "data.pool=8", "optim.student.warmup=0")


@pytest.fixture
def arguments(tiny, tiny_teacher):
    """Of a small run of a recipe: its last values win."""

    def of(recipe: str, out: Path, *more: str, steps: int = 2) -> list[str]:
        sets = [*codec_of(tiny_teacher), f"base.student={tiny_teacher}", *OF_TINY]
        sets += [f"stages.sft.{item}" for item in (*SMALL, f"steps={steps}", *more)]
        flags = [part for item in sets for part in ("--set", item)]
        return ["sft", "--recipe", recipe, *tiny, *flags, "--out", str(out)]

    return of


def codec_of(weights: Path) -> list[str]:
    """The codec and latent channels that tiny weights were written for."""
    card = json.loads(weights.with_suffix(".json").read_text())
    return [f"model.in_channels={card['model']['in_channels']}", f"base.codec={card['codec'] or 'shapes/codec'}"]


def rows(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("recipe", ["sft_shapes", "sft_geometry_shapes"])
def test_a_run_trains_all_weights_of_a_multi_step_model(recipe, arguments, tiny_teacher, tmp_path, monkeypatch):
    out = tmp_path / "run"
    assert run(arguments(recipe, out), monkeypatch) == 0
    for row in rows(out):
        assert math.isfinite(row["student/loss"])
        assert row["student/grad_norm"] > 0
        weighed = "structure/stability" in row
        assert weighed == ("geometry" in recipe)
        if weighed:
            assert 0 <= row["structure/stability"] <= 1
            assert row["structure/weight_least"] < 1 < row["structure/weight_most"]
    assert not same_bits(out / "final" / "student.safetensors", tiny_teacher)
    assert json.loads((out / "final" / "student.json").read_text())["sampling"] == "ode"


def test_without_strength_the_run_is_that_of_plain_flow_matching(arguments, tmp_path, monkeypatch):
    plain, even = tmp_path / "plain", tmp_path / "even"
    assert run(arguments("sft_shapes", plain), monkeypatch) == 0
    assert run(arguments("sft_geometry_shapes", even, "objective.strength=0"), monkeypatch) == 0
    assert same_bits(*(out / "final" / "student.safetensors" for out in (plain, even)))


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_bits(arguments, tmp_path, monkeypatch):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run(arguments("sft_geometry_shapes", whole, steps=6), monkeypatch) == 0
    again = arguments("sft_geometry_shapes", killed, steps=6)
    kill_after_a_step(again, killed)
    assert run([*again, "--resume"], monkeypatch) == 0
    assert same_bits(*(out / "final" / "student.safetensors" for out in (whole, killed)))
    assert without_times(whole / "metrics.jsonl") == without_times(killed / "metrics.jsonl")


@pytest.mark.parametrize(("sets", "says"), [
    (["objective.structure=model"], "objective.structure: found 'model', expected 'none', 'prediction' or 'data'"),
    (["objective.strength=-1"], "stages.sft.objective.strength"),
    (["objective.sigma=0"], "stages.sft.objective.sigma"),
    (["data.pan=2"], "stages.sft.data.pan"),
    (["data.clips=videos"], "stages.sft.data.clips: found 'videos', expected none: the embedded world"),
])  # fmt: skip
def test_a_wrong_recipe_is_refused_with_its_key(sets, says, arguments, tmp_path, monkeypatch, capsys):
    assert run(arguments("sft_geometry_shapes", tmp_path / "run", *sets), monkeypatch) == 2
    assert says in message(capsys)
    assert not (tmp_path / "run").exists()


def test_a_streaming_policy_and_a_few_step_student_are_refused(arguments, tiny_base, tmp_path, monkeypatch, capsys):
    flags = arguments("sft_shapes", tmp_path / "run")
    assert run([*flags, "--set", "policy=streaming"], monkeypatch) == 2
    assert "policy: found 'streaming', expected 'bidirectional': sft trains a multi-step model" in message(capsys)
    assert run([*flags, "--set", f"base.student={tiny_base}"], monkeypatch) == 2
    assert "a few-step student of" in message(capsys)


def test_panning_cameras_are_refused_where_nothing_renders_them(tmp_path, monkeypatch, capsys):
    sets = ["--set", "stages.codec.data.pan=0.5", "--out", str(tmp_path / "run")]
    assert run(["pretrain", "--recipe", "codec_shapes", *sets], monkeypatch) == 2
    assert "stages.codec.data.pan: found 0.5, expected 0: autoencoder renders no clips" in message(capsys)

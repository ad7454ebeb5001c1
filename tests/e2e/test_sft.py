"""`astro sft` on tiny networks: clips weighed by structure train, a decoder gets a motion branch, a killed run resumes
to the same bits, and what is wrong is said before a folder is made.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_bad_input import message
from test_training import kill_after_a_step, run, same_bits, without_times

from astro_cli.generate.arm import load_arm
from astro_cli.models import weights
from astro_cli.models.shapes_backbone import load_shapes_backbone
from astro_cli.models.wan.transformer import CausalWan
from astro_cli.recipe import load_recipe
from astro_cli.training.build import _initialise, build
from astro_cli.training.release import write_card
from tests.tiny_world import TINY

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


@pytest.fixture
def flow_arguments(tmp_path):
    """Of a small run of the flow branch: a tiny teacher over the temporal codec."""
    base = tmp_path / "base"
    recipe = load_recipe("sft_shapes", TINY)
    network = CausalWan(recipe.model)
    _initialise(network, 0)
    weights.write(base / "student.safetensors", network.state_dict())
    write_card(recipe, "student", base, {"commit": None, "dirty": None})

    def of(out: Path, *more: str, steps: int = 2) -> list[str]:
        sets = [*TINY, *OF_TINY, f"base.student={base / 'student.safetensors'}"]
        sets += [f"stages.sft.{item}" for item in ("batch=2", f"steps={steps}", "optim.decoder.warmup=0", *more)]
        flags = [part for item in sets for part in ("--set", item)]
        return ["sft", "--recipe", "sft_flow_shapes", *flags, "--out", str(out)]

    return of


def test_the_flow_branch_trains_the_decoder_and_leaves_the_rest(flow_arguments, tmp_path, monkeypatch):
    out, codec = tmp_path / "run", load_shapes_backbone(load_recipe("sft_flow_shapes").base.codec).codec
    assert run(flow_arguments(out), monkeypatch) == 0
    assert same_bits(out / "final" / "student.safetensors", tmp_path / "base" / "student.safetensors")
    trained = load_file(out / "final" / "decoder.safetensors")
    for name, value in codec.decoder.state_dict().items():
        assert not torch.equal(trained[f"decoder.{name}"], value), name
    assert trained["branch.fuse.weight"].abs().max() > 0
    first = rows(out)[0]
    assert first["decoder/flow_epe"] > 0
    assert first["decoder/mse"] < 0.01  # the codec that it began with
    assert json.loads((out / "final" / "student.json").read_text())["decoder"] == "decoder.safetensors"


def test_videos_are_decoded_with_the_branch_that_was_trained(flow_arguments, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    assert run(flow_arguments(out, "optim.decoder.lr=0.01"), monkeypatch) == 0
    tuned, plain = load_arm(str(out)), load_shapes_backbone(load_recipe("sft_flow_shapes").base.codec)
    latents = torch.randn(1, 2, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(tuned.backbone.decode(latents), plain.decode(latents), atol=1e-3)
    assert out / "final" / "decoder.safetensors" in tuned.files  # a part of the hash of its records
    (out / "final" / "decoder.safetensors").unlink()
    assert run(["sample", "a red circle", "--weights", str(out / "final" / "student.safetensors")], monkeypatch) == 2
    assert "decoder.safetensors: missing: the decoder with its motion branch" in message(capsys)


def test_later_stages_decode_with_the_tuned_decoder_and_leave_it_beside_their_weights(
    flow_arguments, tmp_path, monkeypatch
):
    first, second = tmp_path / "run", tmp_path / "second"
    assert run(flow_arguments(first, "optim.decoder.lr=0.01", steps=1), monkeypatch) == 0
    sets = [*TINY, *OF_TINY, f"base.student={first}", *(f"stages.sft.{item}" for item in (*SMALL, "steps=1"))]
    latents = torch.randn(1, 2, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    tuned = load_arm(str(first)).backbone.decode(latents)
    run_context, _ = build(load_recipe("sft_geometry_shapes", sets), torch.device("cpu"))
    assert torch.equal(run_context.decoder().push(latents), tuned)
    flow = load_recipe("sft_flow_shapes", [*TINY, *OF_TINY, f"base.student={first}"])
    decoder = build(flow, torch.device("cpu"))[0].roles.modules["decoder"]  # that goes on being trained
    kept = load_file(first / "final" / "decoder.safetensors")
    assert all(torch.equal(value, kept[name]) for name, value in decoder.state_dict().items())
    flags = [part for item in sets for part in ("--set", item)]
    assert run(["sft", "--recipe", "sft_geometry_shapes", *flags, "--out", str(second)], monkeypatch) == 0
    assert same_bits(*(out / "final" / "decoder.safetensors" for out in (first, second)))
    assert torch.equal(load_arm(str(second)).backbone.decode(latents), tuned)
    inputs = json.loads((second / "resolved.json").read_text())["inputs"]
    assert "base.student's decoder" in inputs


@pytest.mark.slow
def test_a_killed_run_of_the_flow_branch_resumes_to_the_same_bits(flow_arguments, tmp_path, monkeypatch):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run(flow_arguments(whole, steps=6), monkeypatch) == 0
    kill_after_a_step(flow_arguments(killed, steps=6), killed)
    assert run([*flow_arguments(killed, steps=6), "--resume"], monkeypatch) == 0
    assert same_bits(*(out / "final" / "decoder.safetensors" for out in (whole, killed)))
    assert without_times(whole / "metrics.jsonl") == without_times(killed / "metrics.jsonl")


@pytest.mark.parametrize(("sets", "says"), [
    (["stages.sft.objective.epsilon=0"], "stages.sft.objective.epsilon"),
    (["stages.sft.data.frames=1"], "stages.sft.data.frames: found one latent frame, flow needs two or more"),
    (["model.in_channels=4"], "model.in_channels: found 4, expected 16, as the backbone 'shapes' has it"),
    (["lora={rank=2, alpha=2}"], "lora: found adapters, sft_flow leaves the transformer as it is"),
    (["stages.sft.data.clips=videos"], "stages.sft.data.clips: found 'videos', expected none: the embedded world"),
])  # fmt: skip
def test_a_wrong_flow_recipe_is_refused_with_its_key(sets, says, flow_arguments, tmp_path, monkeypatch, capsys):
    flags = [part for item in sets for part in ("--set", item)]
    assert run([*flow_arguments(tmp_path / "run"), *flags], monkeypatch) == 2
    assert says in message(capsys)
    assert not (tmp_path / "run").exists()

"""`astro prefer` on tiny networks: every source of pairs trains, a killed run resumes to the same bits, the three ways
to the gradient give the same weights, and what is wrong is said before a folder is made.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_videos import write_video
from test_bad_input import message
from test_training import same_bits, without_times

from astro_cli.objectives import dpo
from astro_cli.training import scorers
from tests.command_line import run, run_and_interrupt, set_options

SMALL = ("batch=4", "data.pool=8", "objective.validation=2", "objective.validation_every=1", "optim.student.warmup=0")
OF_TINY = ("lora.rank=4", "runtime.save_every=1", "sampler.steps=3",
           "teacher.guidance=2.0", "video.frames=6")  # fmt: skip
PROMPT = "a large red circle moves right slowly over a gray plain background"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Latents of videos are kept below it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def arguments(tiny, tiny_teacher, tiny_base):
    """Of a small run of a recipe: its last values win."""

    def of(recipe: str, out: Path, *more: str, steps: int = 1) -> list[str]:
        base = tiny_base if "streaming" in recipe else tiny_teacher
        items = (f"stages.dpo.{item}" for item in (*SMALL, f"steps={steps}", *more))
        flags = set_options(*OF_TINY, f"base.student={base}", *items)
        return ["prefer", "--recipe", recipe, *tiny, *flags, "--out", str(out)]

    return of


def rows(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("recipe", ["dpo_temporal_shapes", "dpo_hard_shapes", "dpo_streaming_shapes"])
def test_a_run_that_is_cut_off_resumes_to_the_same_bits(recipe, arguments, tmp_path, monkeypatch):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run(arguments(recipe, whole, steps=3), monkeypatch) == 0
    run_and_interrupt(arguments(recipe, cut, steps=3), dpo, monkeypatch)
    assert len(rows(cut)) == 1
    assert run([*arguments(recipe, cut, steps=3), "--resume"], monkeypatch) == 0
    assert same_bits(*(out / "final" / "student.safetensors" for out in (whole, cut)))
    assert without_times(whole / "metrics.jsonl") == without_times(cut / "metrics.jsonl")
    first = rows(whole)[0]
    assert first["student/preference_loss"] == pytest.approx(math.log(2), abs=1e-5)  # theta begins as the reference
    assert first["student/grad_norm"] > 0
    card = json.loads((whole / "final" / "student.json").read_text())
    assert card["sampling"] == ("few_step" if "streaming" in recipe else "ode")


def test_all_kinds_in_mixed_forms(arguments, tmp_path, monkeypatch):
    forms = "pairs.forms=[{frames=6, height=8, width=8}, {frames=3, height=12, width=12}]"
    out, loaded = tmp_path / "run", list[str]()
    load = scorers.embedded_reward
    monkeypatch.setattr(scorers, "embedded_reward", lambda key, pace: loaded.append(key) or load(key, pace))
    assert run(arguments("dpo_mixed_shapes", out, forms, "batch=12", "data.pool=6", steps=4), monkeypatch) == 0
    found = rows(out)
    assert {(row["pairs/frames"], row["pairs/height"]) for row in found} == {(6.0, 8.0), (3.0, 12.0)}
    kinds = {key.removeprefix("margin/") for row in found for key in row if key.startswith("margin/")}
    assert kinds == {"reverse", "shuffle", "freeze", "group", "rater"}
    validation = {key for key in found[0] if key.startswith("validation/margin/")}
    of_a_form = {f"validation/margin/{kind}/{form}" for kind in kinds for form in ("6x8x8", "3x12x12")}
    assert validation == {f"validation/margin/{kind}" for kind in kinds} | of_a_form
    for kind in kinds:
        first, second = (found[-1][f"validation/margin/{kind}/{form}"] for form in ("6x8x8", "3x12x12"))
        assert found[-1][f"validation/margin/{kind}"] == pytest.approx((first + second) / 2)
    assert sorted(loaded) == ["mq", "ta", "vq"]  # once, for all forms
    assert any("pairs/reward_gap" in row for row in found)
    assert any("pairs/rater_gap" in row for row in found)
    assert all(math.isfinite(row["student/loss"]) for row in found)


def test_three_ways_to_one_gradient_give_the_same_run(arguments, tmp_path, monkeypatch):
    saved = {}
    for gradient in ("joint", "decoupled", "decoupled_recompute"):
        out = tmp_path / gradient
        assert run(arguments("dpo_temporal_shapes", out, f"objective.gradient={gradient}", steps=2), monkeypatch) == 0
        saved[gradient] = rows(out)[0]["memory/saved_bytes"]
    joint, *others = (load_file(tmp_path / gradient / "final" / "student.safetensors") for gradient in saved)
    losses = [[row["student/loss"] for row in rows(tmp_path / gradient)] for gradient in saved]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)
    assert losses[2] == pytest.approx(losses[0], abs=1e-5)
    for other in others:
        for key, value in joint.items():
            torch.testing.assert_close(value, other[key], atol=1e-5, rtol=0)
    assert saved["decoupled_recompute"] <= 0.65 * saved["joint"]


@pytest.fixture
def pairs(tmp_path) -> Path:
    """A file of four pairs of videos in the embedded world's size."""
    folder = tmp_path / "pairs"
    for seed in range(8):
        write_video(folder / f"{seed}.mp4", seed=seed, frames=21, size=(32, 32))
    lines = [{"prompt": PROMPT, "chosen": f"{row}.mp4", "rejected": f"{row + 4}.mp4"} for row in range(4)]
    lines[1]["verdict"] = "B"
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def file_run(path: Path) -> tuple[str, ...]:
    return ("pairs.kinds={file=1.0}", f"data.pairs={path}")


def test_a_users_pairs_are_encoded_once_and_trained_on(pairs, arguments, tmp_path, monkeypatch, capsys):
    from astro_cli.models.shapes_backbone import ShapesBackbone

    encoded, encode = [], ShapesBackbone.encode
    monkeypatch.setattr(ShapesBackbone, "encode", lambda self, frames: encoded.append(frames) or encode(self, frames))
    for name in ("one", "two"):
        assert run(arguments("dpo_human_shapes", tmp_path / name, *file_run(pairs), steps=2), monkeypatch) == 0
        assert len(encoded) == 8  # the second run finds the latents of the first
    assert same_bits(*(tmp_path / name / "final" / "student.safetensors" for name in ("one", "two")))
    assert {key for key in rows(tmp_path / "one")[0] if key.startswith("margin/")} == {"margin/file"}
    inputs = json.loads((tmp_path / "one" / "resolved.json").read_text())["inputs"]
    assert "stages.dpo.data.pairs" in inputs
    write_video(pairs.parent / "0.mp4", seed=9, frames=21, size=(32, 32))
    again = [*arguments("dpo_human_shapes", tmp_path / "one", *file_run(pairs), steps=3), "--resume"]
    capsys.readouterr()
    assert run(again, monkeypatch) == 2


def test_pairs_too_short_for_the_recipe_are_left_out_with_a_count(pairs, arguments, tmp_path, monkeypatch, capsys):
    for name in ("0.mp4", "4.mp4"):
        write_video(pairs.parent / name, seed=20 + int(name[0]), frames=13, size=(32, 32))
    assert run(arguments("dpo_human_shapes", tmp_path / "run", *file_run(pairs)), monkeypatch) == 0
    text = capsys.readouterr().err.replace("\n", " ")
    assert "2 of 8 videos are left out: 0.mp4: too short: 13 frames at 8 a second, expected 21 at 8" in text


@pytest.mark.parametrize(("line", "says"), [
    ({"rejected": "gone.mp4"}, "pairs.jsonl: line 5: found video 'gone.mp4', no such file"),
    ({"rejected": "0.mp4"}, "line 5: chosen and rejected are the same video"),
    ({"rejected": "../0.mp4"}, "line 5: found video '../0.mp4', which leaves the file's folder"),
    ({"rejected": "wide.mp4"}, "line 5: a pair of two sizes: found chosen 32x32"),
    ({"rejected": "short.mp4"}, "line 5: a pair of two lengths"),
    ({"rejected": "1.mp4", "verdict": "better"}, "line 5: verdict: found 'better', allowed: G, S, B"),
])  # fmt: skip
def test_a_wrong_pair_is_named_before_a_folder_is_made(line, says, pairs, arguments, tmp_path, monkeypatch, capsys):
    write_video(pairs.parent / "wide.mp4", seed=1, frames=21, size=(48, 32))
    write_video(pairs.parent / "short.mp4", seed=1, frames=13, size=(32, 32))
    with pairs.open("a") as file:
        file.write(json.dumps({"prompt": PROMPT, "chosen": "0.mp4"} | line) + "\n")
    assert run(arguments("dpo_human_shapes", tmp_path / "run", *file_run(pairs)), monkeypatch) == 2
    assert says in message(capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("sets", "says"), [
    (["pairs.kinds={reverse=0.0}"], "stages.dpo.pairs.kinds: found no share above 0"),
    (["pairs.kinds={reversal=1.0}"], "stages.dpo.pairs.kinds.reversal"),
    (["pairs.kinds={group=1.0}"], "stages.dpo.pairs.rewards: all weights are zero"),
    (["pairs.kinds={group=1.0}", "pairs.rewards={vqq=1.0}"], "pairs.rewards.vqq: unknown reward, did you mean 'vq'?"),
    (["pairs.kinds={group=1.0}", "pairs.rewards={vq=1.0}", "pairs.overlap=ta"], "pairs.overlap: found 'ta', expected"),
    (["pairs.kinds={file=1.0}"], "stages.dpo.data.pairs: missing, pairs of kind 'file' are read from it"),
    (["data.pairs=pairs.jsonl"], "stages.dpo.data.pairs: found 'pairs.jsonl', expected none"),
    (["data.clips=videos"], "stages.dpo.data.clips: found 'videos', expected none"),
    (["data.prompts=prompts.txt"], "stages.dpo.data.prompts: found 'prompts.txt', expected none"),
    (["pairs.forms=[{frames=6, height=7, width=7}]"], "pairs.forms.0.height: found 7, expected a multiple of 2"),
    (["pairs.forms=[{frames=6, height=8, width=10}]"], "pairs.forms.0.width: found 10, expected the height (8)"),
    (["pairs.forms=[{frames=1, height=8, width=8}]"], "pairs.forms: found clips of one frame"),
    (["objective.sigma_min=0.99"], "objective.sigma_min: found 0.99, expected less than sigma_max (0.95)"),
    (["objective.gradient=both"], "objective.gradient: found 'both', expected 'joint', 'decoupled'"),
    (["pairs.rater.flips=0.7"], "stages.dpo.pairs.rater.flips"),
])  # fmt: skip
def test_a_wrong_recipe_is_refused_with_its_key(sets, says, arguments, tmp_path, monkeypatch, capsys):
    assert run(arguments("dpo_temporal_shapes", tmp_path / "run", *sets), monkeypatch) == 2
    assert says in message(capsys)
    assert not (tmp_path / "run").exists()


def test_a_reference_of_another_base_is_refused(arguments, tiny_teacher, tiny_base, tmp_path, monkeypatch, capsys):
    from astro_cli.models import weights

    other = tmp_path / "other.safetensors"
    state = weights.read(tiny_teacher)
    weights.write(other, {key: value + 1 for key, value in state.items()})
    same = tmp_path / "same.safetensors"
    shutil.copy(tiny_teacher, same)
    flags = arguments("dpo_temporal_shapes", tmp_path / "run")
    for more in ([], ["--dry-run"]):
        assert run([*flags, "--set", f"base.reference={other}", *more], monkeypatch) == 2
        assert "base.reference: found" in (text := message(capsys))
        assert "other weights than those of base.student" in text
        assert not (tmp_path / "run").exists()
    assert run([*flags, "--set", f"base.reference={same}"], monkeypatch) == 0


def test_dropout_and_a_missing_table_are_refused(arguments, tmp_path, monkeypatch, capsys):
    flags = arguments("dpo_temporal_shapes", tmp_path / "run")
    assert run([*flags, "--set", "lora.dropout=0.1"], monkeypatch) == 2
    assert "lora.dropout: found 0.1, expected 0" in message(capsys)
    (tmp_path / "bare.toml").write_text(
        '# No pairs.\nextends = "base/teleboost_dpo_shapes.toml"\nname = "bare"\n', encoding="utf-8"
    )
    assert run(["prefer", "--recipe", str(tmp_path / "bare.toml"), "--out", str(tmp_path / "run")], monkeypatch) == 2
    assert "stages.dpo.pairs: missing, dpo learns from pairs" in message(capsys)

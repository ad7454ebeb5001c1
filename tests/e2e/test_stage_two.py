"""`astro rl` with GRPO and its credit rules on tiny networks: both policies train, resume to the same bits, and leave
weights that are sampled as their policy is; what does not fit is refused.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from test_bad_input import message
from test_training import same_bits, without_times

from astro_cli.objectives import grpo
from tests.command_line import run, run_and_interrupt, set_options

SMALL = {
    "batch": 8,
    "experience.prompts": 2,
    "experience.group": 4,
    "experience.updates": 2,
    "experience.samples_every": 0,
    "objective.clip_epoch": 0,
}
POLICIES = ("", "_streaming")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Scores of a base are kept below it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def arguments(tiny, tiny_teacher):
    """Of a small run of a recipe: its last values win."""

    def of(recipe: str, out: Path, steps: int = 1, **keys: object) -> list[str]:
        base = [] if "streaming" in recipe else [f"base.student={tiny_teacher}", "sampler.steps=5"]
        values = (f"stages.grpo.{key}={value}" for key, value in ({**SMALL, "steps": steps} | keys).items())
        more = set_options(*base, "lora.rank=4", "runtime.save_every=1", *values)
        return ["rl", "--recipe", recipe, *tiny, *more, "--out", str(out)]

    return of


@pytest.mark.parametrize("policy", POLICIES, ids=["teacher", "student"])
def test_grpo_trains_resumes_and_leaves_weights_of_its_policy(policy, arguments, tmp_path, monkeypatch):
    whole, cut, name = tmp_path / "whole", tmp_path / "cut", f"grpo{policy}_shapes"
    assert run(arguments(name, whole, 3), monkeypatch) == 0
    run_and_interrupt(arguments(name, cut, 3), grpo, monkeypatch)
    assert run([*arguments(name, cut, 3), "--resume"], monkeypatch) == 0
    assert same_bits(whole / "final" / "student.safetensors", cut / "final" / "student.safetensors")
    rows = without_times(whole / "metrics.jsonl")
    assert rows == without_times(cut / "metrics.jsonl")
    for row in rows:
        assert row["ratio/first_error"] < 1e-5
        assert row["ratio/clip"] == rows[0]["ratio/clip"] > 0  # calibrated in the first epoch, then kept
        assert row["student/grad_norm"] > 0
        assert {"student/ratio_min", "student/ratio_max", "student/clipped", "student/kl_old"} <= row.keys()
        assert {"reward/q10", "reward/q50", "reward/q90", "reward/zero_variance_groups"} <= row.keys()
    assert ("window/start" in rows[0]) == bool(policy)
    card = json.loads((whole / "final" / "student.json").read_text())
    assert card["sampling"] == ("few_step" if policy else "ode")


@pytest.mark.parametrize("rule", ["vipo", "bpgo", "self_paced", "min_norm", "joint_grpo"])
@pytest.mark.parametrize("policy", POLICIES, ids=["teacher", "student"])
def test_a_credit_rule_trains(rule, policy, arguments, tmp_path, monkeypatch):
    measured = {"data.captions": 4, "experience.advantage.base_samples": 2}
    sets = measured if rule in ("bpgo", "self_paced") else {}
    assert run(arguments(f"{rule}{policy}_shapes", tmp_path / "run", **sets), monkeypatch) == 0
    [row] = without_times(tmp_path / "run" / "metrics.jsonl")
    assert math.isfinite(row["student/loss"])
    assert row["student/grad_norm"] > 0
    assert row["ratio/first_error"] < 1e-5
    shown = {"vipo": "map_fallbacks", "bpgo": "trust", "self_paced": "share/vq", "min_norm": "weight/vq"}
    assert rule not in shown or f"advantage/{shown[rule]}" in row


@pytest.mark.parametrize("keys", [
    {"objective.guard": "true", "objective.weights": '"guard"', "experience.same_noise": "true"},
    {"objective.old": '"replayed"', "objective.kl_weight": 0.01, "experience.sde_window": 2},
    {"objective.choice": '"sample"', "objective.fraction": 1.0, "accumulate": 2, "experience.parallel": 3},
], ids=["guard", "replayed", "all steps"])  # fmt: skip
def test_grpos_options_train(keys, arguments, tmp_path, monkeypatch):
    assert run(arguments("grpo_shapes", tmp_path / "run", **keys), monkeypatch) == 0
    [row] = without_times(tmp_path / "run" / "metrics.jsonl")
    assert row["student/grad_norm"] > 0
    assert row["ratio/first_error"] < 1e-5
    assert ("student/kl" in row) == ("objective.kl_weight" in keys)


def test_a_prior_is_measured_once_and_kept_by_the_weights(arguments, tmp_path, monkeypatch):
    """The second run, of another seed, reads it; a damaged file is measured anew; a cut run needs none."""
    from astro_cli.training import base_scores

    sets = {"data.captions": 3, "experience.advantage.base_samples": 2}
    measured, measure = [], base_scores.measure
    monkeypatch.setattr(base_scores, "measure", lambda *told: measured.append(told) or measure(*told))
    assert run(arguments("bpgo_shapes", tmp_path / "one", **sets), monkeypatch) == 0
    assert len(measured) == 1
    [kept] = (tmp_path / "cache" / "astro" / "base_scores").iterdir()
    assert run([*arguments("bpgo_shapes", tmp_path / "two", **sets), "--seed", "1"], monkeypatch) == 0
    assert len(measured) == 1
    kept.write_text('{"prompts": ["other"')
    assert run(arguments("bpgo_shapes", tmp_path / "three", **sets), monkeypatch) == 0
    assert len(measured) == 2
    assert same_bits(tmp_path / "one/final/student.safetensors", tmp_path / "three/final/student.safetensors")
    kept.unlink()
    assert run([*arguments("bpgo_shapes", tmp_path / "one", 2, **sets), "--resume"], monkeypatch) != 0  # other steps
    assert len(measured) == 2


@pytest.mark.parametrize(("recipe", "sets", "says"), [
    ("bpgo_shapes", {"data": "{drop=0.5}"}, "stages.grpo.data.captions: missing, 'bpgo' measures a prior of each"),
    ("vipo_shapes", {"objective.ratio": '"position"', "objective.kl_weight": 0.1},
     "stages.grpo.objective.kl_weight: found 0.1 with ratio 'position'"),
    ("grpo_shapes", {"experience.group": 1, "batch": 2}, "stages.grpo.experience.group: found 1"),
    ("vipo_shapes", {"experience.advantage.map": '"released"'}, "advantage.normalise: found 'mean' with map"),
])  # fmt: skip
def test_what_cannot_run_is_refused_before_training(recipe, sets, says, arguments, tmp_path, monkeypatch, capsys):
    assert run(arguments(recipe, tmp_path / "run", **sets), monkeypatch) == 2
    assert says in message(capsys)
    assert not (tmp_path / "run").exists()


def test_each_policy_refuses_the_others_weights(arguments, tiny_base, tiny_teacher, tmp_path, monkeypatch, capsys):
    for name, weights, says in (
        ("grpo_shapes", tiny_base, "a few-step student of self_forcing_shapes, the recipe's policy is bidirectional"),
        ("grpo_streaming_shapes", tiny_teacher, "a model of sft_shapes that is sampled in many steps"),
    ):
        wrong = ["--set", f"base.student={weights}"]
        assert run([*arguments(name, tmp_path / "run"), *wrong], monkeypatch) == 2
        assert says in message(capsys)


def test_a_constant_reward_ends_the_run_with_its_name(arguments, tmp_path, monkeypatch, capsys):
    import torch

    from astro_cli.rewards.shapes import VisualQuality

    monkeypatch.setattr(VisualQuality, "score", lambda self, frames, prompts: torch.full((len(prompts),), 0.5))
    assert run(arguments("grpo_shapes", tmp_path / "run"), monkeypatch) == 1
    assert "reward: vq: the same score, 0.5, for all 8 clips of epoch 0" in message(capsys)


@pytest.mark.parametrize("bad", ["nan", "length"])
def test_a_reward_without_a_number_for_each_clip_ends_the_run(bad, arguments, tmp_path, monkeypatch, capsys):
    import torch

    from astro_cli.rewards.shapes import VisualQuality

    def score(self, frames, prompts):
        return torch.full((len(prompts),), math.nan) if bad == "nan" else torch.rand(len(prompts) + 1)

    monkeypatch.setattr(VisualQuality, "score", score)
    assert run(arguments("grpo_shapes", tmp_path / "run"), monkeypatch) == 1
    assert "reward: vq: " in message(capsys)

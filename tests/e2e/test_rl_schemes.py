"""Astrolabe's schemes for a few steps: rollouts, KL, long tuning, ablation grids; resumed to the same bits, refused
where they cannot run.
"""

from __future__ import annotations

import json
import math

import pytest
from safetensors.torch import load_file, save_file
from test_bad_input import message
from test_training import RL, same_bits, without_times

from astro_cli.objectives import nft
from tests.command_line import run, run_and_interrupt, set_options
from tests.tiny_world import bare_rl_recipe

SMALL = set_options(
    "stages.nft.steps=3",
    "stages.nft.accumulate=1",
    *(f"stages.nft.{key}" for key in ("batch=8", "experience.prompts=2", "experience.group=4", "experience.updates=2")),
    "runtime.save_every=1",
    "lora.rank=4",
)
SHORT = set_options("stages.nft.experience.frames=18")
SCHEMES = ("seq_full", "seq_detach", "clip_full", "clip_detach")


def rows(out):
    return without_times(out / "metrics.jsonl")


@pytest.mark.parametrize("recipe", [f"astrolabe_{name}_shapes" for name in (*SCHEMES, "adaptive", "released", "vq_mq")])
def test_a_scheme_trains(recipe, tiny, tmp_path, monkeypatch):
    frames = SHORT if "_full" in recipe or "_detach" in recipe else []
    one = ["--set", "stages.nft.steps=1"]
    assert (
        run(["rl", "--recipe", recipe, *SMALL, *frames, *one, *tiny, "--out", str(tmp_path / "run")], monkeypatch) == 0
    )
    row = rows(tmp_path / "run")[-1]
    assert math.isfinite(row["student/loss"])
    assert row["student/grad_norm"] > 0
    assert row["memory/saved_bytes"] > 0
    assert sum(row["advantage/histogram"]) == pytest.approx(1.0)
    assert ("window/start" in row) == all(whole not in recipe for whole in ("_seq_", "released"))


def test_selective_kl_resumes_to_the_same_bits(tiny, tmp_path, monkeypatch):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    arguments = ["rl", "--recipe", "astrolabe_all_shapes", *SMALL, "--set", "stages.nft.steps=4", *tiny]
    assert run([*arguments, "--out", str(whole)], monkeypatch) == 0
    run_and_interrupt([*arguments, "--out", str(cut)], nft, monkeypatch, step=3)
    assert run([*arguments, "--out", str(cut), "--resume"], monkeypatch) == 0
    assert same_bits(whole / "final" / "student.safetensors", cut / "final" / "student.safetensors")
    assert rows(whole) == rows(cut)
    row = rows(whole)[-1]
    assert {
        "kl/risk_ratio",
        "kl/rank_threshold",
        "kl/masked_share",
        "kl/reset",
        "student/kl",
        "reward/disagreement",
    } <= row.keys()
    assert 0 < row["kl/masked_share"] <= 0.5


def test_a_policy_whose_old_one_follows_at_once_is_warned_of(tiny, tmp_path, monkeypatch, capsys):
    """With nothing of theta_old kept and one update an epoch, both policies are the same network in every pass."""
    follow = [
        "--set",
        "stages.nft.objective.old_decay=0",
        "--set",
        "stages.nft.experience.updates=1",
        "--set",
        "stages.nft.steps=2",
    ]
    assert (
        run(
            ["rl", "--recipe", "astrolabe_no_kl_shapes", *SMALL, *follow, *tiny, "--out", str(tmp_path / "run")],
            monkeypatch,
        )
        == 0
    )
    first, second = rows(tmp_path / "run")
    assert "warning" not in first
    assert second["student/old_difference"] < 1e-6  # rounding: GELU is part of the linear layer without gradients
    assert "contrast of NFT vanishes" in second["warning"]
    assert "warning: nft step 1: " in capsys.readouterr().err


def test_long_tuning_runs_and_resumes(tiny, tmp_path, monkeypatch):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    arguments = ["long-tune", "--recipe", "astrolabe_long_shapes", *SMALL, *SHORT, *tiny]
    assert run([*arguments, "--out", str(whole)], monkeypatch) == 0
    run_and_interrupt([*arguments, "--out", str(cut)], nft, monkeypatch, step=2)
    assert run([*arguments, "--out", str(cut), "--resume"], monkeypatch) == 0
    assert same_bits(whole / "final" / "student.safetensors", cut / "final" / "student.safetensors")
    assert rows(whole) == rows(cut)
    assert all(row["window/start"] in (0, 3, 6, 9) for row in rows(whole))


def test_the_memory_of_long_tuning_is_flat_in_the_videos_length(tiny, tmp_path, monkeypatch):
    peaks = []
    for frames in (18, 36):
        sets = [
            "--set",
            f"stages.nft.experience.frames={frames}",
            "--set",
            "stages.nft.experience.window=last",
            "--set",
            "stages.nft.steps=1",
        ]
        assert (
            run(
                [
                    "long-tune",
                    "--recipe",
                    "astrolabe_long_shapes",
                    *SMALL,
                    *sets,
                    *tiny,
                    "--out",
                    str(tmp_path / str(frames)),
                ],
                monkeypatch,
            )
            == 0
        )
        peaks.append(rows(tmp_path / str(frames))[0]["memory/saved_bytes"])
    assert peaks[0] == peaks[1]


@pytest.mark.parametrize(("recipe", "sets", "key"), [
    ("astrolabe_causal_shapes", ["stages.nft.experience.group=1"], "stages.nft.experience.group"),
    ("astrolabe_all_shapes", ['stages.nft.experience.primary="mqq"'], "stages.nft.experience.primary"),
    ("astrolabe_causal_shapes", ["video.block=1"], "video.block"),
    ("astrolabe_clip_detach_shapes", ["stages.nft.experience.clip=33"], "stages.nft.experience.clip"),
    ("astrolabe_clip_detach_shapes", ["stages.nft.experience.clip=4"], "stages.nft.experience.clip"),
    ("astrolabe_causal_shapes", ["stages.nft.experience.clip=12"], "stages.nft.experience.clip"),
    ("astrolabe_causal_shapes", ["stages.nft.objective.adaptive=true"], "stages.nft.objective.adaptive"),
    ("astrolabe_causal_shapes", ['base.student="shapes/teacher"'], "base.student"),
    ("astrolabe_all_shapes", ["stages.nft.experience.rewards={vq=1.0}"], "no auxiliary reward beside 'vq'"),
])  # fmt: skip
def test_what_cannot_run_is_refused_before_training(recipe, sets, key, tiny, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    assert (
        run(["rl", "--recipe", recipe, *tiny, *(f for s in sets for f in ("--set", s)), "--out", str(out)], monkeypatch)
        == 2
    )
    assert f"{key}" in message(capsys)
    assert not out.exists()


@pytest.mark.parametrize(("primary", "says"), [
    (', primary = "vq"', "no auxiliary reward beside 'vq'"), ("", "stages.nft.experience.primary: missing"),
])  # fmt: skip
def test_a_selective_penalty_needs_a_primary_and_a_reward_to_judge_it(primary, says, tmp_path, monkeypatch, capsys):
    (tmp_path / "lone.toml").write_text(bare_rl_recipe(', kl = "selective"', "rewards = { vq = 1.0 }" + primary))
    assert run(["rl", "--recipe", str(tmp_path / "lone.toml"), "--out", str(tmp_path / "run")], monkeypatch) == 2
    assert says in message(capsys)
    assert not (tmp_path / "run").exists()


def test_long_tuning_of_whole_videos_is_refused(tiny, tmp_path, monkeypatch, capsys):
    sets = ["--set", "stages.nft.experience.clip=0"]
    assert (
        run(
            ["long-tune", "--recipe", "astrolabe_long_shapes", *sets, *tiny, "--out", str(tmp_path / "run")],
            monkeypatch,
        )
        == 2
    )
    assert "stages.nft.experience.clip: found 0" in message(capsys)


def test_a_reward_that_never_varied_stops_the_run_resumable(tiny, tmp_path, monkeypatch, capsys):
    from astro_cli.rewards import shapes

    out, original = tmp_path / "run", shapes.MotionQuality.score

    def constant(self, frames, prompts):
        return original(self, frames, prompts) * 0 + 0.5

    monkeypatch.setattr(shapes.MotionQuality, "score", constant)
    assert run([*RL, *tiny, "--out", str(out)], monkeypatch) == 1
    assert "reward: mq: the same score, 0.5, for all 8 clips" in message(capsys)
    monkeypatch.setattr(shapes.MotionQuality, "score", original)
    assert run([*RL, *tiny, "--out", str(out), "--resume"], monkeypatch) == 0


def test_adapters_of_another_rank_are_refused_on_resume(tiny, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    run_and_interrupt([*RL, *tiny, "--out", str(out)], nft, monkeypatch, step=3)
    capsys.readouterr()
    assert run([*RL, *tiny, "--set", "lora.rank=8", "--out", str(out), "--resume"], monkeypatch) == 2
    assert "other settings" in message(capsys)
    path = sorted((out / "checkpoints").glob("0*"))[-1] / "network-student.safetensors"
    state = load_file(path)
    key = next(key for key in state if "lora_A" in key)
    save_file(state | {key: state[key][:2].clone()}, path)
    assert run([*RL, *tiny, "--out", str(out), "--resume"], monkeypatch) == 0
    assert "older checkpoint" in capsys.readouterr().err  # one whose checksum is wrong is passed over


def test_a_collapse_is_said_and_stops_when_told_to(tiny, tmp_path, monkeypatch, capsys):
    from astro_cli.rewards import shapes

    original, calls = shapes.VisualQuality.score, []

    def falling(self, frames, prompts):
        calls.append(1)
        return original(self, frames, prompts) - len(calls)

    monkeypatch.setattr(shapes.VisualQuality, "score", falling)
    watched = [
        *RL,
        *tiny,
        "--set",
        "stages.nft.experience.collapse.falling=2",
        "--set",
        "stages.nft.experience.samples_every=2",
    ]
    assert run([*watched, "--out", str(tmp_path / "on")], monkeypatch) == 0
    assert ["warning" in row for row in rows(tmp_path / "on")] == [False, False, True, True]
    assert sorted(path.name for path in (tmp_path / "on" / "samples").iterdir()) == [
        f"{step:06d}{name}" for step in (0, 2) for name in ("-best.gif", "-worst.gif", ".json")
    ]
    assert "fell 2 epochs in a row" in capsys.readouterr().err
    out = tmp_path / "off"
    assert run([*watched, "--set", "stages.nft.experience.collapse.stop=true", "--out", str(out)], monkeypatch) == 1
    assert "collapsed: the mean reward fell 2 epochs in a row" in message(capsys)
    assert len(rows(out)) == 3
    assert list((out / "checkpoints").glob("0*"))


@pytest.mark.slow
def test_an_ablation_runs_its_rows_names_what_failed_and_goes_on(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    small = [*SMALL, "--set", "stages.nft.steps=1", *tiny]
    base = [
        "ablate",
        "astrolabe-beta",
        *small,
        "--prompts",
        "2",
        "--results",
        str(tmp_path / "results"),
        "--runs",
        str(tmp_path / "runs"),
    ]
    broken = tmp_path / "runs" / "astrolabe_beta_low_shapes-seed0"
    broken.mkdir(parents=True)
    (broken / "notes.txt").write_text("mine")
    assert run(base, monkeypatch) == 1
    err = capsys.readouterr().err
    assert "1 of 2 done" in err
    assert "failed: astrolabe_beta_low_shapes seed 0: exit code 2" in err
    (broken / "notes.txt").unlink()
    first = (tmp_path / "runs" / "astrolabe_all_shapes-seed0" / "metrics.jsonl").stat().st_mtime_ns
    assert run(base, monkeypatch) == 0
    assert (tmp_path / "runs" / "astrolabe_all_shapes-seed0" / "metrics.jsonl").stat().st_mtime_ns == first
    lines = (tmp_path / "results" / "records" / "shapes.jsonl").read_text().splitlines()
    assert {json.loads(line)["arm"] for line in lines} == {"astrolabe_all_shapes", "astrolabe_beta_low_shapes"}
    own = [
        (record["arm"], record["metric"])
        for record in map(json.loads, lines)
        if record["prompt_set_hash"] == "training"
    ]
    assert (
        len(own) == len(set(own)) == 2 * 8
    )  # of both rows, once: three measures, the curves of four gains and of the x0 norm
    assert run([*base, "--dry-run"], monkeypatch) == 0
    assert capsys.readouterr().out.count("finished") == 2
    (tmp_path / "runs" / "astrolabe_all_shapes-seed0" / "metrics.jsonl").write_text('{"stage": "nft", "st')
    (tmp_path / "runs" / "astrolabe_beta_low_shapes-seed0" / "resolved.json").write_text("x")
    assert run([*base, "--dry-run"], monkeypatch) == 0
    out = capsys.readouterr().out
    assert [out.count(word) for word in ("finished", "damaged")] == [1, 1]
    assert run(base, monkeypatch) == 1
    err = capsys.readouterr().err
    assert "0 of 2 done" in err
    assert "failed: astrolabe_all_shapes seed 0: error: " in err
    assert "metrics.jsonl: found 0 whole rows, the run has 1 epochs" in err
    assert "failed: astrolabe_beta_low_shapes seed 0: exit code 2" in err
    assert "resolved.json: damaged" in err


def test_a_collapsed_run_goes_on_where_it_stopped_when_told_to(tiny, tmp_path, monkeypatch, capsys):
    from astro_cli.training.collapse import CollapseWatch

    monkeypatch.setattr(CollapseWatch, "see", lambda self, reward, motion: "clips stand still")
    out, whole = tmp_path / "stopped", tmp_path / "whole"
    stop = ["--set", "stages.nft.experience.collapse.stop=true"]
    assert run([*RL, *tiny, *stop, "--out", str(out)], monkeypatch) == 1
    assert "--resume --set stages.nft.experience.collapse.stop=false" in message(capsys)
    assert (
        run(
            [*RL, *tiny, "--set", "stages.nft.experience.collapse.stop=false", "--resume", "--out", str(out)],
            monkeypatch,
        )
        == 0
    )
    assert run([*RL, *tiny, "--out", str(whole)], monkeypatch) == 0
    assert same_bits(out / "final" / "student.safetensors", whole / "final" / "student.safetensors")

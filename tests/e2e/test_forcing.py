"""Reward Forcing, long tuning and Delta Forcing as commands: killed in the middle of a video and resumed to the same
bits, in parts as at once, on a tiny random Wan, and with memory that does not grow.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from test_training import kill_after_a_step, same_bits, without_times
from wan_folder import write_wan_folder

from astro_cli.config.errors import RunError
from astro_cli.rewards.shapes import MotionQuality
from astro_cli.rollout.long_sequence import LongSequence
from tests.command_line import run

REWARDED = [
    "distill", "--recipe", "reward_forcing_shapes", "--set", "stages.dmd.steps=4", "--set", "stages.dmd.batch=4",
    "--set", "stages.dmd.accumulate=2", "--set", "stages.dmd.optim.student.every=2", "--set", "runtime.save_every=1",
]  # fmt: skip
TUNED = [
    "long-tune", "--recipe", "delta_forcing_shapes", "--set", "stages.long_tuning.steps=6",
    "--set", "stages.long_tuning.batch=2", "--set", "stages.long_tuning.optim.student.every=2",
    "--set", "stages.long_tuning.objective.warmup=2", "--set", "stages.long_tuning.objective.frames=21",
    "--set", "runtime.save_every=1", "--set", "lora.rank=2", "--set", "roles.critic.lora.rank=2",
]  # fmt: skip


def metrics(out: Path) -> list[dict]:
    return without_times(out / "metrics.jsonl")


def test_rewarded_distillation_logs_rewards_and_weights(tiny, tmp_path, monkeypatch):
    assert run([*REWARDED, *tiny, "--out", str(tmp_path / "run")], monkeypatch) == 0
    rows = metrics(tmp_path / "run")
    student = [row for row in rows if "student/loss" in row]
    assert len(student) == 2
    for row in student:
        exits = [key for key in row if key.startswith("student/reward_exit_")]
        assert [row[key] for key in exits] == [row["student/reward"]]
        assert 1 <= row["weight/effective_samples"] <= 4
        assert row["weight/min"] <= row["weight/median"] <= row["weight/max"]
    assert not any("weight/min" in row for row in rows if "student/loss" not in row)


def test_a_reward_that_is_not_finite_ends_the_run(tiny, tmp_path, monkeypatch, capsys):
    score = MotionQuality.score
    monkeypatch.setattr(MotionQuality, "score", lambda self, frames, prompts: score(self, frames, prompts) / 0.0)
    assert run([*REWARDED, *tiny, "--out", str(tmp_path / "run")], monkeypatch) == RunError.exit_code
    error = capsys.readouterr().err
    assert "error: reward: mq: 2 non-finite scores for 2 clips" in error
    assert "Traceback" not in error


def cut_short(whole: Path, out: Path, kept: str) -> None:
    """The run as a kill left it whose newest checkpoint is `kept`."""
    shutil.copytree(whole, out)
    shutil.rmtree(out / "final")
    for path in (out / "checkpoints").iterdir():
        if path.name > kept:
            shutil.rmtree(path)


def test_a_run_killed_in_the_middle_of_a_video_resumes_to_the_same_bits(tiny, tmp_path, monkeypatch):
    """Videos of three chunks, two roles: every checkpoint but the last stands within one."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    monkeypatch.setattr("astro_cli.training.checkpoints.KEEP", 99)
    arguments = [*TUNED, *tiny, "--out"]
    assert run([*arguments, str(whole)], monkeypatch) == 0
    rows = metrics(whole)
    assert [row["sequence/critic_start"] for row in rows] == [9.0, 15.0, 9.0, 15.0, 9.0, 15.0]
    assert [row["sequence/student_start"] for row in rows[::2]] == [0.0, 0.0, 0.0]
    kept = sorted(path.name for path in (whole / "checkpoints").iterdir())
    for name in (kept[0], kept[2]):
        cut_short(whole, killed, name)
        assert run([*arguments, str(killed), "--resume"], monkeypatch) == 0
        for role in ("student", "critic"):
            file = f"checkpoints/{kept[-1]}/network-{role}.safetensors"
            assert same_bits(whole / file, killed / file)
        assert metrics(killed) == rows
        shutil.rmtree(killed)


@pytest.mark.slow
def test_kill_9_in_the_middle_of_a_video_resumes_to_the_same_bits(tiny, tmp_path, monkeypatch):
    """The process gets SIGKILL once its second checkpoint is there: a video of three chunks is not at its end."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run([*TUNED, *tiny, "--out", str(whole)], monkeypatch) == 0
    kill_after_a_step([*TUNED, *tiny, "--out", str(killed)], killed)
    assert not (killed / "final").exists()
    newest = max(path for path in (killed / "checkpoints").iterdir() if path.name.isdecimal())
    assert int(newest.name) < 6
    assert run([*TUNED, *tiny, "--out", str(killed), "--resume"], monkeypatch) == 0
    last = f"checkpoints/{max(path.name for path in (whole / 'checkpoints').iterdir())}"
    for role in ("student", "critic"):
        assert same_bits(whole / last / f"network-{role}.safetensors", killed / last / f"network-{role}.safetensors")
    assert metrics(killed) == metrics(whole)


def test_the_gate_is_set_in_the_warm_up_and_told(tiny, tmp_path, monkeypatch):
    """Videos of five chunks, a chunk of the student then one of the critic: chunks 0, 2 and 4 are the student's."""
    more = ["--set=stages.long_tuning.objective.frames=33", "--set=stages.long_tuning.optim.student.every=1"]
    assert run([*TUNED, *tiny, *more, "--out", str(tmp_path / "run")], monkeypatch) == 0
    rows = metrics(tmp_path / "run")
    assert [row["student/chunk_start"] for row in rows] == [0.0, 15.0, 27.0, 9.0, 21.0, 0.0]
    assert ["student/rho" in row for row in rows] == [False, True, True, True, True, False]
    assert all(row["student/gate"] == 1.0 for row in rows[1:2])
    told = [(row["gate/mu"], row["gate/s"]) for row in rows if "gate/mu" in row]
    assert told
    assert len(set(told)) == 1


def test_parts_of_a_batch_are_videos_of_their_own(tiny, tmp_path, monkeypatch):
    """Two micro-batches give what one batch gives."""
    outs = []
    for parts in (1, 2):
        outs.append(tmp_path / str(parts))
        more = ["--set", f"stages.long_tuning.accumulate={parts}", "--set", "stages.long_tuning.steps=3"]
        assert run([*TUNED, *tiny, *more, "--out", str(outs[-1])], monkeypatch) == 0
    one, two = (metrics(out) for out in outs)
    for a, b in zip(one, two, strict=True):
        for key in ("student/loss", "critic/loss", "sequence/critic_start"):
            if key in a:
                assert b[key] == pytest.approx(a[key], rel=1e-4)


def test_memory_of_a_step_does_not_grow_with_the_video(tiny, tmp_path, monkeypatch):
    """Chunk 3 and chunk 30: what the backward pass keeps, and what the sequence keeps."""
    held = {}
    made = LongSequence.next_chunk

    def counted(self, *arguments, **options):
        chunk = made(self, *arguments, **options)
        held[chunk.start] = sum(value.numel() * value.element_size() for value in self.state().values())
        return chunk

    monkeypatch.setattr(LongSequence, "next_chunk", counted)
    sets = ("steps=21", "batch=1", "optim.student.every=2", "objective.frames=261")
    arguments = [
        "long-tune",
        "--recipe",
        "long_tuning_shapes",
        *tiny,
        "--set=lora.rank=2",
        "--out",
        str(tmp_path / "run"),
    ]
    assert run([*arguments, *(f"--set=stages.long_tuning.{item}" for item in sets)], monkeypatch) == 0
    rows = [row for row in metrics(tmp_path / "run") if "sequence/student_start" in row]
    saved = {row["sequence/student_start"]: row["memory/saved_bytes"] for row in rows}
    places = sorted(start for start in saved if start)
    assert places[-1] > 8 * places[0]
    assert saved[places[-1]] <= 1.05 * saved[places[0]]
    assert held[max(held)] <= 1.05 * held[sorted(held)[1]]


WAN = (
    "model.dim=24", "model.ffn_dim=32", "model.num_heads=2", "model.num_layers=2", "model.freq_dim=8",
    "model.text_dim=16", "video.frames=6", "video.height=4", "video.width=6", "runtime.precision=no",
    "runtime.gradient_checkpointing=false", "runtime.device=cpu",
    "roles.teacher.model={dim=24, ffn_dim=32, num_heads=2, num_layers=2, freq_dim=8}",
)  # fmt: skip
TUNING = (
    "stages.long_tuning.steps=2", "stages.long_tuning.batch=1", "stages.long_tuning.accumulate=1",
    "stages.long_tuning.optim.student.every=1", "stages.long_tuning.objective.frames=12", "lora={rank=2, alpha=2}",
    "roles.critic.lora={rank=2, alpha=2}", "cache.window=6",
)  # fmt: skip
DISTILLING = (
    "stages.dmd.steps=1", "stages.dmd.batch=2", "stages.dmd.accumulate=1", "cache.window=6",
    "stages.dmd.objective.reward=mq",
)  # fmt: skip
METHODS = {
    "dmd": ("reward_forcing_wo_redmd", "dmd", DISTILLING[:-1]),
    "re_dmd": ("reward_forcing", "dmd", DISTILLING),
    "long_tuning": ("long_tuning", "long_tuning", TUNING),
    "delta": ("delta_forcing", "long_tuning", (*TUNING, "stages.long_tuning.objective.phi=teacher")),
}


@pytest.fixture
def wan(tmp_path, monkeypatch) -> list[str]:
    """Arguments that start any Wan recipe from one tiny random folder."""
    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(tmp_path / "checkpoints"))
    folder = write_wan_folder(tmp_path / "checkpoints" / "Wan2.1-T2V-1.3B-Diffusers")
    sets = [*WAN, *(f"base.{role}={folder / 'transformer'}" for role in ("student", "teacher", "critic"))]
    return [argument for item in sets for argument in ("--set", item)]


@pytest.mark.parametrize("method", METHODS)
def test_a_tiny_wan_trains(method, wan, tmp_path, monkeypatch):
    recipe, stage, sets = METHODS[method]
    prompts = tmp_path / ("pairs.jsonl" if stage == "long_tuning" else "prompts.txt")
    lines = ["a large red circle moves right", "a small blue square moves left"]
    pairs = [json.dumps({"prompts": [line, "a circle moves left"]}) for line in lines]
    prompts.write_text("\n".join(pairs if stage == "long_tuning" else lines) + "\n")
    seen = []

    def score(frames: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        seen.append(frames.shape)
        return frames.flatten(1).mean(1)

    monkeypatch.setattr("astro_cli.training.needs.scorer_places.needs", lambda rewards: [])
    monkeypatch.setattr("astro_cli.training.inputs._rewards", lambda rewards: {})
    monkeypatch.setattr("astro_cli.training.build.scorer_of", lambda *_: lambda key: score)
    command = "long-tune" if stage == "long_tuning" else "distill"
    arguments = [command, "--recipe", recipe, *wan, "--set", f"stages.{stage}.data.prompts={prompts}"]
    arguments += [argument for item in sets for argument in ("--set", item)]
    assert run([*arguments, "--out", str(tmp_path / "run")], monkeypatch) == 0
    assert (tmp_path / "run" / "final" / "student.safetensors").is_file()
    assert seen == ([(2, 21, 3, 32, 48)] if method == "re_dmd" else [])
    rows = metrics(tmp_path / "run")
    assert all(torch.tensor(row["critic/loss"]).isfinite() for row in rows)


def test_a_small_teacher_where_a_large_one_is_declared_is_refused(wan, tmp_path, monkeypatch, capsys):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a large red circle moves right\n")
    wide = "roles.teacher.model={dim=48, ffn_dim=32, num_heads=2, num_layers=2, freq_dim=8}"
    arguments = ["distill", "--recipe", "reward_forcing_wo_redmd", *wan, "--set", wide]
    arguments += ["--set", f"stages.dmd.data.prompts={prompts}", "--set", "cache.window=6"]
    assert run([*arguments, "--out", str(tmp_path / "run")], monkeypatch) == 2
    error = capsys.readouterr().err
    assert "transformer" in error
    assert "dim" in error
    assert "hint" in error
    assert not (tmp_path / "run").exists()


def test_features_without_weights_are_named_with_their_place(wan, tmp_path, monkeypatch, capsys):
    prompts = tmp_path / "pairs.jsonl"
    prompts.write_text(json.dumps({"prompts": ["a red circle", "a blue circle"]}) + "\n")
    arguments = ["long-tune", "--recipe", "delta_forcing", *wan, "--set", f"stages.long_tuning.data.prompts={prompts}"]
    arguments += [argument for item in TUNING for argument in ("--set", item)]
    assert run([*arguments, "--out", str(tmp_path / "run")], monkeypatch) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "[ ] features: dinov2" in error
    assert "put dinov2_vitb14_pretrain.pth of facebookresearch/dinov2 at" in error
    assert not (tmp_path / "run").exists()


def test_a_file_without_a_second_prompt_is_refused_before_any_weights(wan, tmp_path, monkeypatch, capsys):
    prompts = tmp_path / "pairs.jsonl"
    prompts.write_text(json.dumps({"prompt": "a red circle"}) + "\n")
    arguments = ["long-tune", "--recipe", "long_tuning", *wan, "--set", f"stages.long_tuning.data.prompts={prompts}"]
    arguments += [argument for item in TUNING for argument in ("--set", item)]
    assert run([*arguments, "--out", str(tmp_path / "run")], monkeypatch) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "line 1: found 1 of a video, expected two" in error
    assert not (tmp_path / "run").exists()


def test_a_critic_adapter_of_another_rank_is_refused_on_resume(tiny, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    assert run([*TUNED, *tiny, "--set", "stages.long_tuning.steps=2", "--out", str(out)], monkeypatch) == 0
    shutil.rmtree(out / "final")
    more = ["--set", "stages.long_tuning.steps=2", "--set", "roles.critic.lora.rank=4"]
    assert run([*TUNED, *tiny, *more, "--out", str(out), "--resume"], monkeypatch) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "with other settings" in error
    assert "hint: choose another --out" in error

"""Two processes compute what one does: same global batch, same losses, same weights to rounding."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from safetensors.torch import load_file
from test_training import without_times

from astro_cli.commands.training_run import train_on_cores
from astro_cli.core import threads
from astro_cli.recipe import load_recipe
from tests.command_line import run

RL = [
    "rl",
    "--recipe",
    "astrolabe_self_forcing_shapes",
    "--set",
    "stages.nft.steps=2",
    "--set",
    "stages.nft.batch=8",
    "--set",
    "lora.rank=4",
    "--set",
    "stages.nft.experience.prompts=2",
    "--set",
    "stages.nft.experience.group=4",
    "--set",
    "stages.nft.experience.updates=1",
    "--set",
    "stages.nft.experience.samples_every=1",
]


# Candidate clips on shared histories, windows drawn for all processes, and the penalty on the samples at risk. Adam's
# eps is above the rounding of gradients: a LoRA's first factor has gradients near zero while the second begins at zero,
# and Adam divides them by their own size.
LONG = [
    "long-tune",
    "--recipe",
    "astrolabe_long_shapes",
    *RL[3:],
    "--set",
    "stages.nft.experience.frames=18",
    "--set",
    'stages.nft.experience.primary="vq"',
    "--set",
    'stages.nft.objective.kl="selective"',
    "--set",
    "stages.nft.objective.kl_weight=0.1",
    "--set",
    "stages.nft.optim.student.eps=1e-5",
]


# Videos that go on from step to step: every process has its own, and their state is gathered into checkpoints.
SWITCHING = ["long-tune", "--recipe", "delta_forcing_shapes", "--set", "stages.long_tuning.steps=4",
             "--set", "stages.long_tuning.batch=2", "--set", "stages.long_tuning.optim.student.every=1",
             "--set", "stages.long_tuning.objective.warmup=2", "--set", "runtime.save_every=1",
             "--set", "lora.rank=2", "--set", "roles.critic.lora.rank=2"]  # fmt: skip

# Pairs of clips, of rollouts and of mixed forms; every process rolls out its own rows' groups.
PREFER = ["prefer", "--recipe", "dpo_mixed_shapes",
          "--set", "sampler.steps=3", "--set", "video.frames=6", "--set", "lora.rank=2", *(part for item in (
    "steps=3", "batch=8", "data.pool=8", "objective.validation=1", "objective.validation_every=1",
    "optim.student.warmup=0", "pairs.kinds={reverse=1.0, freeze=1.0, group=1.0}",
    "pairs.forms=[{frames=6, height=8, width=8}, {frames=3, height=8, width=8}]",
) for part in ("--set", f"stages.dpo.{item}"))]  # fmt: skip

LOGGED = {
    "reward/zero_variance_groups", "advantage/std", "advantage/histogram", "student/loss", "student/grad_norm",
    "student/x0_norm",
}  # fmt: skip
OWN = {"memory/saved_bytes"}  # a process's own memory
# What makes one process compute in the parts that two processes have.
IN_PARTS = ["--set", "stages.nft.accumulate=2", "--set", "stages.nft.experience.parallel=4"]


def iter_frames(path: Path) -> Iterator[np.ndarray]:
    with Image.open(path) as picture:
        for frame in ImageSequence.Iterator(picture):
            yield np.asarray(frame.convert("RGB"))


def launch(count: int, arguments: list[str], out: Path, variables: Mapping[str, str] | None = None) -> Path:
    """Train with so many processes and environment variables; returns the folder."""
    distributed = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(count), "-m", "astro_cli"]
    command = [sys.executable, "-m", *distributed, *arguments, "--out", str(out)]
    environment = {**os.environ, **(variables or {})}
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return out


@pytest.mark.slow  # each starts four processes
@pytest.mark.parametrize("arguments", [RL, LONG], ids=["rl", "long-tune"])
def test_two_processes_equal_one(arguments, tiny, tmp_path):
    one, two, parts = (
        launch(count, [*arguments, *tiny, *more], tmp_path / name)
        for name, count, more in (("one", 1, []), ("two", 2, []), ("parts", 1, IN_PARTS))
    )
    # One process that computes in the same parts: every bit.
    assert weights_of(two).keys() == weights_of(parts).keys()
    assert all(torch.equal(value, weights_of(parts)[key]) for key, value in weights_of(two).items())
    same_logs(two, parts, 1e-6)  # a mean of means is rounded otherwise
    # One process that computes all at once: to rounding.
    outs = [one, two]
    same_logs(one, two, 1e-5)
    for step in range(2):
        best_and_worst, same = (json.loads((out / "samples" / f"{step:06d}.json").read_text()) for out in outs)
        for name in ("best", "worst"):
            assert best_and_worst[name]["prompt"] == same[name]["prompt"]
            assert best_and_worst[name]["reward"] == pytest.approx(same[name]["reward"], abs=1e-5)
            left, right = (
                np.array(list(iter_frames(out / "samples" / f"{step:06d}-{name}.gif")), dtype=float) for out in outs
            )
            assert left.shape == right.shape
            assert (
                np.abs(left - right).mean() < 2.0
            )  # of 255: rounding changes a colour of the GIF's palette here and there
    for key, value in weights_of(one).items():
        torch.testing.assert_close(value, weights_of(two)[key], atol=1e-5, rtol=0)


# Credit that needs a prior of the base: every process measures its share of the prompts.
PRIOR = ["rl", "--recipe", "bpgo_streaming_shapes", *(part for item in (
    "grpo.steps=2", "grpo.batch=8", "grpo.data.captions=3", "grpo.experience.prompts=2", "grpo.experience.group=4",
    "grpo.experience.updates=2", "grpo.experience.samples_every=0", "grpo.experience.advantage.base_samples=2",
    "grpo.objective.clip_epoch=0",
) for part in ("--set", f"stages.{item}")), "--set", "lora.rank=4"]  # fmt: skip


@pytest.mark.slow  # starts three processes
def test_two_processes_measure_a_base_and_learn_from_it_as_one(tiny, tmp_path, monkeypatch):
    kept = {}
    for count in (1, 2):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"cache{count}"))
        launch(count, [*PRIOR, *tiny], tmp_path / str(count))
        [file] = (tmp_path / f"cache{count}" / "astro" / "base_scores").iterdir()
        kept[count] = json.loads(file.read_text())
    assert kept[1]["prompts"] == kept[2]["prompts"]
    for key, scores in kept[1]["scores"].items():
        np.testing.assert_allclose(scores, kept[2]["scores"][key], atol=1e-5)
    for key, value in weights_of(tmp_path / "1").items():
        torch.testing.assert_close(value, weights_of(tmp_path / "2")[key], atol=1e-4, rtol=0)


@pytest.mark.slow  # starts three processes
def test_two_processes_prefer_as_one(tiny, tiny_teacher, tmp_path):
    arguments = [*PREFER, *tiny, "--set", f"base.student={tiny_teacher}"]
    one, two = (launch(count, arguments, tmp_path / str(count)) for count in (1, 2))
    for a, b in zip(*(without_times(out / "metrics.jsonl") for out in (one, two)), strict=True):
        assert a.keys() == b.keys()
        for key in a.keys() - OWN:
            assert a[key] == (b[key] if isinstance(a[key], str) else pytest.approx(b[key], rel=1e-4, abs=1e-5)), key
    for key, value in weights_of(one).items():
        torch.testing.assert_close(value, weights_of(two)[key], atol=1e-5, rtol=0)


def stage(name: str, *items: str) -> list[str]:
    """Options that set keys of a stage. Adam's eps is above the rounding of gradients, as in `LONG`."""
    return [part for item in items for part in ("--set", f"stages.{name}.{item}")]


GRPO = ["rl", "--recipe", "grpo_streaming_shapes", "--set", "lora.rank=4", *stage(
    "grpo", "steps=2", "batch=8", "experience.prompts=2", "experience.group=4", "experience.updates=2",
    "experience.samples_every=0", "objective.clip_epoch=0", "optim.student.eps=1e-5",
)]  # fmt: skip
DMD = ["distill", "--recipe", "self_forcing_shapes", "--set", 'order=["dmd"]', *stage(
    "dmd", "steps=2", "batch=4", "ema.decay=0.1", "optim.student.every=1", "optim.student.eps=1e-5",
    "optim.critic.eps=1e-5",
)]  # fmt: skip
SFT = ["sft", "--recipe", "sft_geometry_shapes", "--set", "video.frames=3", *stage(
    "sft", "steps=2", "batch=4", "data.pool=8", "ema.decay=0.1", "optim.student.warmup=0", "optim.student.eps=1e-5",
)]  # fmt: skip


@pytest.mark.slow  # each starts two processes
@pytest.mark.parametrize("arguments", [GRPO, DMD, SFT], ids=["grpo", "dmd", "sft"])
def test_two_processes_train_as_one(arguments, tiny, tiny_base, tiny_teacher, tmp_path, monkeypatch):
    base = tiny_teacher if arguments[0] == "sft" else tiny_base
    arguments = [*arguments, *tiny, "--set", f"base.student={base}"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert run([*arguments, "--out", str(one)], monkeypatch) == 0
    launch(2, arguments, two)
    for a, b in zip(*(without_times(out / "metrics.jsonl") for out in (one, two)), strict=True):
        assert a.keys() == b.keys()
        for key in a.keys() - OWN:
            assert a[key] == (b[key] if isinstance(a[key], str) else pytest.approx(b[key], rel=1e-5, abs=1e-5)), key
    moved = load_file(base)
    assert any((value - moved[key]).abs().max() > 1e-4 for key, value in weights_of(one).items())
    for key, value in weights_of(one).items():
        torch.testing.assert_close(value, weights_of(two)[key], atol=1e-5, rtol=0)


def same_logs(one: Path, two: Path, tolerance: float) -> None:
    for a, b in zip(*(without_times(out / "metrics.jsonl") for out in (one, two)), strict=True):
        assert a.keys() == b.keys()
        assert a.keys() >= LOGGED
        for key in a.keys() - OWN:
            expected = b[key] if isinstance(a[key], str) else pytest.approx(b[key], rel=tolerance, abs=tolerance)
            assert a[key] == expected, key


def weights_of(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "final" / "student.safetensors")


@pytest.mark.slow  # starts five processes
def test_two_processes_long_tune_as_one_and_resume_in_the_middle_of_their_videos(tiny, tmp_path):
    one = launch(1, [*SWITCHING, *tiny], tmp_path / "one")
    two = launch(2, [*SWITCHING, *tiny], tmp_path / "two")
    rows, found = (without_times(out / "metrics.jsonl") for out in (one, two))
    for a, b in zip(rows, found, strict=True):
        for key in a.keys() - OWN - {"gate/s"}:  # of a few chunks, whose quantiles are close
            assert a[key] == (b[key] if isinstance(a[key], str) else pytest.approx(b[key], rel=1e-3, abs=1e-4)), key
    shutil.rmtree(two / "final")
    shutil.rmtree(sorted((two / "checkpoints").iterdir())[-1])
    launch(2, [*SWITCHING, *tiny, "--resume"], two)
    assert without_times(two / "metrics.jsonl") == found


def test_a_study_trains_on_all_cores_and_one_of_its_processes_speaks(tmp_path, monkeypatch, capfd):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "cores", lambda: 2)
    monkeypatch.setattr(threads, "_requested", None)
    sets, out = [*RL[4::2], "seed=0"], tmp_path / "run"
    train_on_cores(load_recipe(RL[2], sets), RL[2], sets, out, resume=False)
    heard = capfd.readouterr().err
    assert heard.count("nft 2/2") == 1
    assert heard.count(f"done: {out}") == 1
    assert "OMP_NUM_THREADS" not in heard  # accelerate would take a number of its own

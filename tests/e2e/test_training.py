"""Every training command for a few steps, killed and resumed to the same bits; folders, metrics and final weights."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from astro_cli.models.lora_files import read_lora
from astro_cli.models.lora_merge import merge_loras
from tests.command_line import run, set_options

RL = [
    *("rl", "--recipe", "astrolabe_self_forcing_shapes"),
    *set_options("stages.nft.steps=4", "stages.nft.batch=8", "stages.nft.experience.prompts=2"),
    *set_options("stages.nft.experience.group=4", "stages.nft.experience.updates=2"),
    *set_options("runtime.save_every=1", "lora.rank=4"),
]
DMD = [
    *("distill", "--recipe", "causal_forcing_shapes"),
    *set_options(
        'order=["ar_diffusion", "consistency", "dmd"]',
        'stages.ar_diffusion.objective={kind="ar_diffusion"}',  # a tiny network has too few channels to align
        'stages.consistency.objective={kind="consistency", grid=24, guidance=4.0, decay=0.95}',
        "stages.ar_diffusion.steps=2",
        "stages.consistency.steps=2",
        "stages.dmd.steps=3",
    ),
    *set_options("stages.dmd.optim.student.every=2", "runtime.save_every=1"),
    *set_options(*(f"stages.{stage}.batch=4" for stage in ("ar_diffusion", "consistency", "dmd"))),
    *set_options(*(f"stages.{stage}.data.pool=16" for stage in ("ar_diffusion", "consistency"))),
]


def same_bits(a: Path, b: Path) -> bool:
    left, right = load_file(a), load_file(b)
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def without_times(path: Path) -> list[dict]:
    """Rows of metrics.jsonl without what the clock decides."""
    timed = ("seconds", "tokens_per_second", "share/")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in row.items() if not key.startswith(timed)} for row in rows]


def kill_after_a_step(arguments: list[str], out: Path) -> None:
    """Run a command in a process of its own, and kill it (SIGKILL) once the checkpoint of its second step is there."""
    process = subprocess.Popen([sys.executable, "-m", "astro_cli", *arguments], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list((out / "checkpoints").glob("0*2")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("arguments", [RL, DMD], ids=["rl", "distill"])
def test_a_killed_run_resumes_to_the_same_bits(arguments, tiny, tmp_path, monkeypatch):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run([*arguments, *tiny, "--out", str(whole)], monkeypatch) == 0
    kill_after_a_step([*arguments, *tiny, "--out", str(killed)], killed)
    assert run([*arguments, *tiny, "--out", str(killed), "--resume"], monkeypatch) == 0
    assert same_bits(whole / "final" / "student.safetensors", killed / "final" / "student.safetensors")
    assert without_times(whole / "metrics.jsonl") == without_times(killed / "metrics.jsonl")


def test_rl_leaves_a_complete_folder_and_moves_only_the_adapters(tiny, tiny_base, tmp_path, monkeypatch):
    out = tmp_path / "run"
    assert run([*RL, *tiny, "--out", str(out)], monkeypatch) == 0
    assert {path.name for path in out.iterdir()} >= {
        "recipe.toml",
        "resolved.json",
        "environment.json",
        "metrics.jsonl",
        "checkpoints",
        "final",
    }
    environment = json.loads((out / "environment.json").read_text())
    assert environment["seed"] == 0
    assert (
        environment["versions"]["torch"] == torch.__version__.split("+")[0]
        or environment["versions"]["torch"] == torch.__version__
    )
    row = without_times(out / "metrics.jsonl")[-1]
    assert {
        "reward/total",
        "reward/vq",
        "reward/mq",
        "reward/ta",
        "student/old_deviation",
        "student/x0_norm",
    } <= row.keys()
    timed = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    assert sum(value for key, value in timed.items() if key.startswith("share/")) <= 1.001
    base, tuned = load_file(tiny_base), load_file(out / "final" / "student.safetensors")
    changed = {key for key in base if not torch.equal(base[key], tuned[key])}
    assert changed
    assert all(".attn" in key or ".ffn." in key for key in changed)
    adapter = load_file(out / "final" / "lora" / "adapter_model.safetensors")
    assert len(adapter) == 2 * 10 * 2  # A and B of ten Linears in two blocks
    assert all(key.startswith("base_model.model.blocks.") for key in adapter)
    for_diffusers = load_file(out / "final" / "lora" / "pytorch_lora_weights.safetensors")
    assert for_diffusers.keys() == {key.replace("base_model.model.", "transformer.") for key in adapter}
    merged = merge_loras(base, [read_lora(out / "final" / "lora")])
    assert all(torch.allclose(merged[key], tuned[key], atol=1e-6) for key in base)


def test_pretraining_the_codec_sets_unit_variance(tmp_path, monkeypatch):
    out = tmp_path / "codec"
    arguments = [
        "pretrain",
        "--recipe",
        "codec_shapes",
        "--set",
        'order=["codec"]',
        "--set",
        "stages.codec.steps=3",
        "--set",
        "stages.codec.batch=4",
        "--out",
        str(out),
    ]
    assert run(arguments, monkeypatch) == 0
    state = load_file(out / "final" / "codec.safetensors")
    assert not torch.equal(state["std"], torch.ones_like(state["std"]))
    assert json.loads((out / "final" / "codec.json").read_text())["role"] == "codec"


def test_the_teacher_recipe_trains_frames_then_clips(tiny, tmp_path, monkeypatch):
    out = tmp_path / "teacher"
    small = [
        'order=["images", "clips"]',
        "stages.images.steps=2",
        "stages.clips.steps=2",
        "stages.images.batch=4",
        "stages.clips.batch=4",
        "stages.images.data.pool=16",
        "stages.clips.data.pool=16",
        "model.dim=48",
        "model.ffn_dim=32",
        "model.num_heads=2",
        "model.num_layers=2",
        "model.freq_dim=8",
    ]
    assert (
        run(
            ["pretrain", "--recipe", "teacher_shapes", "--out", str(out), *(f for s in small for f in ("--set", s))],
            monkeypatch,
        )
        == 0
    )
    assert [row["stage"] for row in without_times(out / "metrics.jsonl")] == ["images"] * 2 + ["clips"] * 2


def test_ode_distillation_runs(tiny, tmp_path, monkeypatch):
    small = [
        "stages.ode.steps=2",
        "stages.ode.batch=4",
        "stages.ode.objective.pairs=8",
        "stages.dmd.steps=1",
        "stages.dmd.batch=4",
        "stages.ode.objective.steps=4",
    ]
    arguments = [
        "distill",
        "--recipe",
        "self_forcing_ode_shapes",
        *tiny,
        "--out",
        str(tmp_path / "sf"),
        *(f for s in small for f in ("--set", s)),
    ]
    assert run(arguments, monkeypatch) == 0
    assert (tmp_path / "sf" / "final" / "student.json").is_file()

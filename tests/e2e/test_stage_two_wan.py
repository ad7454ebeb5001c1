"""`astro rl` on the bidirectional Wan 2.1 from tiny random folders in the real layouts: GRPO and credit rules, with the
evaluation's scorers as rewards.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import reward_folders
import torch
from test_bad_input import message
from test_training import run
from wan_folder import write_wan_folder

from astro_cli.models.dino import DINOV2, Dino
from eval.networks.viclip import VIDEOCLIP_XL
from tests.tiny_networks import put, viclip_state

SETS = (
    "model.dim=24", "model.ffn_dim=32", "model.num_heads=2", "model.num_layers=2", "model.freq_dim=8",
    "model.text_dim=16", "video.frames=3", "video.block=3", "video.height=4", "video.width=6", "lora.rank=2",
    "sampler.steps=3", "stages.grpo.steps=1", "stages.grpo.batch=4", "stages.grpo.accumulate=2",
    "stages.grpo.experience.prompts=2", "stages.grpo.experience.group=2", "runtime.precision=no",
    "runtime.gradient_checkpointing=false", "runtime.device=cpu",
)  # fmt: skip


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(tmp_path / "checkpoints"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = write_wan_folder(tmp_path / "checkpoints" / "Wan2.1-T2V-1.3B-Diffusers")
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a large red circle moves right\na cat sleeps\n")

    def of(recipe: str, *more: str) -> list[str]:
        sets = [*SETS, f"base.student={folder / 'transformer'}", f"stages.grpo.data.prompts={prompts}", *more]
        flags = [part for item in sets for part in ("--set", item)]
        return ["rl", "--recipe", recipe, *flags, "--out", str(tmp_path / "run")]

    return of


def row(folder: Path) -> dict:
    return json.loads((folder / "run" / "metrics.jsonl").read_text().splitlines()[0])


def test_vipo_trains_on_videoaligns_metrics_with_a_map_of_dinov2(arguments, tmp_path, monkeypatch):
    reward_folders.write_videoalign(tmp_path / "checkpoints")
    torch.manual_seed(0)
    put(Dino(64, 1, 14, 4, scaled=True).state_dict(), tmp_path / "checkpoints" / DINOV2)
    exact = ('stages.grpo.experience.scorers={videoalign={dtype="float32"}}', "stages.grpo.experience.same_noise=false")
    assert run(arguments("vipo", *exact), monkeypatch) == 0
    found = row(tmp_path)
    assert {"reward/videoalign.vq", "reward/videoalign.mq"} <= found.keys()
    assert found["reward/zero_variance_groups"] == 0  # every clip has a score of its own
    assert found["advantage/map_mean"] == pytest.approx(1.0, abs=1e-4)
    assert found["ratio/first_error"] < 1e-4
    assert math.isfinite(found["student/loss"])
    assert found["student/grad_norm"] > 0
    card = json.loads((tmp_path / "run" / "final" / "student.json").read_text())
    assert card["sampling"] == "ode"


def test_bpgo_trains_on_videoclip_xl_with_a_prior_of_the_base(arguments, tmp_path, monkeypatch):
    path = tmp_path / "checkpoints" / "eval" / "videoclip_xl" / "VideoCLIP-XL.bin"
    put(viclip_state(VIDEOCLIP_XL.vision, VIDEOCLIP_XL.text, 248, two_tables=True), path)
    assert run(arguments("bpgo", "stages.grpo.experience.advantage.base_samples=2"), monkeypatch) == 0
    found = row(tmp_path)
    assert found["reward/zero_variance_groups"] == 0
    assert 0.5 <= found["advantage/trust_min"] <= found["advantage/trust_max"] <= 1.5
    assert len(list((tmp_path / "cache" / "astro" / "base_scores").iterdir())) == 1


@pytest.mark.parametrize(("recipe", "says"), [
    ("vipo", "stages.grpo.experience.advantage.kind: found 'vipo', whose network is not here"),
    ("grpo_noisy", "[ ] reward videoclip_xl"),
    ("self_paced_7b", "[ ] reward qwen_judge.visual_quality, qwen_judge.dynamics, qwen_judge.text_alignment"),
])  # fmt: skip
def test_what_is_missing_is_said_before_a_folder_is_made(recipe, says, arguments, tmp_path, monkeypatch, capsys):
    if recipe == "vipo":
        reward_folders.write_videoalign(tmp_path / "checkpoints")
    assert run(arguments(recipe), monkeypatch) == 2
    assert says in message(capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("recipe", "sets", "says"), [
    ("grpo", 'rewards={"videoalign.vqq"=1.0}', "rewards.videoalign.vqq: unknown reward"),
    ("self_paced_7b", 'scorers={qwen_judge={model="x", judge="odd"}}', "scorers.qwen_judge.judge: "),
    ("grpo", 'scorers={qwen_judge={model="x"}}', "scorers.qwen_judge: no reward of it"),
])  # fmt: skip
def test_rewards_and_keys_of_scorers_are_checked(recipe, sets, says, arguments, tmp_path, monkeypatch, capsys):
    assert run(arguments(recipe, f"stages.grpo.experience.{sets}"), monkeypatch) == 2
    assert f"stages.grpo.experience.{says}" in message(capsys)

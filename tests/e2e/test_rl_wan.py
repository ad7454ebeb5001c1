"""`astro rl` on Wan 2.1 from tiny random folders in the real layouts: transformer, VAE, text encoder, HPSv3 and
VideoAlign, one epoch and its end.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import reward_folders
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from test_training import run
from wan_folder import write_wan_folder

from astro_cli.cache.kv import KVCache
from astro_cli.models import lora
from astro_cli.models.wan.transformer import CausalWan
from astro_cli.rewards import wan as wan_rewards
from astro_cli.rewards.hpsv3 import HPSv3
from astro_cli.training import trainer
from astro_cli.training.clips import Roller
from astro_cli.training.experience import ExperienceSource

SETS = (
    "model.dim=24",
    "model.ffn_dim=32",
    "model.num_heads=2",
    "model.num_layers=2",
    "model.freq_dim=8",
    "model.text_dim=16",
    "video.frames=3",
    "video.height=4",
    "video.width=6",
    "lora.rank=2",
    "lora.alpha=2",
    "stages.nft.steps=1",
    "stages.nft.batch=2",
    "stages.nft.accumulate=1",
    "stages.nft.experience.prompts=1",
    "stages.nft.experience.group=2",
    "stages.nft.experience.parallel=2",
    "stages.nft.experience.frames=6",
    "stages.nft.experience.clip=3",
    "runtime.precision=no",
    "runtime.gradient_checkpointing=false",
    "runtime.device=cpu",
)


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(tmp_path / "checkpoints"))
    folder = write_wan_folder(tmp_path / "checkpoints" / "Wan2.1-T2V-1.3B-Diffusers")
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a large red circle moves right\n")
    sets = [*SETS, f"base.student={folder / 'transformer'}", f"stages.nft.data.prompts={prompts}"]
    return [
        "rl",
        "--recipe",
        "astrolabe_causal",
        "--out",
        str(tmp_path / "run"),
        *(part for item in sets for part in ("--set", item)),
    ]


def test_hpsv3_videoalign_samples_and_motion_see_a_clip_as_the_whole_video_shows_it(arguments, tmp_path, monkeypatch):
    """Two histories of three latents (9 frames), two candidates of three (12 frames) on each."""
    scored, rolled, written = {}, [], {}

    def watch(kind):
        score = kind.score

        def seen(self, frames, prompts):
            scored.setdefault(self.key, []).append(frames)
            return score(self, frames, prompts)

        monkeypatch.setattr(kind, "score", seen)

    def roll(roller, *rest):
        rolled.append((roller.backbone, candidates(roller, *rest)))
        return rolled[0][1]

    candidates = Roller.candidates
    watch(wan_rewards.FrameQuality)
    watch(wan_rewards.ClipQuality)
    monkeypatch.setattr(Roller, "candidates", roll)
    monkeypatch.setattr(
        trainer,
        "write_samples",
        lambda folder, step, samples, fps: [written.setdefault(sample.name, sample) for sample in samples],
    )
    reward_folders.write_hpsv3(tmp_path / "checkpoints")
    reward_folders.write_videoalign(tmp_path / "checkpoints")
    experience = {"prompts": 2, "window": '"last"', "samples_every": 1, "base_clips": 0}
    sets = [f"--set=stages.nft.experience.{key}={value}" for key, value in experience.items()]
    assert run([*arguments, *sets, "--set=stages.nft.batch=4"], monkeypatch) == 0
    ((backbone, clips),) = rolled
    history = clips.history.repeat_interleave(2, 0)
    assert history.shape[1] == clips.latents.shape[1] == 3
    expected = backbone.decode(torch.cat((history, clips.latents), 1))[:, 9:]
    assert expected.shape[:2] == (4, 12)
    for key in ("vq", "mq", "ta"):
        torch.testing.assert_close(torch.cat(scored[key]), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        clips.motion, (expected[:, 1:] - expected[:, :-1]).abs().mean((1, 2, 3, 4)), atol=1e-5, rtol=0
    )
    metrics = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert {"reward/vq", "reward/mq", "reward/ta"} <= metrics.keys()
    assert (tmp_path / "run" / "final" / "lora").is_dir()
    assert metrics["reward/motion"] == pytest.approx(clips.motion.mean().item(), abs=1e-5)
    total = sum(weight * clips.scores[key] for key, weight in {"vq": 1.0, "mq": 1.0, "ta": 1.0}.items())
    for name, row in (("best", int(total.argmax())), ("worst", int(total.argmin()))):
        assert written[name].reward == pytest.approx(total[row].item(), abs=1e-4)
        torch.testing.assert_close(written[name].frames_TCHW, expected[row], atol=1e-5, rtol=0)


@pytest.fixture
def other_precision():
    """accelerate keeps one precision per process: forget it before and after."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_in_bfloat16_the_base_is_held_so_and_adapters_in_float32(arguments, tmp_path, monkeypatch, other_precision):
    seen = {}

    def collect(source, step, role):
        network = source.run_context.roles.modules["student"]
        batches = real(source, step, role)
        seen["base"] = {parameter.dtype for name, parameter in network.named_parameters() if ".lora_" not in name}
        seen["adapters"] = {parameter.dtype for name, parameter in network.named_parameters() if ".lora_" in name}
        return batches

    real = ExperienceSource.batches
    monkeypatch.setattr(ExperienceSource, "batches", collect)
    reward_folders.write_hpsv3(tmp_path / "checkpoints")
    reward_folders.write_videoalign(tmp_path / "checkpoints")
    assert run([*arguments, "--set", "runtime.precision=bf16"], monkeypatch) == 0
    assert seen == {"base": {torch.bfloat16}, "adapters": {torch.float32}}
    metrics = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert math.isfinite(metrics["student/loss"])


def test_rl_on_wan_without_scorers_leaves_no_folder_and_says_where_they_belong(
    arguments, tmp_path, monkeypatch, capsys
):
    assert run(arguments, monkeypatch) == 2
    error = capsys.readouterr().err
    lines = [line.strip() for line in error.splitlines()]
    assert lines[0].endswith("2 of 5 parts are not on this machine")
    assert [line for line in lines if line.startswith("[ ]")] == [
        "[ ] reward vq: HPSv3",
        "[ ] reward mq, ta: VideoAlign",
    ]
    assert "hf download MizzenAI/HPSv3 HPSv3.safetensors" in lines
    assert lines[-1].startswith("hint: ")
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_rl_at_bf16_rolls_out_in_bfloat16_and_keeps_adapters_and_scores_float32(
    arguments, tmp_path, monkeypatch, other_precision
):
    reward_folders.write_hpsv3(tmp_path / "checkpoints")
    reward_folders.write_videoalign(tmp_path / "checkpoints")
    caches, products, scoring = set(), set(), set()
    make, forward, score = KVCache.__init__, CausalWan.forward, HPSv3.score

    def seen_cache(self, **options):
        make(self, **options)
        caches.update(tensor.dtype for tensor in (*self.k, *self.v))

    def seen_pass(self, x, *others, **options):
        velocity = forward(self, x, *others, **options)
        layer = lora.layers(self)[0]
        rows = torch.zeros(1, layer.lora_A["default"].weight.shape[1])
        products.add((x.dtype, None if velocity is None else velocity.dtype, layer.lora_A["default"](rows).dtype))
        return velocity

    def seen_score(self, *others):
        scoring.add(torch.is_autocast_enabled("cpu"))
        return score(self, *others)

    monkeypatch.setattr(KVCache, "__init__", seen_cache)
    monkeypatch.setattr(CausalWan, "forward", seen_pass)
    monkeypatch.setattr(HPSv3, "score", seen_score)
    assert run([*arguments, "--set", "runtime.precision=bf16"], monkeypatch) == 0
    assert caches == {torch.bfloat16}
    assert {x for x, _, _ in products} == {torch.float32}  # latents, and velocities with them, stay float32
    assert {v for _, v, _ in products} <= {torch.float32, None}
    assert {a for _, _, a in products} == {torch.bfloat16}  # every pass is under autocast, rollouts too
    assert scoring == {False}
    checkpoint = load_file(next((tmp_path / "run" / "checkpoints").glob("*/network-student.safetensors")))
    final = load_file(tmp_path / "run" / "final" / "student.safetensors")
    assert {value.dtype for value in (*checkpoint.values(), *final.values())} == {torch.float32}

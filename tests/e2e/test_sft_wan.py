"""`astro sft` on Wan 2.1 from a tiny random folder in the real layout, on a user's videos."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_videos import write_damaged, write_video
from test_bad_input import message
from test_training import run, same_bits
from wan_folder import write_wan_folder

from astro_cli.generate.arm import load_arm
from astro_cli.models.checkpoint import load_transformer
from astro_cli.models.vae import load_vae
from astro_cli.models.wan_backbone import WanBackbone

SETS = (
    "model.dim=24", "model.ffn_dim=32", "model.num_heads=2", "model.num_layers=2", "model.freq_dim=8",
    "model.text_dim=16", "video.frames=3", "video.block=3", "video.height=4", "video.width=6", "video.fps=8",
    "seed=0", "runtime.precision=no", "runtime.gradient_checkpointing=false", "runtime.device=cpu",
    "runtime.save_every=1",
)  # fmt: skip
STAGE = ("steps=2", "batch=4", "accumulate=2")


@pytest.fixture
def wan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(tmp_path / "checkpoints"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return write_wan_folder(tmp_path / "checkpoints" / "Wan2.1-T2V-1.3B-Diffusers")


@pytest.fixture
def arguments(wan: Path, tmp_path: Path):
    def of(recipe: str, out: str, *more: str) -> list[str]:
        sets = [*SETS, f"base.student={wan / 'transformer'}", *(f"stages.sft.{item}" for item in (*STAGE, *more))]
        flags = [part for item in sets for part in ("--set", item)]
        return ["sft", "--recipe", recipe, *flags, "--out", str(tmp_path / out)]

    return of


class Brightness:
    """In the place of RAFT: every pixel goes right by a pixel for every 32 levels that it becomes brighter."""

    def flow(self, first_HWC: np.ndarray, second_HWC: np.ndarray) -> np.ndarray:
        brighter_HW = second_HWC.mean(2) - first_HWC.mean(2)
        return np.stack((brighter_HW / 32, np.zeros_like(brighter_HW))).astype(np.float32)


@pytest.fixture
def raft(wan: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in RAFT's place, that is read as the network above."""
    from astro_cli.models import raft

    path = wan.parent / "eval" / "raft" / "raft_large.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"raft")
    monkeypatch.setattr(raft, "load", lambda *_: Brightness())
    return path


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Three videos and a damaged one, by a manifest."""
    folder = tmp_path / "videos"
    lines = []
    for seed, name in enumerate("abc"):
        write_video(folder / f"{name}.mp4", seed=seed, frames=9)
    write_damaged(folder / "d.mp4")
    for name in "abcd":
        lines.append(json.dumps({"video": f"{name}.mp4", "prompt": "a red circle moves right"}))
    (folder / "manifest.jsonl").write_text("\n".join(lines))
    return folder


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_videos_are_encoded_once_also_after_an_end_in_between(videos, raft, arguments, tmp_path, monkeypatch, capsys):
    encoded, encode = [], WanBackbone.encode

    def counted(self, frames):
        if len(encoded) == 1 and not (tmp_path / "second").exists():
            (tmp_path / "second").mkdir()
            raise KeyboardInterrupt
        encoded.append(frames)
        return encode(self, frames)

    monkeypatch.setattr(WanBackbone, "encode", counted)
    flags = arguments("sft_geometry", "run", f"data.clips={videos}")
    assert run(flags, monkeypatch) == 1
    assert run([*flags, "--resume"], monkeypatch) == 0
    assert len(encoded) == 3  # the first of them before the end
    text = capsys.readouterr().err.replace("\n", " ")
    assert "1 of 4 videos are left out: d.mp4: " in text
    for row in rows(tmp_path / "run"):
        assert math.isfinite(row["student/loss"])
        assert row["student/grad_norm"] > 0
        assert 0 <= row["structure/stability"] <= 1
    inputs = json.loads((tmp_path / "run" / "resolved.json").read_text())["inputs"]
    assert {"reward structural_stability", "stages.sft.data.clips"} <= inputs.keys()


def test_weights_follow_the_scorer_and_none_are_flow_matching(videos, raft, arguments, tmp_path, monkeypatch):
    clips = f"data.clips={videos}"
    assert run(arguments("sft", "plain", clips), monkeypatch) == 0
    assert run(arguments("sft_geometry", "even", clips, "objective.strength=0"), monkeypatch) == 0
    assert run(arguments("sft_geometry", "data", clips, "objective.structure=data"), monkeypatch) == 0
    plain, even, data = (tmp_path / name / "final" / "student.safetensors" for name in ("plain", "even", "data"))
    assert same_bits(plain, even)
    assert not same_bits(plain, data)


def test_weights_of_raft_are_asked_for_with_the_rest(videos, arguments, tmp_path, monkeypatch, capsys):
    assert run(arguments("sft_geometry", "run", f"data.clips={videos}"), monkeypatch) == 2
    assert "[ ] reward structural_stability" in (text := message(capsys))
    assert "raft_large_C_T_SKHT_V2-ff5fadd5.pth" in text
    assert "astro sft --recipe sft_geometry_shapes" in text
    assert not (tmp_path / "run").exists()


def test_a_manifest_path_that_leaves_its_folder_is_refused(videos, raft, arguments, tmp_path, monkeypatch, capsys):
    write_video(tmp_path / "outside.mp4", frames=9)
    with (videos / "manifest.jsonl").open("a") as file:
        file.write('\n{"video": "../outside.mp4", "prompt": "x"}')
    assert run(arguments("sft_geometry", "run", f"data.clips={videos}"), monkeypatch) == 2
    text = message(capsys)
    assert "manifest.jsonl: line 5: found video '../outside.mp4', which leaves the file's folder" in text
    assert not (tmp_path / "run").exists()


def test_the_flow_branch_trains_wans_decoder_on_rafts_flow(videos, raft, wan, arguments, tmp_path, monkeypatch, capsys):
    encoded, encode = [], WanBackbone.encode
    monkeypatch.setattr(WanBackbone, "encode", lambda self, frames: encoded.append(frames) or encode(self, frames))
    flags = [f"data.clips={videos}", "optim.decoder.lr=0.01", "optim.decoder.warmup=0"]
    for name in ("one", "two"):
        assert run(arguments("sft_flow", name, *flags), monkeypatch) == 0
        assert len(encoded) == 3  # the second run finds latents and flows of the first
    assert "1 of 4 videos are left out: d.mp4: " in capsys.readouterr().err.replace("\n", " ")
    one, two = (tmp_path / name / "final" for name in ("one", "two"))
    assert same_bits(one / "decoder.safetensors", two / "decoder.safetensors")
    flows = list((tmp_path / "cache" / "astro" / "flows").rglob("*.safetensors"))
    assert {tuple(load_file(path)["flows"].shape) for path in flows} == {(8, 2, 4, 6)}
    assert len(flows) == 3
    trained, vae = load_file(one / "decoder.safetensors"), load_vae(wan)
    for name, value in vae.model.decoder.state_dict().items():
        assert not torch.equal(trained[f"decoder.{name}"], value), name
    state, student = load_transformer(str(wan / "transformer")).state, load_file(one / "student.safetensors")
    assert student.keys() == state.keys()
    assert all(torch.equal(value, state[key].float()) for key, value in student.items())
    for row in rows(tmp_path / "one"):
        assert math.isfinite(row["decoder/loss"])
        assert row["decoder/flow_epe"] > 0
    assert {"optical flow: RAFT", "backbone"} <= json.loads((one.parent / "resolved.json").read_text())["inputs"].keys()
    backbone = load_arm(str(tmp_path / "one"), wan=str(wan)).backbone
    latents = torch.randn(1, 2, 16, 4, 6, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(backbone.decode(latents), vae.decode(latents), atol=1e-3)


def test_the_flow_branch_on_wan_needs_raft(videos, arguments, tmp_path, monkeypatch, capsys):
    assert run(arguments("sft_flow", "run", f"data.clips={videos}"), monkeypatch) == 2
    assert "[ ] optical flow: RAFT" in (text := message(capsys))
    assert "raft_large_C_T_SKHT_V2-ff5fadd5.pth" in text
    assert not (tmp_path / "run").exists()

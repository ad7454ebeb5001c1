"""`astro distill` on Wan 2.1 with the user's videos: encoded once, kept on the disk, damaged ones left out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_videos import write_damaged, write_video
from test_bad_input import message
from test_training import run, same_bits
from wan_folder import tiny_vae, write_wan_folder

from astro_cli.media.clips import ClipForm, clip_frames
from astro_cli.models.vae import load_vae
from astro_cli.models.wan_backbone import WanBackbone
from astro_cli.training.video_clips import codec_hash, left_out

RECIPE = """# Teacher forcing on a user's videos.
extends = "base/wan_1.3b.toml"
name = "videos"
command = "distill"
order = ["ar"]
model = { dim = 24, ffn_dim = 32, num_heads = 2, num_layers = 2, freq_dim = 8, text_dim = 16 }
video = { frames = 3, height = 4, width = 6, fps = 8 }

[stages.ar]
objective = { kind = "ar_diffusion" }
steps = 2
batch = 4
optim.student = { lr = 1e-3 }
"""
FORM = ClipForm(9, 8.0, 32, 48)  # 3 latent frames of 4 x 6 cells


@pytest.fixture
def wan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny Wan folder, where runs look for one; what they keep goes below the test's own cache folder."""
    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(tmp_path / "checkpoints"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "videos.toml").write_text(RECIPE)
    return write_wan_folder(tmp_path / "checkpoints" / "Wan2.1-T2V-1.3B-Diffusers")


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Two videos that can be used, one of another size and rate; one that is damaged and one that is too short."""
    folder = tmp_path / "clips"
    write_video(folder / "a.mp4", seed=1, frames=9)
    write_video(folder / "b.mp4", seed=2, frames=20, size=(96, 96), fps=16)
    write_damaged(folder / "c.mp4")
    write_video(folder / "d.mp4", seed=4, frames=8)
    for number, name in enumerate("abcd"):
        (folder / f"{name}.txt").write_text(("a red circle moves right", "a blue square moves left")[number % 2])
    return folder


def arguments(tmp_path: Path, out: str, *sets: str) -> list[str]:
    given = [part for item in sets for part in ("--set", item)]
    return ["distill", "--recipe", str(tmp_path / "videos.toml"), "--out", str(tmp_path / out), *given]


def test_wan_trains_on_the_users_videos_and_encodes_them_once(wan, clips, tmp_path, monkeypatch, capsys):
    seen = []
    encode = WanBackbone.encode
    monkeypatch.setattr(WanBackbone, "encode", lambda self, frames: seen.append(frames) or encode(self, frames))
    assert run(arguments(tmp_path, "first", f"stages.ar.data.clips={clips}"), monkeypatch) == 0
    text = capsys.readouterr().err.replace("\n", " ")
    assert "2 of 4 videos are left out: c.mp4: " in text
    assert "d.mp4: too short: 8 frames at 8 a second, expected 9 at 8" in text
    assert "decoding and encoding clips 4/4" in text
    assert [tuple(frames.shape) for frames in seen] == [(1, 9, 3, 32, 48)] * 2
    files = sorted((tmp_path / "cache" / "astro" / "latents" / codec_hash(None) / "9x32x48-8fps-upright").iterdir())
    assert len(files) == 2
    pixels = torch.from_numpy(clip_frames(clips / "a.mp4", FORM)).permute(0, 3, 1, 2)[None].float() / 255
    expected = load_vae(wan).encode(pixels)[0]
    assert any(torch.equal(load_file(file)["latents"], expected) for file in files)
    rows = [json.loads(line) for line in (tmp_path / "first" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1]

    seen.clear()
    (clips / "a.mp4").rename(clips / "e.mp4")  # its content stays, and so do its latents
    (clips / "a.txt").rename(clips / "e.txt")
    (clips / "b.mp4").rename(clips / "f.mp4")
    (clips / "b.txt").rename(clips / "f.txt")
    assert run(arguments(tmp_path, "second", f"stages.ar.data.clips={clips}"), monkeypatch) == 0
    assert seen == []
    assert same_bits(*(tmp_path / out / "final" / "student.safetensors" for out in ("first", "second")))

    files[0].write_bytes(files[0].read_bytes()[:100])  # cut short: made again
    assert run(arguments(tmp_path, "third", f"stages.ar.data.clips={clips}"), monkeypatch) == 0
    assert len(seen) == 1
    assert same_bits(*(tmp_path / out / "final" / "student.safetensors" for out in ("first", "third")))

    inputs = json.loads((tmp_path / "third" / "resolved.json").read_text())["inputs"]
    assert inputs.keys() == {"backbone", "stages.ar.data.clips"}
    capsys.readouterr()
    for path, key in ((clips / "e.txt", "stages.ar.data.clips"), (wan / "vae" / "config.json", "backbone")):
        before = path.read_text()
        path.write_text(before + " ")
        assert run([*arguments(tmp_path, "third", f"stages.ar.data.clips={clips}"), "--resume"], monkeypatch) == 2
        assert f"{key} changed since the run began" in message(capsys)
        path.write_text(before)


def test_another_vae_has_latents_of_its_own(wan, tmp_path):
    before = codec_hash(wan)
    vae = tiny_vae()
    with torch.no_grad():
        next(vae.parameters()).add_(1)
    vae.save_pretrained(wan / "vae")
    assert codec_hash(wan) != before


@pytest.mark.parametrize(
    ("kind", "more"), [("ar_diffusion", []), ("flow_matching", []), ("consistency", ["stages.ar.objective.decay=0.9"])]
)
def test_wan_without_clips_is_refused_before_any_weights(kind, more, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(tmp_path / "nothing"))
    (tmp_path / "videos.toml").write_text(RECIPE)
    assert run(arguments(tmp_path, "run", f"stages.ar.objective.kind={kind}", *more), monkeypatch) == 2
    assert f"stages.ar.data.clips: missing, {kind} on Wan needs a folder of videos with prompts" in message(capsys)
    assert not (tmp_path / "run").exists()


def test_clips_from_files_have_no_gaps(tmp_path, monkeypatch, capsys):
    (tmp_path / "videos.toml").write_text(RECIPE)
    sets = [f"stages.ar.data.clips={tmp_path}", "stages.ar.data.gap=1", "video.block=1"]
    assert run(arguments(tmp_path, "run", *sets), monkeypatch) == 2
    assert "stages.ar.data.gap: found 1, expected 0: clips from files are whole" in message(capsys)


def test_clips_are_listed_before_any_weights(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(tmp_path / "nothing"))
    (tmp_path / "videos.toml").write_text(RECIPE)
    assert run(arguments(tmp_path, "run", f"stages.ar.data.clips={tmp_path / 'gone'}"), monkeypatch) == 2
    assert f"[ ] clips: {tmp_path / 'gone'}" in message(capsys)


def test_the_embedded_world_takes_no_clips(tmp_path, monkeypatch, capsys):
    out = ["--out", str(tmp_path / "run")]
    plain = ["--set", 'stages.ar_diffusion.objective={kind="ar_diffusion"}']
    sets = ["--set", "stages.ar_diffusion.data.clips=videos", *plain]
    assert run(["distill", "--recipe", "causal_forcing_shapes", *sets, *out], monkeypatch) == 2
    assert "stages.ar_diffusion.data.clips: found 'videos', expected none: the embedded world" in message(capsys)


def test_videos_none_of_which_can_be_used_end_the_run(wan, clips, tmp_path, monkeypatch, capsys):
    for name in "ab":
        (clips / f"{name}.mp4").unlink()
    assert run(arguments(tmp_path, "run", f"stages.ar.data.clips={clips}"), monkeypatch) == 2
    assert "clips: none of 2 videos can be used; c.mp4: " in message(capsys)


def test_the_first_ten_videos_that_are_left_out_are_named():
    text = left_out([(Path(f"{number}.mp4"), "damaged") for number in range(12)], 40)
    assert text.startswith("12 of 40 videos are left out: 0.mp4: damaged; 1.mp4: damaged; ")
    assert text.endswith("9.mp4: damaged; and 2 more")

"""`astro sample` on Wan 2.1, on tiny random folders in the real layouts: text encoder, transformer, VAE, MP4, and what
is refused.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_training import run
from wan_folder import write_wan_folder

RED, BLUE = "a large red circle moves right", "a small blue square moves left"
SIZE = ("--size", "32x48")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_wan_folder(tmp_path_factory.mktemp("wan"))


def frames_of(path: str) -> tuple[np.ndarray, float]:
    with av.open(path) as container:
        rate = container.streams.video[0].average_rate
        assert rate is not None
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]), float(rate)


def sidecar(folder: Path) -> dict:
    return json.loads(next(folder.glob("*.json")).read_text())


def test_a_wan_folder_streams_to_mp4_with_a_prompt_switch(folder, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    arguments = [
        "sample",
        RED,
        "--wan",
        str(folder),
        *SIZE,
        "--frames",
        "41",
        "--switch",
        f"1s:{BLUE}",
        "--window",
        "9",
        "--sink",
        "3",
    ]
    assert run([*arguments, "--out", str(out)], monkeypatch) == 0
    card = sidecar(out)
    # 41 frames are 11 latents, so 12 in blocks of 3: 4 x 12 - 3 = 45. Frame 16 is in latent 4, the next block begins
    # with latent 6, frame 21
    assert (card["latent_frames"], card["frames"], card["fps"]) == (12, 45, 16.0)
    assert card["switches"] == [{"frame": 21, "seconds": 21 / 16, "prompt": BLUE}]
    clip, rate = frames_of(card["video"])
    assert rate == 16
    assert clip.shape == (45, 192, 288, 3)  # 32 x 48, enlarged
    assert clip.std() > 5
    assert "warning" not in capsys.readouterr().err


def test_a_stream_is_the_whole_video_decoded_at_once(folder):
    from astro_cli.generate.arm import load_arm

    arm = load_arm(None, wan=str(folder))
    arm.card["video"] |= {"height": 4, "width": 6}
    latents = arm.generate([RED, BLUE], [0, 1], 6)
    decoder = arm.backbone.decoder()
    streamed = torch.cat([decoder.push(block) for block in arm.stream([RED, BLUE], [0, 1], 6)], 1)
    torch.testing.assert_close(streamed, arm.backbone.decode(latents), atol=1e-5, rtol=0)
    single = arm.generate([BLUE], [1], 6)
    torch.testing.assert_close(single, latents[1:], atol=1e-4, rtol=0)
    assert (latents[0] - arm.generate([BLUE], [0], 6)[0]).abs().mean() > 1e-4  # the prompt matters


def test_a_lora_and_a_recipe_change_the_video(folder, tmp_path, monkeypatch):
    rng = torch.Generator().manual_seed(0)
    pairs = {
        f"transformer.blocks.{block}.attn1.to_v.lora_{part}.weight": torch.randn(shape, generator=rng)
        for block in range(2)
        for part, shape in (("A", (2, 24)), ("B", (24, 2)))
    }
    lora = tmp_path / "pytorch_lora_weights.safetensors"
    save_file(pairs, lora)
    recipe = tmp_path / "tiny_wan.toml"
    tiny = "dim = 24\nffn_dim = 32\nnum_heads = 2\nnum_layers = 2\nfreq_dim = 8\ntext_dim = 16\n"
    recipe.write_text(
        f'extends = "astrolabe_causal"\nname = "tiny_wan"\n[model]\n{tiny}[video]\nframes = 6\nheight = 4\nwidth = 6\n'
    )
    arguments = ["sample", RED, "--wan", str(folder), "--weights", str(folder), "--recipe", str(recipe)]
    assert run([*arguments, "--out", str(tmp_path / "plain")], monkeypatch) == 0
    assert run([*arguments, "--lora", str(lora), "--out", str(tmp_path / "lora")], monkeypatch) == 0
    plain, changed = sidecar(tmp_path / "plain"), sidecar(tmp_path / "lora")
    assert (plain["weights"], plain["frames"]) == ("tiny_wan", 21)
    assert plain["weights_hash"] != changed["weights_hash"]
    assert np.abs(frames_of(plain["video"])[0].astype(int) - frames_of(changed["video"])[0].astype(int)).mean() > 1


def test_wan_itself_is_found_below_the_checkpoints_folder_and_sampled_as_a_teacher(folder, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path / "hub" / "Wan2.1-T2V-1.3B-Diffusers")
    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(tmp_path / "hub"))
    from astro_cli.generate.arm import load_arm

    arm = load_arm("wan_1.3b_diffusers")
    assert (arm.name, arm.streams, arm.card["teacher"]["steps"]) == ("wan_1.3b_diffusers", False, 50)
    arm.card["video"] |= {"height": 4, "width": 4}
    arm.card["teacher"]["steps"] = 2
    clip = arm.backbone.decode(arm.generate([RED], [0], 3))
    assert clip.shape == (1, 9, 3, 32, 32)
    arm.card["teacher"]["guidance"] = 1.0
    assert (arm.backbone.decode(arm.generate([RED], [0], 3)) - clip).abs().max() > 1e-4


def test_a_long_prompt_is_cut_with_a_warning_once(folder, tmp_path, monkeypatch, capsys):
    prompt = " ".join(["a large red circle moves right"] * 100)
    assert (
        run(["sample", prompt, "--wan", str(folder), *SIZE, "--frames", "9", "--out", str(tmp_path)], monkeypatch) == 0
    )
    err = capsys.readouterr().err
    assert err.count("warning: prompt: 601 tokens, 512 fit; kept up to '... ") == 1


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("no vae", "neither vae/"),
        ("no text encoder", "neither text_encoder/"),
        ("truncated vae", "damaged or not safetensors"),
        ("another text width", "text_dim: the transformer has 16, the wan text encoder and VAE have 8"),
        ("no prompt", "prompt: empty"),
        ("an odd size", "in multiples of 16 and 16 pixels"),
        ("a late switch", "past the end: the last block begins at frame 9 (0.6 s) of 21"),
        ("shapes weights", "leave --wan out"),
    ],
)
def test_bad_input_is_refused_before_the_first_frame(folder, tmp_path, monkeypatch, capsys, damage, says):
    copy, out = tmp_path / "wan", tmp_path / "out"
    shutil.copytree(folder, copy)
    extra = {
        "no prompt": [" "],
        "an odd size": [RED, "--size", "32x40"],
        "shapes weights": [RED, "--weights", "shapes/causal_forcing"],
        "a late switch": [RED, *SIZE, "--frames", "21", "--switch", f"10:{BLUE}"],
    }.get(damage, [RED])
    if damage.startswith("no ") and damage != "no prompt":
        shutil.rmtree(copy / damage.removeprefix("no ").replace(" ", "_"))
    elif damage == "truncated vae":
        file = copy / "vae" / "diffusion_pytorch_model.safetensors"
        file.write_bytes(file.read_bytes()[:-10])
    elif damage == "another text width":
        file = copy / "text_encoder" / "model.safetensors"
        state = load_file(file)
        narrow = {
            key: value[..., :8]
            if key.endswith(
                ("shared.weight", "wi_0.weight", "wi_1.weight", "layer_norm.weight", "q.weight", "k.weight", "v.weight")
            )
            else value
            for key, value in state.items()
        }
        narrow = {key: value[:8] if key.endswith(("o.weight", "wo.weight")) else value for key, value in narrow.items()}
        save_file({key: value.contiguous() for key, value in narrow.items()}, file)
        config = copy / "text_encoder" / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"d_model": 8}))
    assert run(["sample", *extra, "--wan", str(copy), "--out", str(out)], monkeypatch) == 2
    err = capsys.readouterr().err
    assert says in err
    assert "Traceback" not in err
    assert not out.exists()

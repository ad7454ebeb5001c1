"""DINOv2 and DINOv3 as features of frames: their released layouts, against transformers' own modules."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import Dinov2Config, Dinov2Model, DINOv3ViTConfig, DINOv3ViTModel

from astro_cli.config.errors import CheckpointError
from astro_cli.models import features
from astro_cli.models.dino import load_dino
from astro_cli.models.dinov3 import load_dinov3

WIDTH, LAYERS = 64, 2


def shaken(model: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
    return model.eval()


def joined(state: dict, stem: str, kind: str) -> torch.Tensor:
    return torch.cat([state[f"{stem}.{name}_proj.{kind}"] for name in "qkv"])


def write_dinov2(folder: Path) -> Dinov2Model:
    """A random one in facebookresearch's names."""
    config = Dinov2Config(
        hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=1, image_size=28, patch_size=14
    )
    model = shaken(Dinov2Model(config))
    state = model.state_dict()
    renamed = {
        "cls_token": state["embeddings.cls_token"],
        "pos_embed": state["embeddings.position_embeddings"],
        "mask_token": state["embeddings.mask_token"],
        "norm.weight": state["layernorm.weight"],
        "norm.bias": state["layernorm.bias"],
    }
    for kind in ("weight", "bias"):
        renamed[f"patch_embed.proj.{kind}"] = state[f"embeddings.patch_embeddings.projection.{kind}"]
        for layer in range(LAYERS):
            old, new = f"encoder.layer.{layer}", f"blocks.{layer}"
            renamed[f"{new}.attn.qkv.{kind}"] = joined(state, f"{old}.attention", kind)
            renamed[f"{new}.attn.proj.{kind}"] = state[f"{old}.attention.o_proj.{kind}"]
            for part in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
                renamed[f"{new}.{part}.{kind}"] = state[f"{old}.{part}.{kind}"]
    for layer in range(LAYERS):
        for part, place in (("ls1", "layer_scale1"), ("ls2", "layer_scale2")):
            renamed[f"blocks.{layer}.{part}.gamma"] = state[f"encoder.layer.{layer}.{place}.lambda1"]
    torch.save(renamed, folder / "dinov2_vitb14_pretrain.pth")
    return model  # type: ignore[return-value]


def write_dinov3(folder: Path) -> DINOv3ViTModel:
    """A random one in facebookresearch's names, with the masked bias of its keys."""
    config = DINOv3ViTConfig(
        hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=LAYERS, num_attention_heads=1, patch_size=16,
        num_register_tokens=4, image_size=32,
    )  # fmt: skip
    model = shaken(DINOv3ViTModel(config))
    state = model.state_dict()
    prefix = next(name for name in state if name.endswith(".0.norm1.weight")).removesuffix("0.norm1.weight")
    renamed = {
        "cls_token": state["embeddings.cls_token"],
        "storage_tokens": state["embeddings.register_tokens"],
        "mask_token": state["embeddings.mask_token"][0],
        "norm.weight": state["norm.weight"],
        "norm.bias": state["norm.bias"],
        "rope_embed.periods": torch.ones(16),
    }
    for kind in ("weight", "bias"):
        renamed[f"patch_embed.proj.{kind}"] = state[f"embeddings.patch_embeddings.{kind}"]
        for layer in range(LAYERS):
            old, new = f"{prefix}{layer}", f"blocks.{layer}"
            parts = [state.get(f"{old}.attention.{name}_proj.{kind}") for name in "qkv"]
            parts = [torch.full((WIDTH,), 7.0) if part is None else part for part in parts]  # keys have no bias
            renamed[f"{new}.attn.qkv.{kind}"] = torch.cat(parts)
            renamed[f"{new}.attn.proj.{kind}"] = state[f"{old}.attention.o_proj.{kind}"]
            for part, place in (
                ("norm1",) * 2,
                ("norm2",) * 2,
                ("mlp.fc1", "mlp.up_proj"),
                ("mlp.fc2", "mlp.down_proj"),
            ):
                renamed[f"{new}.{part}.{kind}"] = state[f"{old}.{place}.{kind}"]
    for layer in range(LAYERS):
        mask = torch.ones(3 * WIDTH)
        mask[WIDTH : 2 * WIDTH] = float("nan")
        renamed[f"blocks.{layer}.attn.qkv.bias_mask"] = mask
        for part in ("1", "2"):
            renamed[f"blocks.{layer}.ls{part}.gamma"] = state[f"{prefix}{layer}.layer_scale{part}.lambda1"]
    torch.save(renamed, folder / "dinov3_vitb16_pretrain_lvd1689m-73cec8be.pth")
    return model  # type: ignore[return-value]


@pytest.fixture
def checkpoints(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(tmp_path))
    (tmp_path / "eval").mkdir()
    return tmp_path / "eval"


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "write", "load", "side", "skip"),
    [("dinov2", write_dinov2, load_dino, 28, 1), ("dinov3", write_dinov3, load_dinov3, 48, 5)],
)
def test_patch_tokens_are_those_of_transformers(checkpoints, name, write, load, side, skip):
    model = write(checkpoints)
    pictures = torch.rand(2, 3, side, side if name == "dinov2" else 32, generator=torch.Generator().manual_seed(1))
    expected = model(pictures).last_hidden_state[:, skip:]
    found = load(features.find(name)).patches(pictures)
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize(("name", "write"), [("dinov2", write_dinov2), ("dinov3", write_dinov3)])
def test_a_clip_has_one_vector_and_gives_gradients_to_its_frames(checkpoints, name, write):
    write(checkpoints)
    see = features.load_features(name, None, torch.device("cpu"))  # type: ignore[arg-type]
    frames = torch.rand(2, 3, 3, 32, 48).requires_grad_()
    vectors = see(frames)
    assert vectors.shape == (2, WIDTH)
    vectors[0].square().sum().backward()
    assert frames.grad is not None
    assert frames.grad[0].abs().max() > 0
    assert not frames.grad[1].any()


@pytest.mark.parametrize("name", ["dinov2", "dinov3"])
def test_missing_weights_are_named_with_their_place(checkpoints, name):
    with pytest.raises(CheckpointError) as caught:
        features.find(name)
    assert f"facebookresearch/{name} at {checkpoints / features.FILES[name]}.pth" in caught.value.hint


def test_another_file_is_refused(checkpoints):
    torch.save({"x": torch.zeros(1)}, checkpoints / "dinov3_vitb16_pretrain_lvd1689m.pth")
    with pytest.raises(CheckpointError, match="not in the file"):
        load_dinov3(features.find("dinov3"))

"""Writes tiny random transformers in the layouts of the released checkpoints, for tests."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from astro_cli.config.errors import CheckpointError
from astro_cli.models.checkpoint import load_transformer
from astro_cli.models.wan.config import WanConfig
from astro_cli.models.wan.transformer import CausalWan

CONFIG = WanConfig(dim=24, ffn_dim=40, num_heads=2, num_layers=3, in_channels=4, freq_dim=8, text_dim=6, text_len=5)
State = dict[str, torch.Tensor]
# Written down here on its own, so that a wrong name in the reader cannot cancel itself out.
TO_ORIGINAL = (
    (r"^condition_embedder\.text_embedder\.linear_1\.", "text_embedding.0."),
    (r"^condition_embedder\.text_embedder\.linear_2\.", "text_embedding.2."),
    (r"^condition_embedder\.time_embedder\.linear_1\.", "time_embedding.0."),
    (r"^condition_embedder\.time_embedder\.linear_2\.", "time_embedding.2."),
    (r"^condition_embedder\.time_proj\.", "time_projection.1."),
    (r"^proj_out\.", "head.head."),
    (r"^scale_shift_table$", "head.modulation"),
    (r"\.scale_shift_table$", ".modulation"),
    (r"\.norm2\.", ".norm3."),
    (r"\.attn1\.", ".self_attn."),
    (r"\.attn2\.", ".cross_attn."),
    (r"\.to_out\.0\.", ".o."),
    (r"\.to_([qkv])\.", r".\1."),
    (r"\.ffn\.net\.0\.proj\.", ".ffn.0."),
    (r"\.ffn\.net\.2\.", ".ffn.2."),
)


def network(seed: int = 0, config: WanConfig = CONFIG) -> CausalWan:
    torch.manual_seed(seed)
    return CausalWan(config).eval().requires_grad_(False)


@torch.no_grad()
def forward(model: CausalWan) -> torch.Tensor:
    """The model's output for fixed inputs."""
    rng, config = torch.Generator().manual_seed(7), model.config
    text = model.encode_text(torch.randn(1, config.text_len, config.text_dim, generator=rng))
    return model(torch.randn(1, 2, config.in_channels, 4, 4, generator=rng), torch.full((1, 2), 400.0), text)


def original_name(key: str) -> str:
    for pattern, name in TO_ORIGINAL:
        key = re.sub(pattern, name, key)
    return key


def original(state: State, prefix: str = "", marker: str = "") -> State:
    """Original Wan names, behind a prefix, and with a wrapper's marker in every block's names."""
    return {
        f"{prefix}{original_name(key).replace('blocks.', f'{marker}blocks.')}": value.clone()
        for key, value in state.items()
    }


def original_config(config: WanConfig = CONFIG) -> dict:
    """config.json as in Wan-AI/Wan2.1-T2V-*: no text width, no patch."""
    return {
        "_class_name": "WanModel",
        "_diffusers_version": "0.30.0",
        "dim": config.dim,
        "eps": config.eps,
        "ffn_dim": config.ffn_dim,
        "freq_dim": config.freq_dim,
        "in_dim": config.in_channels,
        "model_type": "t2v",
        "num_heads": config.num_heads,
        "num_layers": config.num_layers,
        "out_dim": config.in_channels,
        "text_len": config.text_len,
    }


def write_shards(folder: Path, state: State, count: int = 3) -> None:
    names, stem = sorted(state), "diffusion_pytorch_model"
    files = [f"{stem}-{index + 1:05d}-of-{count:05d}.safetensors" for index in range(count)]
    for index, file in enumerate(files):
        save_file(
            {name: state[name].contiguous() for name in names[index::count]}, folder / file, metadata={"format": "pt"}
        )
    places = {name: files[index % count] for index, name in enumerate(names)}
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def write_original(folder: Path, state: State, *, shards: bool = False) -> Path:
    """A folder as Wan-AI/Wan2.1-T2V-1.3B (one file) or -14B (shards), with the VAE's and the text encoder's files
    beside it.
    """
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(original_config()))
    (folder / "Wan2.1_VAE.pth").write_bytes(b"")
    (folder / "models_t5_umt5-xxl-enc-bf16.pth").write_bytes(b"")
    if shards:
        write_shards(folder, original(state))
    else:
        save_file(original(state), folder / "diffusion_pytorch_model.safetensors")
    return folder


def diffusers_model(state: State, config: WanConfig = CONFIG):
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

    model = (
        WanTransformer3DModel(
            num_attention_heads=config.num_heads,
            attention_head_dim=config.head_dim,
            in_channels=config.in_channels,
            out_channels=config.in_channels,
            text_dim=config.text_dim,
            freq_dim=config.freq_dim,
            ffn_dim=config.ffn_dim,
            num_layers=config.num_layers,
        )
        .eval()
        .requires_grad_(False)
    )
    model.load_state_dict(state)
    return model


def write_diffusers(folder: Path, state: State, *, root: bool, size: str = "1GB") -> Path:
    """As diffusers writes it: a transformer's own folder, or a pipeline's with `transformer/` in it."""
    diffusers_model(state).save_pretrained(folder / "transformer" if root else folder, max_shard_size=size)
    return folder


def write_pickle(path: Path, content: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


MARKED = "_fsdp_wrapped_module._checkpoint_wrapped_module."
STEP, CRITIC = 600, {"weight": torch.zeros(2)}
# layout -> writer of (folder, weights to be found, other weights that must not be taken) and what load_transformer says
# of it.
# Sizes come from config.json where the layout has one; a lone file's width says nothing of its heads, unless it is a
# released width.
Writer = Callable[[Path, State, State], Path]
LAYOUTS: dict[str, tuple[Writer, str, str, bool]] = {
    "diffusers, pipeline folder": (
        lambda at, new, _: write_diffusers(at / "pipe", new, root=True),
        "safetensors, diffusers names",
        "flat",
        True,
    ),
    "diffusers, transformer folder": (
        lambda at, new, _: write_diffusers(at / "t", new, root=False),
        "safetensors, diffusers names",
        "flat",
        True,
    ),
    "diffusers, sharded": (
        lambda at, new, _: write_diffusers(at / "pipe", new, root=True, size="20KB"),
        "shards, diffusers names",
        "flat",
        True,
    ),
    "Wan-AI 1.3B folder": (
        lambda at, new, _: write_original(at / "Wan2.1-T2V-1.3B", new),
        "safetensors, original names",
        "flat",
        True,
    ),
    "Wan-AI 1.3B file": (
        lambda at, new, _: write_original(at / "Wan2.1-T2V-1.3B", new) / "diffusion_pytorch_model.safetensors",
        "safetensors, original names",
        "flat",
        True,
    ),
    "Wan-AI 14B, sharded": (
        lambda at, new, _: write_original(at / "Wan2.1-T2V-14B", new, shards=True),
        "shards, original names",
        "flat",
        True,
    ),
    "Self-Forcing": (
        lambda at, new, old: write_pickle(
            at / "checkpoints" / "self_forcing_dmd.pt",
            {
                "generator": original(old, "model."),
                "critic": CRITIC,
                "generator_ema": original(new, "model.", "_fsdp_wrapped_module."),
            },
        ),
        "pickle, original names",
        "generator_ema",
        False,
    ),
    "Self-Forcing ode_init, nested": (
        lambda at, new, _: write_pickle(at / "checkpoints" / "ode_init.pt", {"generator": original(new, "model.")}),
        "pickle, original names",
        "generator",
        False,
    ),
    "Self-Forcing ode_init, flat": (
        lambda at, new, _: write_pickle(at / "checkpoints" / "ode_init.pt", original(new, "model.")),
        "pickle, original names",
        "flat",
        False,
    ),
    "Causal-Forcing chunk-wise, runs without EMA": (
        lambda at, new, old: write_pickle(
            at / "chunkwise" / "causal_forcing.pt",
            {
                "generator_ema": original(old, "model."),
                "generator": original(new, "model."),
            },
        ),
        "pickle, original names",
        "generator",
        False,
    ),
    "Causal-Forcing frame-wise, runs with EMA": (
        lambda at, new, old: write_pickle(
            at / "framewise" / "causal_forcing.pt",
            {
                "generator": original(old, "model."),
                "generator_ema": original(new, "model."),
            },
        ),
        "pickle, original names",
        "generator_ema",
        False,
    ),
    "Causal-Forcing stage": (
        lambda at, new, _: write_pickle(at / "chunkwise" / "ar_diffusion.pt", {"generator": original(new, "model.")}),
        "pickle, original names",
        "generator",
        False,
    ),
    "LongLive": (
        lambda at, new, old: write_pickle(
            at / "models" / "longlive_base.pt",
            {
                "generator": original(old, "model."),
                "critic": CRITIC,
                "generator_ema": original(new, "model.", MARKED),
                "step": STEP,
            },
        ),
        "pickle, original names",
        "generator_ema",
        False,
    ),
    "Reward Forcing": (
        lambda at, new, _: write_pickle(at / "rewardforcing.pt", original(new, "model.")),
        "pickle, original names",
        "flat",
        False,
    ),
    "MemFlow": (
        lambda at, new, old: write_pickle(
            at / "MemFlow" / "base.pt",
            {
                "generator": original(old, "model."),
                "critic": CRITIC,
                "generator_ema": original(new, "model."),
                "step": STEP,
            },
        ),
        "pickle, original names",
        "generator_ema",
        False,
    ),
    "Krea 14B": (
        lambda at, new, _: (
            save_file(original(new, "model."), at / "krea-realtime-video-14b.safetensors"),
            at / "krea-realtime-video-14b.safetensors",
        )[1],
        "safetensors, original names",
        "flat",
        False,
    ),
    "model, compiled": (
        lambda at, new, _: write_pickle(
            at / "m.pt", {"model": original(new, "_orig_mod."), "optimizer": {"state": {}}}
        ),
        "pickle, original names",
        "model",
        False,
    ),
    "model, trained on several GPUs": (
        lambda at, new, _: write_pickle(at / "m.pt", {"model": original(new, "module.")}),
        "pickle, original names",
        "model",
        False,
    ),
    "state_dict, diffusion_model prefix": (
        lambda at, new, _: write_pickle(at / "s.pt", {"state_dict": original(new, "diffusion_model."), "epoch": 3}),
        "pickle, original names",
        "state_dict",
        False,
    ),
    "old torch.save format": (
        lambda at, new, _: (
            torch.save({"generator": original(new)}, at / "o.pt", _use_new_zipfile_serialization=False),
            at / "o.pt",
        )[1],
        "pickle, original names",
        "generator",
        False,
    ),
}


def refusal(path: Path | str, **arguments) -> str:
    """The error that loading it raises."""
    with pytest.raises(CheckpointError) as caught:
        load_transformer(path, **arguments)
    return str(caught.value)

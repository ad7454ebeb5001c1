"""Builds the networks of VBench's dimensions from their released files, once per run.

Their code is the vbench package's own (AMT, RAFT, UMT, ViCLIP), pyiqa's, or ours (CLIP, DINO); the files are read here,
tensors only.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from astro_cli.models import network_files as files
from astro_cli.models.dino import Dino, load_dino
from eval.contract import NetworkCache
from eval.networks import clip, dreamsim_names
from eval.networks.clip_names import FORMS
from eval.networks.dreamsim import DreamSim
from eval.networks.dreamsim import load as load_dreamsim
from eval.vbench.adapter import module
from eval.vbench.vbench_files import FILES, SHARED, require

AMT_S = {"corr_radius": 3, "corr_lvls": 4, "num_flows": 3}  # vbench 0.1.5, third_party/amt/cfgs/AMT-S.yaml
UMT_CLASSES, UMT_FRAMES, UMT_HEAD_WIDTH = 400, 16, 64


def clip_tower(loaded: NetworkCache, name: str) -> clip.ClipTower:
    """CLIP "clip_b32" or "clip_l14"; shared with the other scorers where they read the same file."""
    path = require(name)
    return loaded.get(("clip", path), lambda: clip.load(path, FORMS[SHARED[name]]))


def dino(loaded: NetworkCache, name: str = "dino") -> Dino:
    """DINO ViT-B/16 ("dino") or DINOv2 ViT-B/14 ("dinov2")."""
    return _shared(loaded, name, load_dino)


def dreamsim(loaded: NetworkCache) -> DreamSim:
    """DreamSim's ensemble, whose DINO backbone is the file that `dino` reads."""
    paths = (require("dino"), dreamsim_names.folder())
    return loaded.get(("vbench", "dreamsim", *paths), lambda: load_dreamsim(*paths))


def aesthetic_head(loaded: NetworkCache) -> nn.Linear:
    """LAION's linear head on CLIP ViT-L/14: 768 features to one number in about 0..10."""
    return _shared(
        loaded, "aesthetic", lambda path: _filled(nn.Linear(clip_tower(loaded, "clip_l14").width, 1), "aesthetic", path)
    )


def amt(loaded: NetworkCache) -> nn.Module:
    """AMT-S, which interpolates a frame between two."""
    return _shared(
        loaded,
        "amt",
        lambda path: _filled(vars(module("third_party.amt.networks.AMT-S"))["Model"](**AMT_S), "amt", path),
    )


def raft(loaded: NetworkCache) -> nn.Module:
    """RAFT trained on FlyingThings, optical flow between two frames."""
    return _shared(loaded, "raft", _raft)


def umt(loaded: NetworkCache) -> nn.Module:
    """UMT-L/16, Kinetics-400 actions of 16 frames."""
    return _shared(loaded, "umt", _umt)


def viclip(loaded: NetworkCache) -> Any:
    """ViCLIP-L with vbench's `encode_vision` and `encode_text`; text is cut at 32 tokens."""
    return _shared(
        loaded,
        "viclip",
        lambda path: _filled(module("third_party.ViCLIP.viclip").ViCLIP(pretrain=None), "viclip", path),
    )


def _raft(path: Path) -> nn.Module:
    network = module("third_party.RAFT.core.raft").RAFT(
        Namespace(small=False, mixed_precision=False, alternate_corr=False)
    )
    state = {key.removeprefix("module."): value for key, value in files.read(path).items()}
    return files.fill(network, state, path, FILES["raft"][1])


def _umt(path: Path) -> nn.Module:
    """The sizes are read from the file; positions are fixed sinusoids unless the file has its own.

    **Deviations:** vbench loads with strict=False and ignores missing weights; here a missing one is an error.
    """
    state = files.read(path)
    files.demand(state, ("patch_embed.proj.weight", "blocks.0.mlp.fc1.weight"), path, FILES["umt"][1])
    width = state["patch_embed.proj.weight"].shape[0]
    network = module("third_party.umt.models.modeling_finetune").VisionTransformer(
        patch_size=16,
        embed_dim=width,
        depth=len({key.split(".")[1] for key in state if key.startswith("blocks.")}),
        num_heads=width // UMT_HEAD_WIDTH,
        mlp_ratio=4,
        qkv_bias=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        num_classes=UMT_CLASSES,
        all_frames=UMT_FRAMES,
        tubelet_size=1,
        use_mean_pooling=True,
    )
    own = network.state_dict()
    kept = {key: value for key, value in state.items() if key in own}
    positions = {key: own[key] for key in ("pos_embed",) if key in own}
    return files.fill(network, positions | kept, path, FILES["umt"][1])


def _filled(network: nn.Module, name: str, path: Path) -> Any:
    return files.fill(network, files.read(path), path, FILES[name][1])


def _shared(loaded: NetworkCache, name: str, load: Callable[[Path], Any]) -> Any:
    path = require(name)
    return loaded.get(("vbench", name, path), lambda: load(path))


def on(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """A tensor where the network is."""
    return x.to(next(network.parameters()).device)

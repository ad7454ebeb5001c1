"""DINOv3's vision transformer, in its released files' names. Its input is normalised pictures.

It differs from DINOv2 (`dino`) in where positions come from: queries and keys of the patches are rotated by their place
in the picture, scaled to [-1, 1], so a picture may have any size. Four register tokens stand beside the class token.
Source: DINOv3 (arXiv 2508.10104); facebookresearch/dinov3, models/vision_transformer.py.
Dimensions: B picture, C colour channel, H, W pixel rows and columns, L token, D width, h head.

**Deviations**: none; the augmentations of the positions and drop-out are off, as at inference.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from astro_cli.models import network_files as files
from astro_cli.models.dino import HEAD_WIDTH, LayerScale, Mlp, PatchEmbed

BASE = 100.0  # of the wave lengths
EPS = 1e-5  # of the norms
UNUSED = ("mask_token", "bias_mask", "rope_embed.", "local_cls_norm.")  # training's; constants; the other norm of crops
WHAT = "a ViT backbone as facebookresearch/dinov3 releases it (dinov3_vitb16_pretrain_lvd1689m-*.pth)"
SIZED_BY = ("patch_embed.proj.weight", "storage_tokens", "blocks.0.norm1.weight", "blocks.0.attn.qkv.weight")


class _Attention(nn.Module):
    def __init__(self, width: int, biased: bool) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width, bias=biased), nn.Linear(width, width)

    def forward(self, x_BLD: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        q, k, v = (part.unflatten(-1, (-1, HEAD_WIDTH)).transpose(1, 2) for part in self.qkv(x_BLD).chunk(3, dim=-1))
        q, k = _rotated(q, cos, sin), _rotated(k, cos, sin)
        return self.proj(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def _rotated(x_BhLd: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """The last tokens, the patches, rotated; channel j and j + d / 2 are a pair."""
    other = x_BhLd.shape[2] - len(cos)
    x = x_BhLd[:, :, other:]
    first, second = x.chunk(2, -1)
    return torch.cat((x_BhLd[:, :, :other], x * cos + torch.cat((-second, first), -1) * sin), 2)


class _Block(nn.Module):
    def __init__(self, width: int, biased: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=EPS), nn.LayerNorm(width, eps=EPS)
        self.attn, self.mlp = _Attention(width, biased), Mlp(width)
        self.ls1, self.ls2 = LayerScale(width), LayerScale(width)

    def forward(self, x_BLD: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        x_BLD = x_BLD + self.ls1(self.attn(self.norm1(x_BLD), cos, sin))
        return x_BLD + self.ls2(self.mlp(self.norm2(x_BLD)))


class DinoV3(nn.Module):
    """Args: width, depth of the transformer, whose heads are 64 wide; side of a patch in pixels; register tokens."""

    def __init__(self, width: int, depth: int, patch: int, registers: int, biased: bool) -> None:
        super().__init__()
        self.patch = patch
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.storage_tokens = nn.Parameter(torch.zeros(1, registers, width))
        self.patch_embed = PatchEmbed(width, patch)
        self.blocks = nn.ModuleList([_Block(width, biased) for _ in range(depth)])
        self.norm = nn.LayerNorm(width, eps=EPS)

    def patches(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Normalised patch tokens (B, L, D) of normalised pictures."""
        grid = self.patch_embed.proj(x_BCHW)
        rows, columns = grid.shape[-2:]
        cos, sin = _positions(rows, columns, grid.device)
        own = (self.cls_token.expand(len(grid), -1, -1), self.storage_tokens.expand(len(grid), -1, -1))
        tokens = torch.cat((*own, grid.flatten(2).transpose(1, 2)), 1)
        for block in self.blocks:
            tokens = block(tokens, cos, sin)
        return self.norm(tokens)[:, 1 + self.storage_tokens.shape[1] :]


def _positions(rows: int, columns: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin (L, d) of the patches' angles: their centres, in [-1, 1] along each axis, times 2 pi over the wave
    length.
    """
    y, x = (2 * (torch.arange(count, device=device) + 0.5) / count - 1 for count in (rows, columns))
    centres_L2 = torch.stack(torch.meshgrid(y, x, indexing="ij"), -1).flatten(0, 1)
    quarter = HEAD_WIDTH // 4
    period = BASE ** (2 * torch.arange(quarter, device=device) / (HEAD_WIDTH // 2))
    angle = (2 * math.pi * centres_L2[:, :, None] / period).flatten(1).repeat(1, 2)
    return angle.cos(), angle.sin()


def load_dinov3(path: Path) -> DinoV3:
    """The backbone from its released file, ready for inference; sizes are read from the file.

    Raises:
        CheckpointError: not such a file.
    """
    read = files.read(path)
    state = {key: value for key, value in read.items() if not _is_unused(key)}
    files.demand(state, SIZED_BY, path, WHAT)
    width, _, _, patch = state["patch_embed.proj.weight"].shape
    depth = len({key.split(".")[1] for key in state if key.startswith("blocks.")})
    biased = "blocks.0.attn.qkv.bias" in state
    for key, value in read.items():  # the bias of keys is masked out
        if key.endswith("attn.qkv.bias_mask"):
            state[key.removesuffix("_mask")] = state[key.removesuffix("_mask")] * value.nan_to_num(0.0)
    network = DinoV3(width, depth, patch, state["storage_tokens"].shape[1], biased)
    files.fill(network, state, path, WHAT)
    return network


def _is_unused(key: str) -> bool:
    return any(part in key for part in UNUSED)

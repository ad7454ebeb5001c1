"""DINO and DINOv2's vision transformer, in their released files' names. Its input is normalised pictures.

timm's copies are not used: they refuse the 14 x 24 patches that VBench feeds them, or pad them to 25 columns.
Dimensions: B picture, C colour channel, H, W pixel rows and columns, L token, D width, h head.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from astro_cli.models import network_files as files
from astro_cli.zoo.places import checkpoints_folder

DINOV2 = "eval/dino_model/dinov2_vitl14_pretrain.pth"  # below the checkpoints folder
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FRAMES_AT_ONCE = 32
HEAD_WIDTH = 64  # of every released size
GRID_OFFSET = 0.1  # DINO's own guard against a grid that rounds down by one
UNUSED = {"mask_token"}  # DINOv2's training
WHAT = (
    "a backbone as facebookresearch/dino or dinov2 releases it (dino_vitbase16_pretrain.pth, "
    "dinov2_vitb14_pretrain.pth)"
)
SIZED_BY = ("patch_embed.proj.weight", "pos_embed", "blocks.0.norm1.weight")


class LayerScale(nn.Module):
    """A learnt factor per channel; DINOv2 has it, DINO does not."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x_BLD: torch.Tensor) -> torch.Tensor:
        return x_BLD * self.gamma


class SelfAttention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x_BLD: torch.Tensor) -> torch.Tensor:
        q_BhLd, k_BhLd, v_BhLd = (
            part.unflatten(-1, (-1, HEAD_WIDTH)).transpose(1, 2) for part in self.qkv(x_BLD).chunk(3, dim=-1)
        )
        return self.proj(functional.scaled_dot_product_attention(q_BhLd, k_BhLd, v_BhLd).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.act: nn.Module = nn.GELU()

    def forward(self, x_BLD: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.act(self.fc1(x_BLD)))


class Block(nn.Module):
    def __init__(self, width: int, scaled: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn, self.mlp = SelfAttention(width), Mlp(width)
        self.ls1, self.ls2 = (LayerScale(width) if scaled else nn.Identity() for _ in range(2))

    def forward(self, x_BLD: torch.Tensor) -> torch.Tensor:
        x_BLD = x_BLD + self.ls1(self.attn(self.norm1(x_BLD)))
        return x_BLD + self.ls2(self.mlp(self.norm2(x_BLD)))


class PatchEmbed(nn.Module):
    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, kernel_size=patch, stride=patch)


class Dino(nn.Module):
    """ViT whose picture may have any size of at least one patch; rows and columns that fill no patch are left out.

    Args:
        width, depth: of the transformer; heads are 64 wide.
        patch: side of a patch in pixels.
        grid: patches per side of the positions it was trained with.
        scaled: DINOv2's LayerScale.

    Source: arXiv 2104.14294 and 2304.07193; facebookresearch/dino, vision_transformer.py; facebookresearch/dinov2,
        models/vision_transformer.py.
    **Deviations:** none; no drop-out or stochastic depth, which are off at inference.
    """

    def __init__(self, width: int, depth: int, patch: int, grid: int, scaled: bool) -> None:
        super().__init__()
        self.patch, self.grid = patch, grid
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid * grid, width))
        self.patch_embed = PatchEmbed(width, patch)
        self.blocks = nn.ModuleList([Block(width, scaled) for _ in range(depth)])
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Class tokens (B, D) of normalised pictures."""
        return self.norm(self.tokens(x_BCHW))[:, 0]

    def patches(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Normalised patch tokens (B, L, D) of normalised pictures."""
        return self.norm(self.tokens(x_BCHW))[:, 1:]

    def tokens(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """What the last block gives (B, L, D), class token first, before the closing norm."""
        x_BLD = self.embedded(x_BCHW)
        for block in self.blocks:
            x_BLD = block(x_BLD)
        return x_BLD

    def embedded(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """What the first block takes (B, L, D): class token and patches with their positions."""
        patches_BDhw = self.patch_embed.proj(x_BCHW)
        tokens_BLD = patches_BDhw.flatten(2).transpose(1, 2)
        return torch.cat([self.cls_token.expand(len(tokens_BLD), -1, -1), tokens_BLD], dim=1) + self._positions(
            *patches_BDhw.shape[-2:]
        )

    def _positions(self, rows: int, columns: int) -> torch.Tensor:
        """The trained positions, resized bicubically to this grid of patches, by the released code's scale factors."""
        if rows == columns == self.grid:
            return self.pos_embed
        square = self.pos_embed[:, 1:].unflatten(1, (self.grid, self.grid)).permute(0, 3, 1, 2)
        factors = ((rows + GRID_OFFSET) / self.grid, (columns + GRID_OFFSET) / self.grid)
        resized = functional.interpolate(square, scale_factor=factors, mode="bicubic")
        return torch.cat([self.pos_embed[:, :1], resized.flatten(2).transpose(1, 2)], dim=1)


def load_dino(path: Path) -> Dino:
    """DINO's or DINOv2's backbone from its released file, ready for inference; sizes are read from the file.

    Raises:
        CheckpointError: not such a file.
    """
    state = {key: value for key, value in files.read(path).items() if key not in UNUSED}
    network = Dino(*sizes(state, path, WHAT), scaled="blocks.0.ls1.gamma" in state)
    files.fill(network, state, path, WHAT)
    return network


def patch_features(network: Dino, frames_BTCHW: torch.Tensor) -> torch.Tensor:
    """Features (B, T, D, h, w) of every patch of frames in [0, 1], after the closing norm; frames are first resized to
    the nearest whole patches.
    """
    frames = frames_BTCHW.flatten(0, 1)
    size = [max(1, round(side / network.patch)) * network.patch for side in frames.shape[-2:]]
    mean, std = (frames.new_tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    features = []
    for part in frames.split(FRAMES_AT_ONCE):
        pictures = (functional.interpolate(part, size, mode="bilinear", antialias=True) - mean) / std
        features.append(network.patches(pictures).mT.unflatten(2, [side // network.patch for side in size]))
    return torch.cat(features).unflatten(0, frames_BTCHW.shape[:2])


def missing_dinov2() -> str:
    """DINOv2 ViT-L/14: what to put where, "" where it is there."""
    place = checkpoints_folder() / DINOV2
    return "" if place.is_file() else f"put {place.name} of facebookresearch/dinov2 at {place}"


def load_dinov2() -> Dino:
    """Raises: CheckpointError: no such file, or not that network."""
    return load_dino(checkpoints_folder() / DINOV2)


def sizes(state: files.State, path: Path, what: str) -> tuple[int, int, int, int]:
    """Width, depth, patch and grid of a network in these names.

    Raises:
        CheckpointError: other names.
    """
    files.demand(state, SIZED_BY, path, what)
    width, _, _, patch = state["patch_embed.proj.weight"].shape
    depth = len({key.split(".")[1] for key in state if key.startswith("blocks.")})
    return width, depth, patch, round((state["pos_embed"].shape[1] - 1) ** 0.5)

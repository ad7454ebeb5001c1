"""ViCLIP and VideoCLIP-XL: a video transformer with joint space-time attention beside a CLIP text tower, from their
released files.

Dimensions: B clip, T frame, C colour channel, H, W pixel rows and columns, P patch of a frame, L token of all frames, D
feature, M prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from open_clip.transformer import QuickGELU, TextTransformer, Transformer
from torch import nn
from torch.nn import functional as F

from astro_cli.config.errors import CheckpointError
from astro_cli.models import network_files as files
from eval.contract import NetworkCache
from eval.networks.clip import HEAD_WIDTH, Texts, layers, merge_tables, text_sizes
from eval.networks.words import TooLong, tokenize

VISION_SIZED_BY = ("conv1.weight", "positional_embedding", "temporal_positional_embedding", "proj")
TEXT_SIZED_BY = ("positional_embedding", "token_embedding.weight", "ln_final.weight", "text_projection")


@dataclass(frozen=True)
class FileLayout:
    """Where a release keeps its two loaded, and how many tokens its text tower reads."""

    vision: str
    text: str
    context: int
    release: str


VIDEOCLIP_XL = FileLayout("vision_model.vision_encoder.", "text_model.", 248, "VideoCLIP-XL.bin")
VICLIP = FileLayout("vision_encoder.", "text_encoder.", 32, "ViClip-InternVid-10M-FLT.pth")


@dataclass(frozen=True)
class VisionSizes:
    side: int  # of the square frames, pixels
    patch: int
    width: int
    layers: int
    frames: int  # rows of the temporal table
    features: int


class VisionEncoder(nn.Module):
    """Every patch of every frame attends to every other; one class token gives the clip's feature.

    Source: ViCLIP (InternVid, Wang et al. 2307.06942), released `VisionTransformer`. **Deviations:** no masking and no
        dropout, which serve training.
    """

    def __init__(self, sizes: VisionSizes) -> None:
        super().__init__()
        width, patch = sizes.width, sizes.patch
        self.side = sizes.side
        self.conv1 = nn.Conv3d(3, width, (1, patch, patch), (1, patch, patch), bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros((sizes.side // patch) ** 2 + 1, width))
        self.temporal_positional_embedding = nn.Parameter(torch.zeros(1, sizes.frames, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = Transformer(width, sizes.layers, width // HEAD_WIDTH, act_layer=QuickGELU)
        self.proj = nn.Parameter(torch.zeros(width, sizes.features))

    def forward(self, x_BTCHW: torch.Tensor) -> torch.Tensor:
        """Features (B, D). T is the temporal table's length, or 1, where the table's mean is used."""
        x_BDTHW = self.conv1(x_BTCHW.transpose(1, 2))
        x_BTPD = x_BDTHW.flatten(3).permute(0, 2, 3, 1) + self.positional_embedding[1:]
        table_1TD = self.temporal_positional_embedding
        x_BTPD = x_BTPD + (table_1TD if x_BTPD.shape[1] > 1 else table_1TD.mean(1, keepdim=True)).unsqueeze(2)
        class_B1D = (self.class_embedding + self.positional_embedding[0]).expand(len(x_BTPD), 1, -1)
        x_BLD = self.transformer(self.ln_pre(torch.cat([class_B1D, x_BTPD.flatten(1, 2)], dim=1)))
        return self.ln_post(x_BLD[:, 0]) @ self.proj


class VideoTower:
    """Both loaded of one file, in float32."""

    def __init__(self, vision: VisionEncoder, text: TextTransformer) -> None:
        self.vision, self.text = vision, text
        self.device = vision.proj.device
        self.side = vision.side
        self.frames = int(vision.temporal_positional_embedding.shape[1])
        self.context = int(text.positional_embedding.shape[0])

    @torch.no_grad()
    def videos(self, x_BTCHW: torch.Tensor) -> torch.Tensor:
        """Normalised frames (the release's own mean and deviation) -> features (B, D) of length 1, on the CPU."""
        return F.normalize(self.vision(x_BTCHW.to(self.device)), dim=-1).cpu()

    @torch.no_grad()
    def texts(self, prompts: Sequence[str], too_long: TooLong, where: str | Path) -> Texts:
        """Features of length 1, on the CPU. Raises: ScoreError: an empty or too long prompt."""
        words = tokenize(prompts, self.context, too_long, where)
        return Texts(F.normalize(self.text(words.tokens_BM.to(self.device)), dim=-1).cpu(), words)


def shared(loaded: NetworkCache, path: Path, layout: FileLayout) -> VideoTower:
    """The tower of a file, built once per run."""
    return loaded.get(("viclip", path), lambda: load(path, layout))


def load(path: Path, layout: FileLayout) -> VideoTower:
    """Both loaded of any width and depth from one file; the temperature in it is left out.

    Raises:
        CheckpointError: not this release.

    Source: VideoCLIP-XL, Wang et al. 2410.00741 (text tower: Long-CLIP-L, 248 tokens); ViCLIP (32 tokens).
    **Deviations:** float32 whatever the file holds.
    """
    state = files.read(path)
    vision, text = files.below(state, layout.vision), files.below(state, layout.text)
    files.demand(state, tuple(layout.vision + name for name in VISION_SIZED_BY), path, layout.release)
    files.demand(state, tuple(layout.text + name for name in TEXT_SIZED_BY), path, layout.release)
    text = {name: value for name, value in merge_tables(text).items() if name != "logit_scale"}
    context = len(text["positional_embedding"])
    if context != layout.context:
        key = f"{layout.text}positional_embedding"
        raise CheckpointError(
            path, key, f"{context} text positions, expected {layout.context}", hint=f"expected {layout.release}"
        )
    return VideoTower(_vision(vision, path, layout), _text(text, path, layout))


def _vision(state: files.State, path: Path, layout: FileLayout) -> VisionEncoder:
    width, _, _, _, patch = state["conv1.weight"].shape
    grid = round((len(state["positional_embedding"]) - 1) ** 0.5)
    frames, features = int(state["temporal_positional_embedding"].shape[1]), int(state["proj"].shape[1])
    encoder = VisionEncoder(VisionSizes(grid * patch, patch, width, layers(state), frames, features))
    files.fill(encoder, state, path, f"{layout.release}: {layout.vision}*")
    return encoder


def _text(state: files.State, path: Path, layout: FileLayout) -> TextTransformer:
    sizes = text_sizes(state)
    tower = TextTransformer(
        context_length=sizes.context_length,
        vocab_size=sizes.vocab_size,
        width=sizes.width,
        heads=sizes.heads,
        layers=sizes.layers,
        output_dim=int(state["text_projection"].shape[1]),
        act_layer=QuickGELU,
    )
    files.fill(tower, state, path, f"{layout.release}: {layout.text}*")
    return tower

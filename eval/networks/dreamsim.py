"""DreamSim, a perceptual similarity: its released files to one embedding per picture.

Dimensions: B picture, C colour channel, S side of the square network input, L token, D feature.
"""

from __future__ import annotations

from pathlib import Path

import torch
from open_clip.transformer import QuickGELU
from torch import nn
from torch.nn import functional

from astro_cli.config.errors import CheckpointError
from astro_cli.models import network_files as files
from astro_cli.models.dino import WHAT, Dino, Mlp, sizes
from astro_cli.models.lora_files import Lora, read_lora
from astro_cli.models.lora_merge import merge_loras
from astro_cli.models.tensor_files import some
from eval.networks.dreamsim_names import CLIP, LORA, OPEN_CLIP
from eval.networks.pictures import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD, normalise

CLIP_EPS = 1e-5  # of CLIP's norms; DINO's are 1e-6
BRANCH = "extractor_list.{}.model."  # a network's names in the adapter: 0 DINO, 1 CLIP, 2 OpenCLIP
TUNED = ".attn.qkv"
CLIP_WHAT = f"CLIP ViT-B/16 in DINO's names, as DreamSim releases it ({CLIP}, {OPEN_CLIP})"
OLD = "adapters of dreamsim 0.1 have other shapes: take those of release v0.2.0-checkpoints"


class ClipVit(Dino):
    """CLIP's picture tower in DINO's names: a norm before the first block (`pos_drop`), and the projection `proj` of
    the class token.

    Args:
        features: width after the projection.
        quick: x sigmoid(1.702 x) in place of GELU, as OpenAI trained; OpenCLIP's LAION weights have GELU.

    Source: dreamsim 0.2.1, feature_extraction/load_clip_as_dino.py, load_open_clip_as_dino.py.
    **Deviations:** none.
    """

    def __init__(self, width: int, depth: int, patch: int, grid: int, features: int, quick: bool) -> None:
        super().__init__(width, depth, patch, grid, scaled=False)
        self.pos_drop = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.zeros(width, features))
        for module in self.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = CLIP_EPS
            if quick and isinstance(module, Mlp):
                module.act = QuickGELU()

    def forward(self, x_BCSS: torch.Tensor) -> torch.Tensor:
        """Features (B, D) of normalised pictures, not of length 1."""
        return super().forward(x_BCSS) @ self.proj

    def embedded(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return self.pos_drop(super().embedded(x_BCHW))


class DreamSim(nn.Module):
    """The ensemble: DINO's class token before its closing norm, CLIP's and OpenCLIP's features, one after the other.

    Source: DreamSim, arXiv 2306.09344; dreamsim 0.2.1, model.py, PerceptualModel, `dreamsim_type="ensemble"`.
    **Deviations:** the adapter is folded into the weights, where the released code runs it beside them; equal to
    rounding. DINO's backbone is read from facebookresearch's file, which the released code has torch.hub fetch together
    with code that it runs.
    """

    def __init__(self, dino: Dino, clip: ClipVit, open_clip: ClipVit) -> None:
        super().__init__()
        self.dino, self.clip, self.open_clip = dino, clip, open_clip

    def forward(self, x_BCSS: torch.Tensor) -> torch.Tensor:
        """Pictures in 0..1, 224 x 224 as trained -> embeddings (B, D) of mean 0 and length 1."""
        for_dino, for_clip = normalise(x_BCSS, IMAGENET_MEAN, IMAGENET_STD), normalise(x_BCSS, CLIP_MEAN, CLIP_STD)
        x_BD = torch.cat([self.dino.tokens(for_dino)[:, 0], self.clip(for_clip), self.open_clip(for_clip)], dim=-1)
        return functional.normalize(x_BD - x_BD.mean(dim=-1, keepdim=True), dim=-1)


def load(dino: Path, folder: Path) -> DreamSim:
    """The ensemble with its adapter folded in; sizes are read from the files.

    Args:
        dino: DINO ViT-B/16's backbone as facebookresearch/dino releases it.
        folder: the unpacked archive; see `eval.networks.dreamsim_names`.

    Raises:
        CheckpointError: a file is missing, unsafe, of another network, or the adapter does not fit.
    """
    paths = (dino, folder / CLIP, folder / OPEN_CLIP)
    states = _merged([files.read(path) for path in paths], read_lora(folder / LORA))
    backbone = Dino(*sizes(states[0], dino, WHAT), scaled=False)
    files.fill(backbone, states[0], dino, WHAT)
    return DreamSim(backbone, _clip(states[1], paths[1], quick=True), _clip(states[2], paths[2], quick=False))


def _merged(states: list[files.State], lora: Lora) -> list[files.State]:
    """The networks' weights with the adapter, in float32. Raises: CheckpointError: it does not change just their qkv
    layers.
    """
    named = {
        BRANCH.format(index) + name: value.float()
        for index, state in enumerate(states)
        for name, value in state.items()
    }
    merged = merge_loras(named, [lora])
    tuned = {name.removesuffix(".weight") for name in named if name.endswith(f"{TUNED}.weight")}
    if lora.pairs.keys() != tuned:
        lost, strange = sorted(tuned - lora.pairs.keys()), sorted(lora.pairs.keys() - tuned)
        what = (
            f"lacks {len(lost)} of {len(tuned)} layers: {some(lost)}"
            if lost
            else f"changes other layers: {some(strange)}"
        )
        raise CheckpointError(
            lora.source, "", f"{what}; expected every {TUNED.removeprefix('.')} of the three networks", hint=OLD
        )
    return [files.below(merged, BRANCH.format(index)) for index in range(len(states))]


def _clip(state: files.State, path: Path, quick: bool) -> ClipVit:
    files.demand(state, ("proj",), path, CLIP_WHAT)
    network = ClipVit(*sizes(state, path, CLIP_WHAT), features=state["proj"].shape[1], quick=quick)
    files.fill(network, state, path, CLIP_WHAT)
    return network

"""CLIP and Long-CLIP: released files to normalised image and text features, for every scorer that needs them.

Dimensions: N frame, M prompt, D feature, L position of the text tower.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from torch.nn import functional as F

from astro_cli.config.errors import CheckpointError
from astro_cli.models import network_files as files
from eval.contract import NetworkCache
from eval.networks.clip_names import FORMS, Form, file_names
from eval.networks.pictures import Resize, clip_input
from eval.networks.weights_paths import require
from eval.networks.words import TooLong, Words, tokenize

HEAD_WIDTH = 64  # of every released CLIP, in both loaded
KEPT = 20  # Long-CLIP's positions below it come from the first table, the others from the second
SECOND_TABLE = "positional_embedding_res"
NOT_WEIGHTS = (
    "input_resolution",
    "context_length",
    "vocab_size",
)  # numbers that OpenAI's archives hold beside the weights
SIZED_BY = (
    "visual.conv1.weight",
    "visual.positional_embedding",
    "visual.proj",
    "positional_embedding",
    "token_embedding.weight",
    "ln_final.weight",
    "text_projection",
)
WHAT = "OpenAI's names of a CLIP vision transformer"


@dataclass(frozen=True)
class Texts:
    """Normalised text features (M, D), and what became of the prompts."""

    features_MD: torch.Tensor
    words: Words


class ClipTower:
    """Both loaded of one file, in float32."""

    def __init__(self, model: CLIP, path: Path) -> None:
        self.model, self.path = model, path
        sizes = {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}
        self.device = model.logit_scale.device
        self.context, self.width = sizes["positional_embedding"][0], sizes["text_projection"][1]
        side = model.visual.image_size
        self.side = int(side[0] if isinstance(side, tuple) else side)

    @torch.no_grad()
    def images(self, frames_NHWC: np.ndarray, resize: Resize = "pil") -> torch.Tensor:
        """uint8 RGB frames (N, H, W, 3) -> features (N, D) of length 1, on the CPU."""
        x_NCHW = clip_input(frames_NHWC, self.side, resize).to(self.device)
        return F.normalize(self.model.encode_image(x_NCHW), dim=-1).cpu()

    @torch.no_grad()
    def texts(self, prompts: Sequence[str], too_long: TooLong, where: str | Path) -> Texts:
        """Features of length 1, on the CPU. Raises: ScoreError: an empty or too long prompt."""
        words = tokenize(prompts, self.context, too_long, where)
        return Texts(F.normalize(self.model.encode_text(words.tokens_BM.to(self.device)), dim=-1).cpu(), words)


def shared(loaded: NetworkCache, name: str) -> ClipTower:
    """The tower `name` of `FORMS` from the checkpoints folder, built once per run."""
    path = require(*file_names(name))
    return loaded.get(("clip", path), lambda: load(path, FORMS[name]))


def load(path: Path, form: Form) -> ClipTower:
    """A tower of any width and depth; patch size and context tell one release from another.

    Raises:
        CheckpointError: not a CLIP vision transformer, or not this one.

    Source: OpenAI CLIP; Long-CLIP, Zhang et al. 2403.15378. **Deviations:** float32 whatever the file holds (OpenAI:
        float16 on GPUs).
    """
    state = {name: value for name, value in files.read(path).items() if name not in NOT_WEIGHTS}
    files.demand(state, SIZED_BY, path, WHAT)
    state = merge_tables(state)
    _check_form(state, form, path)
    model = CLIP(int(state["text_projection"].shape[1]), vision_sizes(state), text_sizes(state), quick_gelu=True)
    files.fill(model, state, path, WHAT)
    return ClipTower(model, path)


def merge_tables(state: files.State) -> files.State:
    """Long-CLIP's two position tables as one: rows below 20 of the first, the others of the second. Files with one
    table pass through.

    Source: Long-CLIP, 2403.15378, section 3.2, and its released `encode_text`, which adds both under complementary
        masks; the sum is this table.
    **Deviations:** none.
    """
    if SECOND_TABLE not in state:
        return state
    merged = {name: value for name, value in state.items() if name != SECOND_TABLE}
    merged["positional_embedding"] = torch.cat([state["positional_embedding"][:KEPT], state[SECOND_TABLE][KEPT:]])
    return merged


def _check_form(state: files.State, form: Form, path: Path) -> None:
    patch, context = int(state["visual.conv1.weight"].shape[-1]), len(state["positional_embedding"])
    if patch != form.patch:
        raise CheckpointError(
            path,
            "visual.conv1.weight",
            f"patches of {patch} pixels, expected {form.patch}",
            hint=f"expected {form.release}",
        )
    if context != form.context:
        raise CheckpointError(
            path,
            "positional_embedding",
            f"{context} text positions, expected {form.context}",
            hint=f"expected {form.release}",
        )


def vision_sizes(state: files.State) -> CLIPVisionCfg:
    width, _, _, patch = state["visual.conv1.weight"].shape
    grid = round((len(state["visual.positional_embedding"]) - 1) ** 0.5)
    return CLIPVisionCfg(
        layers=layers(state, "visual."), width=width, head_width=HEAD_WIDTH, patch_size=patch, image_size=patch * grid
    )


def text_sizes(state: files.State) -> CLIPTextCfg:
    vocabulary, width = state["token_embedding.weight"].shape
    context = len(state["positional_embedding"])
    return CLIPTextCfg(
        context_length=context, vocab_size=vocabulary, width=width, heads=width // HEAD_WIDTH, layers=layers(state)
    )


def layers(state: files.State, prefix: str = "") -> int:
    start = f"{prefix}transformer.resblocks."
    return len({name.removeprefix(start).split(".")[0] for name in state if name.startswith(start)})

"""Relatives of Wan 2.1 text-to-video whose files look alike, and how each is recognised. Free of torch.

Source: config.json, model_index.json and file names of Wan-AI's and diffusers' releases of Wan 2.1, Wan 2.2 and VACE.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from astro_cli.config.errors import CheckpointError
from astro_cli.config.files import Reader

EXPECTED = "expected text-to-video of Wan 2.1"
# Wan 2.2 A14B denoises with one network at high noise and with another below a boundary.
PAIRS = (("transformer", "transformer_2"), ("high_noise_model", "low_noise_model"))
EXPERT = re.compile(r"(high|low)[_-]?noise", re.IGNORECASE)
ONE_OF_TWO = "one of Wan 2.2's two transformers, for high and for low noise"
TWO = "half of a Wan 2.2 model with two transformers, one for high and one for low noise"
TYPES = {  # `model_type` of original files
    "i2v": "an image-to-video model",
    "flf2v": "a model of first and last frames",
    "vace": "a VACE model",
    "ti2v": "the text-image-to-video model of Wan 2.2",
    "s2v": "a speech-to-video model",
    "animate": "an animation model",
}
CLASSES = {"vace": "vace", "animate": "animate", "s2v": "s2v"}  # in `_class_name` of either layout
TENSORS = {"vace_": "vace", "img_emb.": "i2v", "condition_embedder.image_embedder.": "i2v"}  # beginnings of names
CHANNELS = {36: "i2v", 48: "ti2v"}  # that the first layer takes


def of_config(data: Mapping[str, Any]) -> str:
    """What a config.json that is not of Wan 2.1 text-to-video says it is; "" for one that is, or that is of no Wan."""
    named = str(data.get("_class_name", "")).lower()
    kind = next((kind for part, kind in CLASSES.items() if part in named), "")
    kind = kind or ("vace" if data.get("vace_layers") else "i2v" if data.get("image_dim") else "")
    return TYPES.get(kind) or TYPES.get(str(data.get("model_type")), "")


def of_tensors(names: Iterable[str], channels: int) -> str:
    """As `of_config`, from the tensors' names and the channels of the first layer."""
    kind = next((kind for name in names for start, kind in TENSORS.items() if name.startswith(start)), None)
    return TYPES.get(kind or CHANNELS.get(channels, ""), "")


def half_of(place: Path) -> str:
    """What a file or folder is half of; "" where it is whole.

    A pipeline's model_index.json counts too: the other half need not be here.
    """
    folder = place if place.is_dir() else place.parent
    if EXPERT.search(place.name) or (not place.is_dir() and EXPERT.search(folder.name)):
        return TWO
    for root in (folder, folder.parent):
        here = [(a, b) for a, b in PAIRS if (root / a).is_dir() and (root / b).is_dir()]
        if any(root == folder or folder.name in pair for pair in here):
            return TWO
        if root == folder or folder.name == PAIRS[0][0]:
            index = _index(root / "model_index.json")
            second = index.get(PAIRS[0][1])
            if index.get("boundary_ratio") is not None or (isinstance(second, list) and any(second)):
                return TWO
    return ""


def _index(path: Path) -> dict[str, Any]:
    """A pipeline's index; empty where there is none."""
    try:
        return Reader(CheckpointError).table(path)
    except CheckpointError:
        return {}

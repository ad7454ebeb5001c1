"""Names of tensors in LoRA files -> layer and part, as peft, diffusers, kohya, ComfyUI and the releases write them.

| part | written as | changes |
|---|---|---|
| a, b | `lora_A`, `lora_B` (`lora_down`, `lora_up`); an adapter's name may follow | the layer's weight, by scale B A |
| alpha | `alpha` | the scale |
| difference | `diff`, `diff_b`, `diff_m` | weight, bias, or a block's modulation, by itself |

Source: the file layouts of peft, diffusers, kohya's sd-scripts, ComfyUI and LightX2V's distilled Wan LoRAs.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from astro_cli.models.wan import keys

PREFIXES = ("base_model.model.", "transformer.", "pipe.dit.", *keys.PREFIXES)
PAIR = re.compile(
    r"^(?P<layer>.+?)\.(?:(?P<a>lora_A|lora_down|lora\.down)|(?P<b>lora_B|lora_up|lora\.up))"
    r"(?:\.(?P<adapter>[^.]+))?\.weight$"
)
DIFFERENCES = {"diff": "weight", "diff_b": "bias", "diff_m": "modulation"}  # of a layer: the parameter that changes
OTHER_METHODS = {  # what a part's name says of the method
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "hada_": "LoHa",
    "lokr_": "LoKr",
    "oft_": "OFT",
    "lora_mid": "LoCon with a core",
    "lora_embedding": "LoRA of an embedding",
}
OF_IMAGES = "_img"  # in names of layers that only image-to-video models have: k_img, v_img, norm_k_img
# kohya joins a layer's name with underscores, some writers only its first part.
FLAT = re.compile(r"^(?:lora_unet|lora_transformer|lycoris)_")
BLOCK = re.compile(r"^blocks_(\d+)(?:_(.+))?$")
_ATTENTIONS = {
    "self_attn": ("q", "k", "v", "o", "norm_q", "norm_k"),
    "cross_attn": ("q", "k", "v", "o", "norm_q", "norm_k"),
    "attn1": ("to_q", "to_k", "to_v", "to_out.0", "norm_q", "norm_k"),
    "attn2": ("to_q", "to_k", "to_v", "to_out.0", "norm_q", "norm_k"),
}
_IN_BLOCKS = (
    *(f"{part}.{leaf}" for part, leaves in _ATTENTIONS.items() for leaf in leaves),
    *("ffn.0", "ffn.2", "ffn.net.0.proj", "ffn.net.2", "norm2", "norm3"),
)
_OUTSIDE = (
    *("patch_embedding", "text_embedding.0", "text_embedding.2", "time_embedding.0", "time_embedding.2"),
    *("time_projection.1", "head", "head.head", "proj_out", "condition_embedder.time_proj"),
    *(f"condition_embedder.{part}_embedder.linear_{place}" for part in ("text", "time") for place in (1, 2)),
)
IN_BLOCKS = {name.replace(".", "_"): name for name in _IN_BLOCKS}
OUTSIDE = {name.replace(".", "_"): name for name in _OUTSIDE}


class Place(NamedTuple):
    """Where a tensor belongs.

    Attributes:
        layer: as the file names it, but for prefixes and underscores.
        part: a, b, alpha, or of a difference the parameter: weight, bias, modulation.
        adapter: its name in the file, "" for none.
    """

    layer: str
    part: str
    adapter: str = ""


def place(key: str) -> Place | None:
    """Where a tensor of this name belongs; None: it is no part of a LoRA."""
    if match := PAIR.match(key):
        return Place(_layer(match["layer"]), "a" if match["a"] else "b", match["adapter"] or "")
    layer, _, part = key.rpartition(".")
    if layer and (part == "alpha" or part in DIFFERENCES):
        return Place(_layer(layer), DIFFERENCES.get(part, part))
    return None


def method_of(key: str) -> str:
    """The method whose part a tensor of this name is, e.g. "DoRA"; "" where it is of none we know."""
    return next((method for part, method in OTHER_METHODS.items() if part in key), "")


def parameter(layer: str, leaf: str = "weight") -> str:
    """diffusers' name of a layer's parameter; the layer is named as in either layout."""
    return keys.to_diffusers(f"{layer}.{leaf}")


def _layer(name: str) -> str:
    name = keys.plain(name, PREFIXES)
    if not FLAT.match(name):
        return name
    flat = FLAT.sub("", name).replace(".", "_")
    if block := BLOCK.match(flat):
        number, leaf = block.groups()
        return f"blocks.{number}" if leaf is None else f"blocks.{number}.{IN_BLOCKS.get(leaf, leaf)}"
    return OUTSIDE.get(flat, flat)

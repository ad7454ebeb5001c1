"""Sizes of a Wan transformer from its tensors' shapes and from the config.json of either layout, compared. Tensors'
values are never read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from astro_cli.config.base import Config, validate
from astro_cli.config.errors import CheckpointError
from astro_cli.config.files import Reader
from astro_cli.config.problems import first_problem
from astro_cli.models.wan import relatives
from astro_cli.models.wan.config import WanConfig

T2V_HINT = (
    "use the T2V weights of Wan 2.1, or a model made from them; a picture opens the videos of any of its students: "
    "astro sample PROMPT --image FILE --weights causal_forcing_framewise"
)
HEAD_WIDTH = {1536: 128, 3072: 128, 5120: 128}  # of the released widths
NAMES = {(1536, 30): "1.3B", (5120, 40): "14B"}  # by width and number of layers
PATCH, FEED = "patch_embedding.weight", "blocks.0.ffn.net.0.proj.weight"
HEAD = "proj_out.weight"
TEXT, TIME = "condition_embedder.text_embedder.linear_1.weight", "condition_embedder.time_embedder.linear_1.weight"
BLOCK = re.compile(r"blocks\.([0-9]{1,9})\.")
BY_SHAPE = ("dim", "ffn_dim", "num_layers", "in_channels", "extra_channels", "patch", "freq_dim", "text_dim")
COMPARED = (*BY_SHAPE, "num_heads", "eps")  # text_len is no property of the weights
ORIGINAL = {
    "dim": "dim",
    "ffn_dim": "ffn_dim",
    "num_heads": "num_heads",
    "num_layers": "num_layers",
    "in_dim": "in_channels",
    "freq_dim": "freq_dim",
    "text_dim": "text_dim",
    "text_len": "text_len",
    "eps": "eps",
}
DIFFUSERS = {
    "ffn_dim": "ffn_dim",
    "num_attention_heads": "num_heads",
    "num_layers": "num_layers",
    "in_channels": "in_channels",
    "freq_dim": "freq_dim",
    "text_dim": "text_dim",
    "eps": "eps",
}


class Shaped(Protocol):
    """A tensor, or what will be read as one."""

    @property
    def shape(self) -> tuple[int, ...]: ...


def from_shapes(tensors: Mapping[str, Shaped], where: Path) -> dict[str, Any]:
    """The fields of `WanConfig` that shapes tell: all but num_heads, eps and text_len. Names are diffusers'.

    Raises:
        CheckpointError: no Wan transformer, or one without the tensors that tell its sizes.
    """
    layers = [int(match[1]) for key in tensors if (match := BLOCK.match(key))]
    lost = [key for key in (PATCH, FEED, TEXT, TIME) if key not in tensors]
    if len(lost) == 4 or not layers:
        tops = ", ".join(sorted({key.split(".")[0] for key in tensors})[:8]) or "nothing"
        raise CheckpointError(
            where,
            "",
            f"no Wan transformer: found {tops}; expected patch_embedding, condition_embedder, blocks, proj_out",
        )
    if lost:
        raise CheckpointError(where, lost[0], f"missing: {len(lost)} of the tensors that tell the model's sizes")
    odd = [key for key, rank in ((PATCH, 5), (FEED, 2), (TEXT, 2), (TIME, 2)) if len(tensors[key].shape) != rank]
    if odd:
        raise CheckpointError(where, odd[0], f"is {tuple(tensors[odd[0]].shape)}, which no Wan transformer has")
    if gap := next((number for number, layer in enumerate(sorted(set(layers))) if number != layer), None):
        what = f"missing: the file has {len(set(layers))} blocks, one of them is number {max(layers)}"
        raise CheckpointError(where, f"blocks.{gap}", what)
    patch, feed = tensors[PATCH].shape, tensors[FEED].shape
    if relative := relatives.of_tensors(tensors, patch[1]):
        raise CheckpointError(where, "", f"{relative}, {relatives.EXPECTED}", hint=T2V_HINT)
    return {
        "dim": patch[0],
        **_channels(tensors, patch),
        "patch": tuple(patch[3:]),
        "ffn_dim": feed[0],
        "num_layers": max(layers) + 1,
        "text_dim": tensors[TEXT].shape[1],
        "freq_dim": tensors[TIME].shape[1],
    }


def _channels(tensors: Mapping[str, Shaped], patch: tuple[int, ...]) -> dict[str, int]:
    """The latent's channels, as the head gives them, and those of conditions behind them."""
    latent = tensors[HEAD].shape[0] // (patch[3] * patch[4]) if HEAD in tensors else patch[1]
    extra = patch[1] - latent
    return (
        {"in_channels": latent, "extra_channels": extra}
        if extra > 0
        else {"in_channels": patch[1], "extra_channels": 0}
    )


def declared(path: Path) -> dict[str, Any]:
    """The fields of `WanConfig` that a config.json gives: diffusers' or the original layout, or a run's card with its
    `model` table.

    Raises:
        CheckpointError: unreadable, or of another kind of model.
    """
    data = Reader(CheckpointError, what="no readable config").table(path)
    if relative := relatives.of_config(data):
        raise CheckpointError(path, "", f"{relative}, {relatives.EXPECTED}", hint=T2V_HINT)
    if isinstance(data.get("model"), dict):
        return _checked(
            path, {field: value for field, value in data["model"].items() if field in _Declared.model_fields}
        )
    if "num_attention_heads" in data and "attention_head_dim" in data:
        heads = _checked(path, {"num_heads": data["num_attention_heads"], "head_dim": data["attention_head_dim"]})
        fields = {ours: data[theirs] for theirs, ours in DIFFUSERS.items() if theirs in data}
        fields |= {"dim": heads["num_heads"] * heads["head_dim"]}
        if isinstance(latent := data.get("out_channels"), int) and latent < (fields.get("in_channels") or 0):
            fields |= {"in_channels": latent, "extra_channels": fields["in_channels"] - latent}
        patch = data.get("patch_size", [1, 2, 2])
        return _checked(path, fields | {"patch": patch[1:] if isinstance(patch, list) else patch})
    if "dim" in data and "num_heads" in data:
        return _checked(path, {ours: data[theirs] for theirs, ours in ORIGINAL.items() if theirs in data})
    raise CheckpointError(
        path,
        "_class_name",
        f"found {data.get('_class_name') or 'no class'}, expected WanTransformer3DModel or WanModel",
    )


class _Declared(Config):
    """The fields that a config.json may give, each of its kind."""

    dim: int | None = None
    ffn_dim: int | None = None
    num_heads: int | None = None
    head_dim: int | None = None
    num_layers: int | None = None
    in_channels: int | None = None
    extra_channels: int | None = None
    patch: tuple[int, int] | None = None
    freq_dim: int | None = None
    text_dim: int | None = None
    text_len: int | None = None
    eps: float | None = None


def _checked(path: Path, fields: dict[str, Any]) -> dict[str, Any]:
    """Raises: CheckpointError: a value of another kind ("2" is no number), or null."""
    try:
        known = validate(_Declared, fields)
    except ValidationError as error:
        wrong = first_problem(error, _Declared)
        raise CheckpointError(path, wrong.key, f"found {wrong.shown}: {wrong.what}") from error
    lost = [field for field, value in fields.items() if value is None]
    if lost:
        raise CheckpointError(path, lost[0], "found null, expected a number")
    return known.model_dump(exclude_unset=True)


def settle(shapes: dict[str, Any], table: dict[str, Any], wanted: WanConfig | None, where: Path) -> WanConfig:
    """One config from what the shapes say, what config.json says and what is wanted (whose text_len counts).

    Raises:
        CheckpointError: they disagree, or nothing gives the number of heads.
    """
    for field in BY_SHAPE:
        if field in table and table[field] != shapes[field]:
            raise CheckpointError(where, field, f"config.json says {table[field]}, the tensors are of {shapes[field]}")
    source = table if wanted is None else wanted.model_dump() | table
    fields = shapes | {field: source[field] for field in ("eps", "text_len") if field in source}
    fields["num_heads"] = heads = _heads(shapes["dim"], table, wanted)
    if wanted is not None and any(fields[field] != getattr(wanted, field) for field in COMPARED):
        raise _another_size(fields, wanted, where)
    if heads is None:
        raise CheckpointError(
            where, "num_heads", f"width {shapes['dim']} does not give it", hint="add the model's config.json beside it"
        )
    try:
        config = WanConfig(**fields)
    except ValidationError as error:
        raise CheckpointError(where, "config.json", f"impossible sizes: {first_problem(error).text}") from error
    return config if wanted is None else wanted


def _heads(width: int, table: Mapping[str, Any], wanted: WanConfig | None) -> int | None:
    """The number of heads: from config.json, else from the wanted sizes of that width, else from the released model of
    that width, else from the wanted sizes."""
    if "num_heads" in table:
        return table["num_heads"]
    if width in HEAD_WIDTH and not (wanted is not None and wanted.dim == width):
        return width // HEAD_WIDTH[width]
    return None if wanted is None else wanted.num_heads


def _another_size(fields: dict[str, Any], wanted: WanConfig, where: Path) -> CheckpointError:
    expected = wanted.model_dump()
    differ = [field for field in COMPARED if fields[field] != expected[field]]
    what = (
        f"found {name(fields)} weights ({_some(fields, differ)}), expected {name(expected)} ({_some(expected, differ)})"
    )
    return CheckpointError(where, "model", what, hint="choose weights of that size, or set the recipe's [model]")


def _some(fields: Mapping[str, Any], keys: Sequence[str]) -> str:
    return ", ".join(f"{key} {fields[key]}" for key in keys)


def name(fields: Mapping[str, Any]) -> str:
    """ "1.3B", "14B", or width and layers of another size."""
    size = fields["dim"], fields["num_layers"]
    return NAMES.get(size, f"{size[0]}-wide {size[1]}-layer")


def to_diffusers(config: WanConfig, version: str) -> dict[str, Any]:
    """config.json of diffusers' `WanTransformer3DModel`."""
    return {
        "_class_name": "WanTransformer3DModel",
        "_diffusers_version": version,
        "patch_size": [1, *config.patch],
        "num_attention_heads": config.num_heads,
        "attention_head_dim": config.head_dim,
        "in_channels": config.in_channels + config.extra_channels,
        "out_channels": config.in_channels,
        "text_dim": config.text_dim,
        "freq_dim": config.freq_dim,
        "ffn_dim": config.ffn_dim,
        "num_layers": config.num_layers,
        "cross_attn_norm": True,
        "qk_norm": "rms_norm_across_heads",
        "eps": config.eps,
        "added_kv_proj_dim": None,
        "image_dim": None,
        "rope_max_seq_len": 1024,
    }

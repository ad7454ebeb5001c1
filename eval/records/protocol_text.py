"""The protocol of records in words: benchmark, prompt set, videos, decoder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from eval.records.store import DEVICE, HARDWARE_METRICS, UNKNOWN, Record

SCORER_SETTINGS = ("norm", "grayscale", "positions")  # of a learned scorer, those a reader knows by name
HASH_SHOWN = 8  # digits: enough to tell two sets of one table apart


def measured_with(records: Sequence[Record]) -> str:
    """The protocol that the records of one column share, with every decoder they had; "" of none."""
    if not records:
        return ""
    first, protocol = records[0], records[0].protocol
    device = _listed("device", records, DEVICE) if first.metric in HARDWARE_METRICS else ""
    settings = [f"{key} {protocol[key]}" for key in SCORER_SETTINGS if protocol.get(key) is not None]
    parts = (
        f"`{first.benchmark}`",
        prompts_text(records),
        " and ".join(dict.fromkeys(video_text(record.protocol) for record in records)),
        _listed("decoder", records),
        *settings,
        device,
    )
    return ", ".join(part for part in parts if part)


def prompts_text(records: Sequence[Record]) -> str:
    """The prompt set with its counts: "prompt set `vbench` (946 prompts, 5 videos each)"; where it has no name, the
    prompts' hash.
    """
    first, protocol = records[0], records[0].protocol
    name = (
        f"prompt set `{protocol['prompt_set']}`"
        if protocol.get("prompt_set")
        else f"prompts `{first.prompt_set_hash[:HASH_SHOWN]}`"
    )
    count, each = protocol.get("prompts"), protocol.get("samples_per_prompt")
    inside = [f"{count} prompt{'' if count == 1 else 's'}"] if isinstance(count, int) else []
    inside += [f"{each} videos each"] if isinstance(each, int) and each > 1 else []
    return f"{name} ({', '.join(inside)})" if inside else name


def on_prompt_set(records: Iterable[Record], published: str) -> bool:
    """Whether all records are of this prompt set; a name with a count at its end, `moviegen-128`, is of so many of its
    prompts.
    """
    for record in records:
        name = record.protocol.get("prompt_set")
        if published not in (name, f"{name}-{record.protocol.get('prompts')}"):
            return False
    return True


def trained_once(records: Iterable[Record]) -> list[str]:
    """The arms whose records under several seeds are all of the same weights, sorted: their seeds vary the noise, not
    the training.
    """
    seeds: dict[str, set[int]] = {}
    weights: dict[str, set[str]] = {}
    for record in records:
        seeds.setdefault(record.arm, set()).add(record.seed)
        weights.setdefault(record.arm, set()).add(record.weights_hash)
    return sorted(
        arm
        for arm, arm_seeds in seeds.items()
        if len(arm_seeds) > 1 and len(weights[arm]) == 1 and UNKNOWN not in weights[arm]
    )


def video_text(protocol: Mapping[str, Any]) -> str:
    """`9 frames, 8 fps, 32 × 32`, of what the protocol says; sides in the order they are kept in."""
    frames, fps, resolution = (protocol.get(key) for key in ("num_frames", "fps", "resolution"))
    size = " × ".join(str(side) for side in resolution) if isinstance(resolution, list | tuple) else resolution
    texts = (
        (frames, f"{frames} frames"),
        (fps, f"{fps:g} fps" if isinstance(fps, int | float) else f"{fps} fps"),
        (size, str(size)),
    )
    return ", ".join(text for value, text in texts if value is not None)


def _listed(what: str, records: Iterable[Record], key: str | None = None) -> str:
    """Every value the records have of a protocol's key, sorted; "" of none."""
    values = {str(value) for record in records if (value := record.protocol.get(key or what)) is not None}
    return f"{what} {', '.join(sorted(values))}" if values else ""

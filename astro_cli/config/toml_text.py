"""Tables as TOML text, by dotted key, and the keys in which two of them differ."""

from __future__ import annotations

import json
import re
from typing import Any

BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def flatten(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value; an array, or an empty table, is one value."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        dotted = f"{prefix}{key}"
        flat.update(flatten(value, f"{dotted}.") if isinstance(value, dict) and value else {dotted: value})
    return flat


def dumps(data: dict[str, Any], comments: dict[str, str], path: tuple[str, ...] = ()) -> str:
    """A table as TOML: its values first, then its sub-tables; `comments` by dotted key."""
    lines, tables = [], []
    for key, value in data.items():
        if isinstance(value, dict):
            tables.append(dumps(value, comments, (*path, key)))
        else:
            dotted = ".".join((*path, key))
            comment = f"  # {comments[dotted]}" if dotted in comments else ""
            lines.append(f"{key_text(key)} = {value_text(value)}{comment}\n")
    header = f"\n[{'.'.join(map(key_text, path))}]\n" if path and (lines or not tables) else ""
    return header + "".join(lines) + "".join(tables)


def key_text(key: str) -> str:
    return key if BARE_KEY.fullmatch(key) else value_text(key)


def value_text(value: Any) -> str:
    """A value on one line; strings and numbers read the same in JSON and TOML, but for DEL."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key_text(key)} = {value_text(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(value_text, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[dict[str, Any]]:
    """Differing keys in A's order, then those of B alone: {"key", "a", "b"}; a side without the key is left out."""
    left, right, changes = flatten(a), flatten(b), []
    for key in {**left, **right}:
        sides = {side: flat[key] for side, flat in (("a", left), ("b", right)) if key in flat}
        if key != "name" and (len(sides) == 1 or sides["a"] != sides["b"]):
            changes.append({"key": key} | sides)
    return changes

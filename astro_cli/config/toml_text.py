"""Tables as TOML text, by dotted key, and the keys in which two of them differ. tomlkit writes the TOML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from astro_cli.config.errors import printable

if TYPE_CHECKING:
    from tomlkit.items import Item, Table
    from tomlkit.toml_document import TOMLDocument

ABSENT: Mapping[str, str] = {}


def flatten(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value; an array, or an empty table, is one value."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        dotted = f"{prefix}{key}"
        flat.update(flatten(value, f"{dotted}.") if isinstance(value, dict) and value else {dotted: value})
    return flat


def dumps(data: dict[str, Any], comments: Mapping[str, str] = ABSENT) -> str:
    """A table as TOML: its values first, then its sub-tables; `comments` by dotted key."""
    import tomlkit  # only commands that print TOML need it

    document = tomlkit.document()
    _fill(document, data, comments, "")
    return tomlkit.dumps(document).strip("\n") + "\n"


def _fill(table: TOMLDocument | Table, data: dict[str, Any], comments: Mapping[str, str], path: str) -> None:
    import tomlkit

    inner = {key: value for key, value in data.items() if isinstance(value, dict)}
    for key, value in data.items():
        if key not in inner:
            item = _item(value)
            if comment := comments.get(f"{path}{key}"):
                item.comment(printable(comment, line=True)).trivia.comment_ws = "  "
            table.add(key, item)
    if not inner or len(inner) < len(data):
        table.add(tomlkit.nl())
    for key, value in inner.items():
        only_tables = bool(value) and all(isinstance(each, dict) for each in value.values())
        sub = tomlkit.table(is_super_table=only_tables)
        _fill(sub, value, comments, f"{path}{key}.")
        table.add(key, sub)


def value_text(value: Any) -> str:
    """A value on one line, tables inline."""
    return _item(value).as_string()


def _item(value: Any) -> Item:
    import tomlkit

    if isinstance(value, dict):
        table = tomlkit.inline_table()
        for key, inner in value.items():
            table.append(key, _item(inner))
        return table
    if isinstance(value, list):
        array = tomlkit.array()
        for inner in value:
            array.append(_item(inner))
        return array
    return tomlkit.item(value)


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[dict[str, Any]]:
    """Differing keys in A's order, then those of B alone: {"key", "a", "b"}; a side without the key is left out."""
    left, right, changes = flatten(a), flatten(b), []
    for key in {**left, **right}:
        sides = {side: flat[key] for side, flat in (("a", left), ("b", right)) if key in flat}
        if key != "name" and (len(sides) == 1 or sides["a"] != sides["b"]):
            changes.append({"key": key} | sides)
    return changes

"""Names in the source: one class, one name; no private words; no comprehension inside another."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("astro_cli", "eval", "bench")
PER_METHOD = {"Config", "Objective", "Advantage"}  # what every method's file has
PRIVATE_WORDS = {"found", "told", "asked", "held", "said"}
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@cache
def trees() -> dict[str, ast.Module]:
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    return {str(file.relative_to(ROOT)): ast.parse(file.read_text(encoding="utf-8")) for file in files}


def test_no_two_public_classes_share_a_name() -> None:
    homes = defaultdict[str, list[str]](list)
    for file, tree in trees().items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and node.name not in PER_METHOD:
                homes[node.name].append(file)
    assert {name: files for name, files in homes.items() if len(files) > 1} == {}


def bound_names(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Variables, arguments and functions that a module gives a name, with their lines."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name) | ast.FunctionDef(name=name):
                yield name, node.lineno


def test_no_name_is_a_private_word() -> None:
    hits = [
        f"{file}:{line} {name}"
        for file, tree in trees().items()
        for name, line in bound_names(tree)
        if not PRIVATE_WORDS.isdisjoint(name.split("_"))
    ]
    assert hits == []


def test_no_comprehension_holds_another() -> None:
    hits = []
    for file, tree in trees().items():
        for outer in ast.walk(tree):
            if (
                isinstance(outer, COMPREHENSIONS)
                and sum(isinstance(node, COMPREHENSIONS) for node in ast.walk(outer)) > 1
            ):
                hits.append(f"{file}:{outer.lineno}")
    assert hits == []

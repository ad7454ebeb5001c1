"""Finds the scorers: every module of this folder that holds `SCORER` is one, under its own name.

Free of torch.
"""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path

from astro_cli.config.errors import RecordError, did_you_mean
from eval.contract import Declaration

NOT_SCORERS = {"__init__", "catalog"}


@cache
def declarations() -> dict[str, Declaration]:
    """All scorers by name, sorted."""
    names = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in NOT_SCORERS)
    return {name: importlib.import_module(f"eval.metrics.{name}").SCORER for name in names}


def find(name: str) -> Declaration:
    """A scorer's declaration.

    Raises:
        RecordError: no such scorer, with the nearest name.
    """
    known = declarations()
    if name not in known:
        raise RecordError("eval", name, "no such scorer", hint=did_you_mean(name, known))
    return known[name]

"""The evaluation's scorers as training rewards, by reference: this floor does not import them."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import Any

from astro_cli.rewards.base import KEYS

MODULE = "eval.scoring.training_rewards"


def split(keys: list[str]) -> tuple[list[str], list[str]]:
    """Rewards of this package, and metrics of the evaluation's scorers."""
    return [key for key in keys if key in KEYS], [key for key in keys if key not in KEYS]


def scorers() -> Any:
    """The module that checks and loads rewards by metrics' ids."""
    return resolve_name(MODULE)

"""A suite's scorers made ready to run: declarations found, configurations checked, configuration and weights hashed. Scores nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from astro_cli.config.base import Config
from astro_cli.config.errors import AstroError, RecordError, did_you_mean
from astro_cli.config.problems import first_problem
from astro_cli.config.toml import parse_override
from astro_cli.core import threads
from astro_cli.models.hashes import remembered
from eval.metrics import catalog
from eval.metrics.base import Declaration, MetricInfo, Scorer, Towers, config_hash
from eval.suites import Suite, Use

NO_WEIGHTS = "none"  # weights hash of a scorer without weights
SET_EXAMPLE = "--set temporal_flickering.static_filter=true"


@dataclass(frozen=True)
class Slot:
    """One scorer of a suite under one configuration.

    Attributes:
        config_hash: over configuration and version.
        weights_hash: over the bytes of all files the scorer reads.
        lacks: what it cannot run without, a line each; empty: ready.
    """

    use: Use
    config: Config
    config_hash: str
    weights_hash: str
    lacks: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.use.slot

    @property
    def declaration(self) -> Declaration:
        """Looked up, not held: a slot is sent to other processes, and functions cannot be."""
        return catalog.find(self.use.scorer)

    def build(self, towers: Towers) -> Scorer:
        return self.declaration.build(self.config, towers)

    @property
    def metrics(self) -> Mapping[str, MetricInfo]:
        """By the name records use."""
        return self.use.names(self.declaration.metrics)


def slots(suite: Suite, overrides: Iterable[str] = (), metrics: Iterable[str] = ()) -> list[Slot]:
    """The suite's scorers in its order, or those that give `metrics` (names of records, scorers or metric ids).

    Args:
        overrides: "scorer.key=value".

    Raises:
        AstroError: a scorer, key, value or metric that does not exist; a key set twice.
    """
    changes = _changes(suite, overrides)
    return [_slot(use, changes.get(use.slot, {})) for use in select(suite, metrics)]


def select(suite: Suite, metrics: Iterable[str]) -> list[Use]:
    """The uses that give these metrics, all where none are named; a use gives its own name, its scorer's, its metrics' ids and record names."""
    names = {use.slot: {use.slot, use.scorer, *_metric_names(use)} for use in suite.scorers}
    wanted = set(metrics)
    if unknown := wanted - set().union(*names.values()):
        first = sorted(unknown)[0]
        raise RecordError("--metrics", first, "no metric of this suite", hint=did_you_mean(first, set().union(*names.values())))
    return [use for use in suite.scorers if not wanted or wanted & names[use.slot]]


def _metric_names(use: Use) -> set[str]:
    named = use.names(catalog.find(use.scorer).metrics)
    return {*named, *(info.id for info in named.values())}


def _changes(suite: Suite, overrides: Iterable[str]) -> dict[str, dict[str, Any]]:
    changes: dict[str, dict[str, Any]] = {}
    known = {use.slot for use in suite.scorers}
    for text in overrides:
        dotted, value = parse_override(text, example=SET_EXAMPLE)
        slot, _, key = dotted.partition(".")
        if slot not in known or not key:
            raise RecordError("--set", text, "expected SCORER.KEY=VALUE with a scorer of this suite", hint=did_you_mean(slot, known))
        if key in changes.setdefault(slot, {}):
            raise RecordError("--set", text, f"{dotted} is set twice", hint="give each key once")
        changes[slot][key] = value
    return changes


def _slot(use: Use, changes: Mapping[str, Any]) -> Slot:
    declaration = catalog.find(use.scorer)
    try:
        config = declaration.config.model_validate({**use.config, **changes})
    except ValidationError as error:
        wrong = first_problem(error, declaration.config)
        key = f"{use.slot}.{wrong.key}" if wrong.key else use.slot
        raise RecordError("--set" if changes else "suite", key, f"{wrong.what}, found {wrong.found}", hint=wrong.hint) from error
    return Slot(use, config, config_hash(declaration, config), *_weights(declaration, config))


def layer_flops(slots: Iterable[Slot]) -> float:
    """Work of the scorers' layers, as `core.threads` wants it: networks look at whole frames, so theirs is large."""
    return threads.LARGE if any(slot.weights_hash != NO_WEIGHTS for slot in slots) else threads.SMALL


def _weights(declaration: Declaration, config: Config) -> tuple[str, tuple[str, ...]]:
    """Hash of the weights and what is missing; some needs only show when a configuration names its files."""
    lacks = tuple(text for need in (*declaration.needs, *declaration.config_needs(config)) if (text := need.missing()))
    if lacks:
        return NO_WEIGHTS, lacks
    try:
        return weights_hash(declaration.files(config)), ()
    except AstroError as error:
        return NO_WEIGHTS, (": ".join(part for part in (error.where, error.key, error.what) if part) + (f" ({error.hint})" if error.hint else ""),)


def weights_hash(paths: Iterable[Path]) -> str:
    """16 hex digits over the bytes of these files, and of all files in these folders; "none" of no files."""
    files = sorted(file for path in paths for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())
    if not files:
        return NO_WEIGHTS
    return hashlib.sha256("".join(map(remembered, files)).encode()).hexdigest()[:16]

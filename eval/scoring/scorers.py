"""A suite's scorers made ready to run: declarations found, configurations checked, configuration and weights hashed."""

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
from eval.contract import Declaration, MetricInfo, NetworkCache, Scorer, config_hash
from eval.metrics import catalog
from eval.suites.suite import ScorerSpec, Suite

NO_WEIGHTS = "none"  # weights hash of a scorer without weights
SET_EXAMPLE = "--set temporal_flickering.static_filter=true"


@dataclass(frozen=True)
class ConfiguredScorer:
    """One scorer of a suite under one configuration.

    Attributes:
        config_hash: over configuration and version.
        weights_hash: over the bytes of all files the scorer reads.
        missing: what it cannot run without, a line each; empty: ready.
    """

    spec: ScorerSpec
    config: Config
    config_hash: str
    weights_hash: str
    missing: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.spec.label

    @property
    def declaration(self) -> Declaration:
        """Looked up each time: a configured scorer is sent to other processes, and functions cannot be."""
        return catalog.find(self.spec.scorer)

    def build(self, loaded: NetworkCache) -> Scorer:
        return self.declaration.build(self.config, loaded)

    @property
    def metrics(self) -> Mapping[str, MetricInfo]:
        """By the name records use."""
        return self.spec.names(self.declaration.metrics)


def configured_scorers(
    suite: Suite, overrides: Iterable[str] = (), metrics: Iterable[str] = ()
) -> list[ConfiguredScorer]:
    """The suite's scorers in its order, or those that give `metrics` (names of records, scorers or metric ids).

    Args:
        overrides: "scorer.key=value".

    Raises:
        AstroError: a scorer, key, value or metric that does not exist; a key set twice.
    """
    changes = _changes(suite, overrides)
    return [_configured(spec, changes.get(spec.label, {})) for spec in select(suite, metrics)]


def select(suite: Suite, metrics: Iterable[str]) -> list[ScorerSpec]:
    """The uses that give these metrics, all where none are named; a use gives its own name, its scorer's, its metrics'
    ids and record names.
    """
    names = {spec.label: {spec.label, spec.scorer, *_metric_names(spec)} for spec in suite.scorers}
    wanted = set(metrics)
    if unknown := wanted - set().union(*names.values()):
        first = sorted(unknown)[0]
        raise RecordError(
            "--metrics", first, "no metric of this suite", hint=did_you_mean(first, set().union(*names.values()))
        )
    return [spec for spec in suite.scorers if not wanted or wanted & names[spec.label]]


def _metric_names(spec: ScorerSpec) -> set[str]:
    named = spec.names(catalog.find(spec.scorer).metrics)
    return {*named, *(info.id for info in named.values())}


def _changes(suite: Suite, overrides: Iterable[str]) -> dict[str, dict[str, Any]]:
    changes: dict[str, dict[str, Any]] = {}
    known = {spec.label for spec in suite.scorers}
    for text in overrides:
        dotted, value = parse_override(text, example=SET_EXAMPLE)
        configured, _, key = dotted.partition(".")
        if configured not in known or not key:
            raise RecordError(
                "--set",
                text,
                "expected SCORER.KEY=VALUE with a scorer of this suite",
                hint=did_you_mean(configured, known),
            )
        if key in changes.setdefault(configured, {}):
            raise RecordError("--set", text, f"{dotted} is set twice", hint="give each key once")
        changes[configured][key] = value
    return changes


def _configured(spec: ScorerSpec, changes: Mapping[str, Any]) -> ConfiguredScorer:
    declaration, config = catalog.find(spec.scorer), _config(spec, changes)
    return ConfiguredScorer(spec, config, config_hash(declaration, config), *_weights(declaration, config))


def _config(spec: ScorerSpec, changes: Mapping[str, Any]) -> Config:
    declaration = catalog.find(spec.scorer)
    try:
        return declaration.config.model_validate({**spec.config, **changes})
    except ValidationError as error:
        wrong = first_problem(error, declaration.config)
        key = f"{spec.label}.{wrong.key}" if wrong.key else spec.label
        raise RecordError(
            "--set" if changes else "suite", key, f"{wrong.what}, found {wrong.shown}", hint=wrong.hint
        ) from error


def missing_of(suite: Suite) -> dict[str, tuple[str, ...]]:
    """By scorer of a suite as it is: what it cannot run without. Reads no weights."""
    configs = {spec.label: (catalog.find(spec.scorer), _config(spec, {})) for spec in suite.scorers}
    return {label: _missing(declaration, config) for label, (declaration, config) in configs.items()}


def readiness(missing: Mapping[str, Iterable[str]]) -> list[str]:
    """A line per scorer with a mark, and below it what it lacks and where to put that; none where all are ready."""
    lines = []
    for name, texts in missing.items():
        lacks = [f"      {text}" for text in texts]
        lines += [f"  [{' ' if lacks else 'x'}] {name}", *lacks]
    return lines if len(lines) > len(missing) else []


def layer_flops(scorers: Iterable[ConfiguredScorer]) -> float:
    """Work of the scorers' layers, as `core.threads` wants it: networks look at whole frames, so theirs is large."""
    return threads.LARGE if any(configured.weights_hash != NO_WEIGHTS for configured in scorers) else threads.SMALL


def _weights(declaration: Declaration, config: Config) -> tuple[str, tuple[str, ...]]:
    """Hash of the weights and what is missing; some needs only show when a configuration names its files."""
    if missing := _missing(declaration, config):
        return NO_WEIGHTS, missing
    try:
        return weights_hash(declaration.files(config)), ()
    except AstroError as error:
        return NO_WEIGHTS, (
            ": ".join(part for part in (error.where, error.key, error.what) if part)
            + (f" ({error.hint})" if error.hint else ""),
        )


def _missing(declaration: Declaration, config: Config) -> tuple[str, ...]:
    needs = (*declaration.needs, *declaration.config_needs(config))
    return tuple(text for need in needs if (text := need.missing()))


def weights_hash(paths: Iterable[Path]) -> str:
    """16 hex digits over the bytes of these files, and of all files in these folders; "none" of no files."""
    files = sorted(file for path in paths for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())
    if not files:
        return NO_WEIGHTS
    return hashlib.sha256("".join(map(remembered, files)).encode()).hexdigest()[:16]

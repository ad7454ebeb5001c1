"""`astro eval list`: every metric with its suites, unit, needs and state. It needs no torch."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rich.table import Table

from astro_cli.commands.console import echo, plain_console
from astro_cli.commands.recipe import JsonOption
from eval.world.suites import FALLS, UNITS, WORLD_SUITES

if TYPE_CHECKING:
    from eval.contract import Declaration, MetricInfo
    from eval.suites.suite import ScorerSpec

READY = "ready"
TABLE_WIDTH = 200


def list_(json_: JsonOption = False) -> None:
    """List every metric: suites, direction, unit, what it needs, and whether it is ready or what is missing.

    Example: astro eval list
    """
    rows = metric_rows() + file_rows() + arm_rows()
    if json_:
        echo(json.dumps({"suites": suite_rows(), "metrics": rows}, indent=2))
        return
    table = Table("metric", "suites", "better", "unit", "state", "what it is")
    for row in rows:
        state = READY if row["ready"] else f"needs {', '.join(row['needs'])}"
        state += "".join(
            f"; {suite} needs {', '.join(more['needs'])}"
            for suite, more in row.get("more", {}).items()
            if more["missing"]
        )
        table.add_row(row["metric"], ", ".join(row["suites"]), row["direction"], row["unit"], state, row["text"])
    plain_console(width=TABLE_WIDTH).print(table)
    for text, metrics in lacking(rows).items():
        echo(f"missing: {text}\n         for {', '.join(metrics)}")


def lacking(rows: list[dict[str, Any]]) -> dict[str, list[str]]:
    """What is missing and where to put it -> the metrics that wait for it."""
    waiting: dict[str, list[str]] = {}
    for row in rows:
        for text in row["missing"]:
            waiting.setdefault(text, []).append(row["metric"])
        for suite, more in row.get("more", {}).items():
            for text in more["missing"]:
                waiting.setdefault(text, []).append(f"{row['metric']} ({suite})")
    return waiting


def metric_rows() -> list[dict[str, Any]]:
    """A row per metric id of the scorers of videos."""
    from eval.metrics import catalog
    from eval.suites.suite import list_suites, load_suite

    used: dict[str, list[tuple[str, ScorerSpec]]] = {}
    for name in list_suites():
        for spec in load_suite(name).scorers:
            used.setdefault(spec.scorer, []).append((name, spec))
    return [
        _row(info, used.get(name, []), declaration)
        for name, declaration in catalog.declarations().items()
        for info in declaration.metrics
    ]


def _row(info: MetricInfo, uses: list[tuple[str, ScorerSpec]], declaration: Declaration) -> dict[str, Any]:
    missing = [text for need in declaration.needs if (text := need.missing())]
    return {
        "metric": info.id,
        "suites": sorted({suite for suite, _ in uses}),
        "direction": info.direction,
        "unit": info.unit,
        "text": info.text,
        "needs": [need.name for need in declaration.needs],
        "ready": not missing,
        "missing": missing,
        "more": _more(uses, declaration),
    }


def _more(uses: list[tuple[str, ScorerSpec]], declaration: Declaration) -> dict[str, dict[str, list[str]]]:
    """What a suite's options need in addition: suite -> the needs and which of them are missing."""
    more = {}
    for suite, spec in uses:
        if needs := declaration.config_needs(declaration.config.model_validate(spec.config)):
            missing = [text for need in needs if (text := need.missing())]
            more[suite] = {"needs": [need.name for need in needs], "missing": missing}
    return more


def file_rows() -> list[dict[str, Any]]:
    """Metrics that come from files of annotations."""
    from eval.human.annotations import METRICS

    return [
        {
            "metric": info.id,
            "suites": [suite],
            "direction": info.direction,
            "unit": info.unit,
            "text": info.text,
            "needs": ["a file of annotations"],
            "ready": True,
            "missing": [],
        }
        for suite, infos in METRICS.items()
        for info in infos
    ]


def arm_rows() -> list[dict[str, Any]]:
    """Metrics of the embedded world, which score arms."""
    names = dict.fromkeys(name for suite in WORLD_SUITES.values() for name in suite.shown)
    return [
        {
            "metric": name,
            "suites": _showing(name),
            "direction": "down" if name in FALLS else "up",
            "unit": UNITS.get(name, "0..1"),
            "text": "of the embedded world's oracle",
            "needs": [],
            "ready": True,
            "missing": [],
        }
        for name in names
    ]


def suite_rows() -> list[dict[str, Any]]:
    """A row per suite of videos and of arms."""
    from eval.suites.suite import list_suites, load_suite

    videos = [
        {
            "suite": name,
            "scores": "videos",
            "title": suite.title,
            "version": suite.version,
            "source": suite.source,
            "prompts": suite.prompts or None,
        }
        for name in list_suites()
        for suite in [load_suite(name)]
    ]
    arms = [
        {"suite": suite.name, "scores": "arms", "title": suite.title, "prompts": suite.prompts}
        for suite in WORLD_SUITES.values()
    ]
    return videos + arms


def _showing(metric: str) -> list[str]:
    """The suites of the embedded world that show a metric."""
    return [suite.name for suite in WORLD_SUITES.values() if metric in suite.shown]

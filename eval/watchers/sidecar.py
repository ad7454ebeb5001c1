"""Reads the JSON that `astro sample` writes beside a video."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from astro_cli.config.files import Reader
from eval.contract import Sample, ScoreError


def sidecars_of(sample: Sample) -> tuple[Path, ...]:
    """The file that `sidecar` reads; none where there is none."""
    path = sample.path.with_suffix(".json")
    return (path,) if path.is_file() else ()


def sidecar(sample: Sample) -> dict[str, Any]:
    """The JSON that `astro sample` wrote beside the video; empty where there is none or another kind."""
    path = sample.path.with_suffix(".json")
    try:
        return Reader(ScoreError).table(path)
    except ScoreError:
        return {}

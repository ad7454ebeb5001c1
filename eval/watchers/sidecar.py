"""Reads the JSON that `astro sample` writes beside a video."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from eval.contract import Sample


def sidecars_of(sample: Sample) -> tuple[Path, ...]:
    """The file that `sidecar` reads; none where there is none."""
    path = sample.path.with_suffix(".json")
    return (path,) if path.is_file() else ()


def sidecar(sample: Sample) -> dict[str, Any]:
    """The JSON that `astro sample` wrote beside the video; empty where there is none or another kind."""
    path = sample.path.with_suffix(".json")
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}

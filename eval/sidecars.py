"""Reads the JSON that `astro sample` writes beside a video. Checks no value."""

from __future__ import annotations

import json
from typing import Any

from eval.metrics.base import Sample


def sidecar(sample: Sample) -> dict[str, Any]:
    """What `astro sample` wrote beside the video; empty where there is nothing, or something else."""
    path = sample.path.with_suffix(".json")
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}

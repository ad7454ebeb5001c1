"""Records of `astro bench sample`: speed, latency and memory of an arm, with the conditions they hold under."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from astro_cli.training.environment import environment
from eval.records.store import Backbone, Direction
from eval.records.writer import RecordWriter

if TYPE_CHECKING:
    from astro_cli.generate.arm import Arm

BENCHMARK = "throughput"
VERSION = 1  # goes up when the protocol changes (`astro_cli.generate.speed`)
# Metric, the direction that is better, and the field of the measurement.
FIELDS: tuple[tuple[str, Direction, str], ...] = (
    ("throughput", "up", "frames_per_second"),
    ("loop_throughput", "up", "loop_frames_per_second"),
    ("latency", "down", "first_frame_seconds"),
    ("peak_memory", "down", "peak_memory_bytes"),
)


def write_speed(arm: Arm, seed: int, prompt: str, speed: Mapping[str, Any], results: Path) -> None:
    """Append what was measured to the records of the benchmark "throughput"; a newer one replaces it in tables.

    Args:
        speed: `generate.speed.Speed.data`; all of it becomes the records' protocol.

    Raises:
        RecordError, OutputError: see `RecordWriter.append`.
    """
    prompts = hashlib.sha256(prompt.encode()).hexdigest()
    hashes = arm.card["recipe_hash"], arm.weights_hash(), prompts
    backbone = cast(Backbone, arm.backbone.name)
    writer = RecordWriter(results, BENCHMARK, backbone, arm.name, seed, *hashes)
    here = environment(speed["device_name"], seed)
    measured = {field for _, _, field in FIELDS}
    protocol = {
        **{key: value for key, value in speed.items() if key not in measured},
        "benchmark_version": VERSION,
        "num_frames": speed["frames"],
        "fps": arm.backbone.fps,
        "resolution": [speed["height"], speed["width"]],
        "prompts": 1,
        "sampling": arm.card["sampling"],
        "versions": here["versions"],
        "device": speed["device_name"],
    }
    for metric, direction, field in FIELDS:
        writer.append(writer.record(metric, direction, [float(speed[field])], protocol, here))

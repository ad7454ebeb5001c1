"""Sides that take turns, so that what the machine does besides slows all of them alike."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable


def medians(
    sides: dict[str, Callable[[], object]], repeats: int, clock: Callable[[], float] = time.process_time
) -> dict[str, float]:
    """Seconds of each side, in turns, after one turn that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn, (name, run) in itertools.product(range(repeats + 1), sides.items()):
        began = clock()
        run()
        if turn:
            seconds[name].append(clock() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}

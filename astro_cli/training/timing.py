"""Where a step's time goes: named sections, summed per step. Sections nest; time belongs to the innermost.

Threads are timed apart and their seconds added. Where one scores while another rolls out, the shares of a step add up
to more than one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class _Thread(threading.local):
    """The open sections of the calling thread, and since when the innermost is not charged."""

    def __init__(self) -> None:
        self.stack: list[str] = []
        self.since = time.perf_counter()


class SectionTimer:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._own, self._lock = _Thread(), threading.Lock()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self._charge()
        self._own.stack.append(name)
        try:
            yield
        finally:
            self._charge()
            self._own.stack.pop()

    def _charge(self) -> None:
        now = time.perf_counter()
        if self._own.stack:
            with self._lock:
                self.seconds[self._own.stack[-1]] = self.seconds.get(self._own.stack[-1], 0.0) + now - self._own.since
        self._own.since = now

    def take(self) -> dict[str, float]:
        """Seconds per section since the last call; sections that other threads are still in are not charged."""
        self._charge()
        with self._lock:
            taken, self.seconds = self.seconds, {}
        return taken

"""Where a step's time goes: named sections, summed per step. Sections nest; time belongs to the innermost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class SectionTimer:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._stack: list[str] = []
        self._since = time.perf_counter()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self._charge()
        self._stack.append(name)
        try:
            yield
        finally:
            self._charge()
            self._stack.pop()

    def _charge(self) -> None:
        now = time.perf_counter()
        if self._stack:
            self.seconds[self._stack[-1]] = self.seconds.get(self._stack[-1], 0.0) + now - self._since
        self._since = now

    def take(self) -> dict[str, float]:
        """Seconds per section since the last call."""
        self._charge()
        taken, self.seconds = self.seconds, {}
        return taken

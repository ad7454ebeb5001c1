"""One worker thread beside the training loop: scores clips while the next ones are rolled out.

torch releases the interpreter inside its operators, so on a CPU with a core to spare the two run side by side; on CUDA
the worker has a stream of its own, which waits for what was computed before the work was handed over. Work is done in
the order it was handed over and computes the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

import torch

from astro_cli.core import threads

T = TypeVar("T")


class Background:
    """A context: on leaving it, waiting work is dropped after an error, else finished."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        # A new thread computes on all cores until its number of threads is set.
        self.pool = ThreadPoolExecutor(1, "rewards", initializer=threads.use, initargs=(torch.get_num_threads(),))

    def __enter__(self) -> Background:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.pool.shutdown(wait=True, cancel_futures=kind is not None)

    def submit(self, work: Callable[..., T], *arguments: object) -> Future[T]:
        """Queue `work(*arguments)`, without gradients; `result()` waits for it and raises what it raised."""
        ready = None
        if self.stream is not None:
            ready = torch.cuda.Event()
            ready.record(torch.cuda.current_stream(self.device))
        return self.pool.submit(self._run, ready, work, arguments)

    @torch.no_grad()
    def _run(self, ready: torch.cuda.Event | None, work: Callable[..., T], arguments: tuple[object, ...]) -> T:
        if self.stream is None or ready is None:
            return work(*arguments)
        with torch.cuda.stream(self.stream):
            self.stream.wait_event(ready)
            result = work(*arguments)
        self.stream.synchronize()  # who reads the result need not know of this stream
        return result

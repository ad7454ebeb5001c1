"""Decoding and writing beside generation: latents in, files out, each on a thread of its own, on CUDA the decoder on a
stream of its own. `BlockClock` times what runs on a device without making the host wait.

Blocks stay in order. At most `DEPTH` of them wait, so memory does not grow where writing is slower than generating.
Dimensions: B video, F latent frame, T frame, H, W rows and columns, C colour.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType

import numpy as np
import torch

from astro_cli.core.background import Background

DEPTH = 2
Clips = np.ndarray  # (B, T, H, W, C) in [0, 1]


class Pipeline:
    """A context; leaving it waits for what was pushed.

    Args:
        decode: latents (B, F, C, H, W) -> frames (B, T, C, H, W).
        write: takes clips, in order.
        on_done: called in the thread that pushes, with each block's clips and the moment they were decoded, once they
            are written.
    """

    def __init__(
        self,
        decode: Callable[[torch.Tensor], torch.Tensor],
        write: Callable[[Clips], None],
        device: torch.device,
        on_done: Callable[[Clips, float], None],
    ) -> None:
        self.decode, self.write, self.on_done = decode, write, on_done
        self.decoding, self.writing = Background(device), Background(torch.device("cpu"))
        self.waiting: deque[tuple[Future[tuple[Clips, float]], Future[None]]] = deque()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.decoding.__exit__(None, None, None)  # what was generated is kept, also when the user interrupts
        self.writing.__exit__(None, None, None)
        if kind is None:
            self.settle(0)

    def push(self, latents_BFCHW: torch.Tensor) -> None:
        """Take the next block.

        Raises:
            what decoding or writing an earlier one raised.
        """
        clips = self.decoding.submit(self._decode, latents_BFCHW)
        self.waiting.append((clips, self.writing.submit(self._write, clips)))
        self.settle(DEPTH)

    def settle(self, left: int) -> None:
        """Report what is done, and wait until at most `left` blocks are not."""
        while self.waiting and (len(self.waiting) > left or self.waiting[0][1].done()):
            clips, written = self.waiting.popleft()
            written.result()
            self.on_done(*clips.result())

    def _decode(self, latents_BFCHW: torch.Tensor) -> tuple[Clips, float]:
        clips = self.decode(latents_BFCHW).permute(0, 1, 3, 4, 2).cpu().numpy()
        return clips, time.perf_counter()

    def _write(self, clips: Future[tuple[Clips, float]]) -> None:
        self.write(clips.result()[0])


class BlockClock:
    """Seconds a device spends between `start` and `stop`; read when all is done."""

    def __init__(self, device: torch.device) -> None:
        self.device, self._marks = device, list[tuple[object, object]]()

    def start(self) -> None:
        self._begun = self._now()

    def stop(self) -> None:
        self._marks.append((self._begun, self._now()))

    def seconds(self) -> list[float]:
        """Of each pair; waits for the device."""
        if self.device.type != "cuda":
            return [end - begin for begin, end in self._marks]  # type: ignore[operator]
        torch.cuda.synchronize(self.device)
        return [begin.elapsed_time(end) / 1000 for begin, end in self._marks]  # type: ignore[attr-defined]

    def _now(self) -> object:
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

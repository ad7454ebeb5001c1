"""Decoding and writing beside generation: order, a bounded queue, errors, and an interrupted block."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch

from astro_cli.generate.pipeline import DEPTH, BlockClock, Pipeline

CPU = torch.device("cpu")


def block(number: float) -> torch.Tensor:
    return torch.full((1, 1, 1, 2, 2), number)


def decode(latents: torch.Tensor) -> torch.Tensor:
    return latents.expand(-1, -1, 3, -1, -1)


def test_blocks_are_written_in_order_beside_the_caller():
    written: list[float] = []
    done: list[float] = []
    threads = set()

    def write(clips: np.ndarray) -> None:
        threads.add(threading.current_thread())
        written.append(float(clips[0, 0, 0, 0, 0]))

    with Pipeline(decode, write, CPU, lambda clips, moment: done.append(float(clips.flat[0]))) as pipeline:
        for number in range(6):
            pipeline.push(block(number))
    assert written == done == [0, 1, 2, 3, 4, 5]
    assert threading.current_thread() not in threads


def test_only_so_many_blocks_wait():
    allowed, seen = threading.Semaphore(0), list[int]()
    finished = threading.Event()

    def work() -> None:
        with Pipeline(decode, lambda clips: allowed.acquire() and None, CPU, lambda *_: None) as pipeline:
            for number in range(DEPTH + 1):
                pipeline.push(block(number))
                seen.append(number)
        finished.set()

    threading.Thread(target=work, daemon=True).start()
    while len(seen) < DEPTH:
        pass
    assert not finished.wait(0.2)
    assert len(seen) == DEPTH  # the next one waits for a write
    for _ in range(DEPTH + 1):
        allowed.release()
    assert finished.wait(10)


@pytest.mark.parametrize("place", ["decode", "write"])
def test_errors_reach_the_caller(place):
    def fail(*_: Any) -> Any:
        raise OSError("disk full")

    parts = {"decode": decode, "write": lambda clips: None} | {place: fail}

    def push_all() -> None:
        with Pipeline(parts["decode"], parts["write"], CPU, lambda *_: None) as pipeline:
            for number in range(DEPTH + 2):
                pipeline.push(block(number))

    with pytest.raises(OSError, match="disk full"):
        push_all()


def test_what_was_pushed_is_written_when_the_user_interrupts():
    written: list[float] = []

    def interrupted() -> None:
        with Pipeline(decode, lambda clips: written.append(float(clips.flat[0])), CPU, lambda *_: None) as pipeline:
            pipeline.push(block(0))
            pipeline.push(block(1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert written == [0, 1]


def test_a_clock_counts_each_block():
    clock = BlockClock(CPU)
    for _ in range(3):
        clock.start()
        clock.stop()
    assert len(clock.seconds()) == 3
    assert all(0 <= seconds < 1 for seconds in clock.seconds())

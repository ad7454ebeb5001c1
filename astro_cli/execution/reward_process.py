"""A reward worker that is timed: a process with some rewards, clips to score, and a share of the machine.

On a CPU a quota q is q times the cores: as many threads as cores it touches, but no more than a run of the recipe has
(`core.threads`), stopped for a part of every period where that is more than q. On a GPU it is the percentage of MPS,
for which the process is started anew.
"""

from __future__ import annotations

import ctypes
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import psutil

from astro_cli.config.errors import AstroError, RunError, is_out_of_memory
from astro_cli.core import threads
from astro_cli.execution import mps
from astro_cli.spec import Recipe

PERIOD = 0.05  # seconds in which a stopped and a running part add up
START_SECONDS = 600.0  # in which a worker has loaded its networks
DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux's prctl


@dataclass(frozen=True)
class CpuShare:
    """A quota on a CPU: threads, and the share of time in which they run."""

    threads: int
    running: float

    @staticmethod
    def of(quota: float, cores: int, most: int) -> CpuShare:
        """Of a number of cores, with `most` threads at most."""
        wanted = quota * cores
        number = min(max(1, math.ceil(wanted - 1e-9)), most)
        return CpuShare(number, min(1.0, wanted / number))


@dataclass(frozen=True)
class TimedWork:
    """What a worker is timed on: `clips` clips of a stage's length, scored by `keys`."""

    recipe: Recipe
    stage: str
    keys: tuple[str, ...]
    clips: int

    @property
    def name(self) -> str:
        return "+".join(self.keys)


class RewardProcess:
    """A worker's process, as a context. It ends with this process, however that ends."""

    def __init__(self, work: TimedWork, quota: float = 1.0) -> None:
        context = multiprocessing.get_context("spawn")
        self.work, (self.connection, there) = work, context.Pipe()
        extra = mps.environment(quota) if mps.runs() and quota < 1 else {}
        self.process = context.Process(target=_serve, args=(work, there, extra), daemon=True)
        self.process.start()
        there.close()

    def __enter__(self) -> RewardProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()

    def ready(self) -> None:
        """Wait until its networks are loaded.

        Raises:
            AstroError: the worker's own, or its end.
        """
        self._answer(START_SECONDS)

    def begin(self, share: CpuShare) -> None:
        """Let it score its clips once with so many threads."""
        try:
            self.connection.send(share.threads)
        except OSError as error:
            raise self._ended() from error

    def seconds(self) -> float:
        """Wait for the end of what was begun: how long it took."""
        return self._answer(None)

    def time(self, share: CpuShare) -> float:
        """Seconds of the clips under a share, alone."""
        with throttled(self.process.pid or 0, share.running):
            self.begin(share)
            return self.seconds()

    def cpu_seconds(self) -> float:
        """That it has computed so far, on all its threads."""
        used = psutil.Process(self.process.pid).cpu_times()
        return used.user + used.system

    def _answer(self, timeout: float | None) -> Any:
        try:
            if not self.connection.poll(timeout):
                raise RunError(f"worker reward-{self.work.name}", "", f"not ready after {timeout:g} seconds")
            answer = self.connection.recv()
        except (EOFError, OSError) as error:
            raise self._ended() from error
        if isinstance(answer, AstroError):
            raise answer
        return answer

    def _ended(self) -> RunError:
        self.process.join(1.0)
        what = f"ended with {self.process.exitcode}: killed, out of memory or crashed"
        return RunError(f"worker reward-{self.work.name}", "", what)


@contextmanager
def throttled(pid: int, running: float) -> Iterator[None]:
    """A process that runs for this share of the time inside the block."""
    if running >= 1:
        yield
        return
    done = threading.Event()

    def turn() -> None:
        while not done.is_set():
            os.kill(pid, signal.SIGSTOP)
            time.sleep(PERIOD * (1 - running))
            os.kill(pid, signal.SIGCONT)
            done.wait(PERIOD * running)

    thread = threading.Thread(target=turn, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _serve(work: TimedWork, connection: Connection, extra: dict[str, str]) -> None:
    """The worker: for every number of threads that it hears, it scores its clips once and answers the seconds."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
    os.environ |= extra
    try:
        from astro_cli.execution.timed_clips import prepared

        score = prepared(work)
        connection.send(True)
        while True:
            threads.use(connection.recv())
            began = time.perf_counter()
            score()
            connection.send(time.perf_counter() - began)
    except AstroError as error:
        connection.send(error)
    except EOFError:
        return
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        connection.send(RunError(f"worker reward-{work.name}", "", "out of memory"))

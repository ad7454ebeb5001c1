"""Spreads videos over processes, each with scorers of its own. The calling process is the only writer."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

from astro_cli.config.errors import RunError
from astro_cli.core import threads
from eval.scoring.scorers import ConfiguredScorer, layer_flops
from eval.scoring.worker import Frames, ScoredVideo, ScoringWorker, Work

_desk: ScoringWorker | None = None  # a worker's, built once in `_start`


def run(
    works: Sequence[Work], scorers: Sequence[ConfiguredScorer], frames: Frames, decoder: str, jobs: int
) -> Iterator[ScoredVideo]:
    """Score all works; results come as they are done, in any order where there are several processes.

    Args:
        jobs: processes; 1 scores here.

    Raises:
        RunError: a worker died.
    """
    if jobs == 1 or len(works) < 2:
        threads.fit(layer_flops(scorers))
        desk = ScoringWorker(scorers, frames, decoder)
        yield from map(desk.score, works)
        return
    count = min(jobs, len(works))
    context = multiprocessing.get_context("spawn")  # torch and CUDA do not survive a fork
    pool = ProcessPoolExecutor(
        count, mp_context=context, initializer=_start, initargs=(scorers, frames, decoder, threads.share(count))
    )
    try:
        for future in as_completed(_submit(pool, works)):
            yield future.result()
    except BrokenProcessPool as error:
        hint = "out of memory? try fewer --jobs; the same command goes on where it stopped"
        raise RunError("--jobs", str(count), "a scoring process died", hint=hint) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, works: Sequence[Work]) -> list[Future[ScoredVideo]]:
    """Start the workers with Ctrl-C ignored, which they inherit. Before their initialiser runs, Ctrl-C would end each
    with a traceback.
    """
    if threading.current_thread() is not threading.main_thread():
        return [pool.submit(_score, work) for work in works]
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return [pool.submit(_score, work) for work in works]
    finally:
        signal.signal(signal.SIGINT, handler)


def _start(scorers: Sequence[ConfiguredScorer], frames: Frames, decoder: str, share: dict[str, str]) -> None:
    """Prepare a worker: it uses its share of the cores, ignores Ctrl-C and ends with its parent, even a killed one."""
    global _desk
    os.environ.update(share)
    threads.fit(layer_flops(scorers))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()
    _desk = ScoringWorker(scorers, frames, decoder)


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _score(work: Work) -> ScoredVideo:
    assert _desk is not None
    return _desk.score(work)

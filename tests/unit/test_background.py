"""Scoring beside the rollout: order, errors, gradients, and whose time is whose."""

import threading

import pytest
import torch

from astro_cli.config.errors import RunError
from astro_cli.core.background import Background
from astro_cli.training.timing import SectionTimer

CPU = torch.device("cpu")


def test_work_runs_in_order_beside_the_caller_and_without_gradients():
    """The second rollout goes on while the first is scored: the worker waits for a sign that only the caller's next
    step gives.
    """
    next_one_began, order = threading.Event(), []

    def score(name: str, weight: torch.Tensor) -> bool:
        assert name == "second" or next_one_began.wait(10)
        order.append(name)
        return (weight * 2).requires_grad

    weight = torch.ones(1, requires_grad=True)
    with Background(CPU) as background:
        first = background.submit(score, "first", weight)
        next_one_began.set()
        second = background.submit(score, "second", weight)
        assert (first.result(), second.result()) == (False, False)
    assert order == ["first", "second"]


def test_an_error_of_the_worker_reaches_the_caller_and_drops_what_waits():
    done = []

    def fail() -> None:
        raise RunError("reward", "vq", "non-finite")

    blocker = threading.Event()

    def overlap() -> None:
        with Background(CPU) as background:
            failing = background.submit(fail)
            background.submit(blocker.wait, 0.2)
            background.submit(done.append, 1)
            failing.result()

    with pytest.raises(RunError, match="vq"):
        overlap()
    assert done == []


def test_sections_of_two_threads_are_charged_apart(monkeypatch):
    """The caller rolls out from 0 to 4, the worker scores from 1 to 3: 4 and 2 seconds, not 1, 2 and 1."""
    now = [0.0]
    monkeypatch.setattr("astro_cli.training.timing.time.perf_counter", lambda: now[0])
    timer = SectionTimer()

    def reward() -> None:
        now[0] = 1.0
        with timer("reward"):
            now[0] = 3.0

    with timer("rollout"):
        worker = threading.Thread(target=reward)
        worker.start()
        worker.join()
        now[0] = 4.0
    assert timer.take() == {"reward": 2.0, "rollout": 4.0}

"""Runs a grid's jobs: one process per training or evaluation, some at a time; a failure stops no other.

Owns the processes and their logs.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING

from astro_cli.config.errors import AstroError
from astro_cli.core import processes, threads

if TYPE_CHECKING:
    from eval.papers.ablation import Job

TAIL = 3  # lines of a failed run's log that are shown
STOPPED = "stopped"
SECONDS = "seconds.jsonl"  # in the logs: what every process took


class GridRun:
    """Runs jobs in threads, each of which waits for one process at a time.

    Args:
        results: folder of the records.
        logs: one file per job, and the seconds of all processes.
        prompts: of each evaluation; absent: the suites' own numbers.
        overrides, steps: what the jobs were planned with.
    """

    def __init__(
        self,
        results: Path,
        logs: Path,
        prompts: int | None = None,
        overrides: list[str] | None = None,
        steps: int | None = None,
    ) -> None:
        self.results, self.logs = results, logs
        self.prompts, self.overrides, self.steps = prompts, overrides or [], steps
        self.jobs = 1
        self.running: set[subprocess.Popen[bytes]] = set()
        self.stopped = False

    def run(self, planned: list[Job], jobs: int, ended: Callable[[int, Job, str], None]) -> list[tuple[Job, str]]:
        """Run all, `jobs` at a time.

        Args:
            ended: told after every job: how many have ended, the job, what went wrong ("" for nothing).

        Returns:
            The failed jobs, each with the end of its log.
        """
        failed: list[tuple[Job, str]] = []
        self.jobs = jobs
        self.logs.mkdir(parents=True, exist_ok=True)
        # A termination acts as Ctrl-C does: else the processes would go on by themselves.
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        with ThreadPoolExecutor(jobs) as pool:
            try:
                futures: dict[Future[str], Job] = {}
                by_name: dict[str, Future[str]] = {}
                for job in planned:  # one that starts from another comes after it, and waits for it
                    first = by_name.get(job.after) if job.after is not None else None
                    by_name[job.name] = future = pool.submit(self._one, job, first)
                    futures[future] = job
                for number, future in enumerate(as_completed(futures), start=1):
                    job, why = futures[future], future.result()
                    if why:
                        failed.append((job, why))
                    ended(number, job, why)
            finally:
                self._stop(pool)
                signal.signal(signal.SIGTERM, before)
        return failed

    def _stop(self, pool: ThreadPoolExecutor) -> None:
        self.stopped = True
        pool.shutdown(wait=False, cancel_futures=True)
        for process in list(self.running):
            process.terminate()

    def _one(self, job: Job, first: Future[str] | None) -> str:
        """Do one job, after the one it starts from. An unexpected exception fails this job and those after it, and
        stops no other.
        """
        try:
            if first is not None and (why := first.result()):
                return why if why == STOPPED else f"not begun: it starts from {job.after}, which failed"
            return self._work(job)
        except CancelledError:
            return STOPPED
        except (AstroError, OSError) as error:
            return str(error).replace("\n", " | ")

    def _work(self, job: Job) -> str:
        """Train if need be, record what training measured, evaluate what is not recorded; returns what went wrong, or
        nothing.
        """
        from eval.report.training_records import record_training
        from eval.world.run import is_recorded

        if job.recipe is not None:
            if job.state != "finished" and (why := self._call(job, "train", self._training(job))):
                return why
            if self.stopped:
                return STOPPED
            record_training(Path(job.arm), self.results)
        for suite in job.suites:
            if self.stopped:
                return STOPPED
            if not is_recorded(job.arm, job.seed, self.prompts, self.results, suite) and (
                why := self._call(job, suite, self._evaluation(job, suite))
            ):
                return why
        return ""

    def _training(self, job: Job) -> list[str]:
        assert job.recipe is not None
        assert job.given is not None
        sets = [argument for override in (*self.overrides, *job.sets) for argument in ("--set", override)]
        steps = [] if self.steps is None else ["--steps", str(self.steps)]
        resume = ["--resume"] if job.state in ("started", "changed") else []
        return [
            job.recipe.command,
            "--recipe",
            job.given,
            "--seed",
            str(job.seed),
            "--out",
            job.arm,
            *sets,
            *steps,
            *resume,
        ]

    def _evaluation(self, job: Job, suite: str) -> list[str]:
        """The command, without frames per second: those measured beside other processes are worthless."""
        from eval.world.suites import at

        prompts = [] if self.prompts is None else ["--prompts", str(self.prompts)]
        name, size = at(suite)
        return [
            "eval",
            name,
            *(["--size", size] if size else []),
            "--arm",
            job.arm,
            "--seeds",
            str(job.seed),
            "--results",
            str(self.results),
            *prompts,
            "--timing",
            "none",
        ]

    def _call(self, job: Job, what: str, arguments: list[str]) -> str:
        """Run one process on its share of the cores; returns what went wrong, or nothing."""
        from eval.records import jsonl

        log, began = self.logs / f"{job.log}.log", time.monotonic()
        with log.open("ab") as file:
            process = subprocess.Popen(
                processes.command(*arguments),
                stdout=file,
                stderr=file,
                stdin=subprocess.DEVNULL,
                env=processes.environment(**threads.share(self.jobs)),
            )
        self.running.add(process)
        if self.stopped:  # while it was started
            process.terminate()
        try:
            code = process.wait()
        finally:
            self.running.discard(process)
        if self.stopped:
            return STOPPED
        row = {"job": log.stem, "what": what, "seconds": round(time.monotonic() - began, 1), "code": code}
        jsonl.append(self.logs / SECONDS, [jsonl.encode(row)], "time")
        if not code:
            return ""
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"exit code {code}, see {log}: " + " | ".join(lines[-TAIL:])


def core_seconds(logs: Path) -> dict[str, float]:
    """Seconds of one core that the grid's processes took so far: "training" and "evaluation"."""
    spent: defaultdict[str, float] = defaultdict(float)
    for _, what, seconds in process_seconds(logs):
        spent["training" if what == "train" else "evaluation"] += seconds
    return spent


def process_seconds(logs: Path) -> Iterator[tuple[str, str, float]]:
    """Of every process of a grid so far: its job's log, what it did, and how long it took."""
    from eval.records import jsonl

    path = logs / SECONDS
    for _, row in jsonl.read(path) if path.exists() else ():
        match row:
            case {"job": str(job), "what": str(what), "seconds": int() | float()}:
                yield job, what, row["seconds"]

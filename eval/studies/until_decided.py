"""More seeds where they help most: which undecided claim costs least to settle, and the runs of its next seed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from eval.papers.ablation import Job
from eval.papers.claims import Verdict
from eval.records import jsonl
from eval.studies.grid_run import SECONDS


class Round(NamedTuple):
    """One more seed for an undecided claim.

    Attributes:
        claim: its id.
        jobs: what is to run.
        further: seeds that would decide it, this one among them.
        seconds: of one core, for this seed.
    """

    claim: str
    jobs: list[Job]
    further: int
    seconds: float


def arm_of(job: Job) -> str:
    """The arm that a job's records name."""
    return job.recipe.name if job.recipe is not None else f"{job.arm.rpartition('/')[2]}_shapes"


def next_round(
    verdicts: Iterable[Verdict], planned: Callable[[int], Sequence[Job]], cost: Callable[[Job], float]
) -> Round | None:
    """The next seed of the undecided claim that is settled at the least cost, all its further seeds counted.

    Claims that seeds alone cannot settle, and those with arms that no grid runs, are left out.

    Args:
        planned: all jobs of a study at a seed, counted from 0.
        cost: expected seconds of one core of a job.
    """
    rounds = (_round(verdict, planned, cost) for verdict in verdicts if verdict.verdict == "undecided")
    return min(
        (each for each in rounds if each is not None), key=lambda each: each.further * each.seconds, default=None
    )


def _round(verdict: Verdict, planned: Callable[[int], Sequence[Job]], cost: Callable[[Job], float]) -> Round | None:
    if not verdict.open or any(part.needed is None for part in verdict.open):
        return None
    further = max(1, *((part.needed or 0) - part.seeds for part in verdict.open))
    arms = {arm for part in verdict.open for arm in part.arms}
    seed = max(part.seeds for part in verdict.open)
    jobs = [job for job in planned(seed) if arm_of(job) in arms]
    if {arm_of(job) for job in jobs} != arms:
        return None
    return Round(verdict.id, jobs, further, sum(map(cost, jobs)))


def costs(logs: Path) -> Callable[[Job], float]:
    """Seconds of one core a job took so far: its arm's mean over seeds, or the mean of all jobs where it never ran."""
    spent: defaultdict[str, float] = defaultdict(float)
    path = logs / SECONDS
    for _, row in jsonl.read(path) if path.is_file() else ():
        spent[row["job"]] += row["seconds"]
    by_arm: defaultdict[str, list[float]] = defaultdict(list)
    for name, seconds in spent.items():
        by_arm[name.rpartition("-seed-")[0]].append(seconds)
    everything = [seconds for values in by_arm.values() for seconds in values]

    def cost(job: Job) -> float:
        stem = job.name.replace("/", "-").replace(" ", "-").rpartition("-seed-")[0]
        known = by_arm.get(stem) or everything
        return sum(known) / len(known) if known else 0.0

    return cost


def run_until_decided(
    verdicts: Callable[[], Iterable[Verdict]],
    planned: Callable[[int], Sequence[Job]],
    logs: Path,
    jobs: int,
    left: Callable[[], float],
    run: Callable[[Round], None],
) -> str:
    """Add seeds, one claim's next seed at a time, until all is decided or the time is up; returns why it ended.

    Args:
        verdicts: of the records as they are now.
        jobs: runs at a time.
        left: seconds that are left; no round is begun that is expected to take longer.
        run: does a round's jobs.
    """
    while True:
        chosen = next_round(verdicts(), planned, costs(logs))
        if chosen is None:
            return "no undecided claim is left that more seeds would decide"
        expected = chosen.seconds / min(jobs, len(chosen.jobs))
        if expected > left():
            return f"the next seed, for {chosen.claim}, takes about {expected / 60:.0f} min, more than is left"
        run(chosen)

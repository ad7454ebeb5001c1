"""More seeds where they help most: which undecided claim costs least to settle, and the runs of its next seed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from eval.papers.ablation import Job
from eval.papers.claims import Open, Verdict
from eval.studies.grid_run import process_seconds


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


def next_seed(seeds: Sequence[int], taken: Collection[int]) -> int:
    """The first seed of a study that is not taken, else the one after all."""
    return next((seed for seed in seeds if seed not in taken), max((*seeds, *taken)) + 1)


class Planner(NamedTuple):
    """What can be run.

    Attributes:
        seeds: of the study.
        jobs: all of its jobs at a seed.
        cost: expected seconds of one core of a job.
    """

    seeds: Sequence[int]
    jobs: Callable[[int], Sequence[Job]]
    cost: Callable[[Job], float]

    def rounds(self, verdicts: Iterable[Verdict]) -> Iterator[Round]:
        """The next seed of every undecided claim that more seeds would decide: all of its open parts, and no other
        part that is missing or cannot be told. Claims with arms that no grid runs are left out.
        """
        for verdict in verdicts:
            is_open = verdict.verdict == "undecided" and bool(verdict.open)
            others = len(verdict.open) != sum(part.verdict != "holds" for part in verdict.parts)
            if is_open and not others and (each := self._round(verdict)) is not None:
                yield each

    def _round(self, verdict: Verdict) -> Round | None:
        missing = [part.needed - len(part.seeds) for part in verdict.open if part.needed is not None]
        if len(missing) < len(verdict.open):
            return None
        arms = {arm for part in verdict.open for arm in part.arms}
        fewest = min(verdict.open, key=lambda part: len(part.seeds))
        jobs = [job for job in self.jobs(next_seed(self.seeds, fewest.seeds)) if arm_of(job) in arms]
        if {arm_of(job) for job in jobs} != arms:
            return None
        return Round(verdict.id, jobs, max(1, *missing), sum(map(self.cost, jobs)))


def costs(logs: Path) -> Callable[[Job], float]:
    """Seconds of one core a job took so far: its arm's mean over seeds, or the mean of all jobs where it never ran."""
    spent: defaultdict[str, float] = defaultdict(float)
    for job, _, seconds in process_seconds(logs):
        spent[job] += seconds
    by_arm: defaultdict[str, list[float]] = defaultdict(list)
    for name, seconds in spent.items():
        by_arm[_without_seed(name)].append(seconds)
    everything = [seconds for values in by_arm.values() for seconds in values]

    def cost(job: Job) -> float:
        known = by_arm.get(_without_seed(job.log)) or everything
        return sum(known) / len(known) if known else 0.0

    return cost


def _without_seed(log: str) -> str:
    return log.rpartition("-seed-")[0]


def run_until_decided(
    verdicts: Callable[[], Iterable[Verdict]],
    planner: Callable[[], Planner],
    jobs: int,
    left: Callable[[], float],
    run: Callable[[Round], None],
) -> str:
    """Add seeds, one claim's next seed at a time, the claim first that is settled at the least cost, until all is
    decided or the time is up; returns why it ended.

    A claim that a seed left as it was, as where the runs do not measure its metric, gets no other one.

    Args:
        verdicts: of the records as they are now.
        planner: with the costs as they are known now.
        jobs: runs at a time.
        left: seconds that are left; no round is begun that is expected to take longer.
        run: does a round's jobs.
    """
    stuck: dict[str, list[Open]] = {}  # what was open when a claim's last seed was run
    while True:
        now = [verdict for verdict in verdicts() if verdict.open != stuck.get(verdict.id)]
        chosen = min(planner().rounds(now), key=lambda each: each.further * each.seconds, default=None)
        if chosen is None:
            return "no undecided claim is left that more seeds would decide"
        expected = chosen.seconds / min(jobs, len(chosen.jobs))
        if expected > left():
            return f"the next seed, for {chosen.claim}, takes about {expected / 60:.0f} min, more than is left"
        stuck[chosen.claim] = next(verdict.open for verdict in now if verdict.id == chosen.claim)
        run(chosen)

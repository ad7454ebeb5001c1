"""Which reward workers run side by side, and with which share of the device: TeleBoost's quota planner.

    T_g = max_{w in p_g} C_w(q_w)      T = sum_g T_g      sum_{w in p_g} q_w <= 1

Source: TeleBoost (arXiv 2602.07595), Eq. 7 to 9. C_w(q) is the measured time of worker w under quota q.

Deviations: the paper names a "lightweight greedy search" and gives no algorithm. Here C_w is fitted as a + b / q: `a`
does not shrink with the quota (latency, serial parts), `b` does. Inside a group all workers then end together, at the T
that solves sum_w b_w / (T - a_w) = 1, found by bisection. Partitions are enumerated up to six workers, beyond them the
two groups whose merger saves most are merged until none saves. Workers that scale perfectly (a = 0) gain nothing side
by side: T is then the sum of their b, the serial time.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

MOST_EXACT = 6  # workers whose partitions are enumerated: Bell(6) = 203
FEWEST_QUOTAS = 3  # of a profile; two points fit any a and b
LEAST_QUOTA = 0.01  # of a worker in a group: the smallest percentage of MPS
LEAST_GAIN = 0.02  # share of the serial time that a plan must save; less is within a measurement's noise


@dataclass(frozen=True)
class Scaling:
    """Seconds a + b / q of a worker under quota q."""

    a: float
    b: float

    def seconds(self, quota: float) -> float:
        return self.a + self.b / quota

    def quota(self, seconds: float) -> float:
        """The least quota with which it ends within this time; infinite where none does."""
        if seconds < self.a or (seconds == self.a and self.b > 0):
            return math.inf
        return LEAST_QUOTA if self.b == 0 else max(LEAST_QUOTA, self.b / (seconds - self.a))


@dataclass(frozen=True)
class Group:
    """Workers that run side by side: quotas by name, which sum to 1 at most, and their time in seconds."""

    quotas: Mapping[str, float]
    seconds: float


@dataclass(frozen=True)
class RewardPlan:
    """Groups that run one after the other. `serial` are the seconds of all workers one by one, each with the whole
    device."""

    groups: tuple[Group, ...]
    serial: float

    @property
    def seconds(self) -> float:
        """The makespan T (Eq. 8)."""
        return _total(self.groups)

    @property
    def is_serial(self) -> bool:
        return all(len(group.quotas) == 1 for group in self.groups)


def check_profile(profile: Mapping[float, float]) -> None:
    """Seconds by quota.

    Raises:
        ValueError: "what is wrong, found, expected": fewer than three quotas, a quota outside (0, 1], a time that is
            not positive and finite.
    """
    for quota, seconds in profile.items():
        if not 0 < quota <= 1:
            raise ValueError(f"found the quota {quota:g}, expected more than 0 and at most 1, the whole device")
        if not 0 < seconds < math.inf:
            raise ValueError(f"found {seconds:g} seconds at the quota {quota:g}, expected a positive number")
    if len(profile) < FEWEST_QUOTAS:
        raise ValueError(f"found {len(profile)} quotas, expected {FEWEST_QUOTAS} or more: two points fit any curve")


def fit(profile: Mapping[float, float]) -> Scaling:
    """Least squares of a + b / q over seconds by quota, a and b not negative.

    Raises:
        ValueError: see `check_profile`.
    """
    check_profile(profile)
    quotas, seconds = np.array(list(profile)), np.array(list(profile.values()))
    (a, b), _ = nnls(np.stack([np.ones_like(quotas), 1 / quotas], 1), seconds)
    return Scaling(float(a), float(b))


def side_by_side(workers: Mapping[str, Scaling]) -> Group:
    """The fastest split of the whole device over workers that run together (Eq. 7 under Eq. 9)."""
    if len(workers) == 1:
        [(name, only)] = workers.items()
        return Group({name: 1.0}, only.seconds(1.0))

    def needed(seconds: float) -> float:
        return sum(worker.quota(seconds) for worker in workers.values())

    equal = 1 / len(workers)
    low, high = 0.0, max(worker.seconds(equal) for worker in workers.values())  # equal shares are always allowed
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (low, middle) if needed(middle) <= 1 else (middle, high)
    quotas = {name: worker.quota(high) for name, worker in workers.items()}
    return Group(quotas, max(worker.seconds(quotas[name]) for name, worker in workers.items()))


def partitions(names: Sequence[str]) -> Iterator[list[list[str]]]:
    """Every way to divide names into groups, each once."""
    if not names:
        yield []
        return
    first, rest = names[0], names[1:]
    for parts in partitions(rest):
        yield [[first], *parts]
        for place, part in enumerate(parts):
            yield [*parts[:place], [first, *part], *parts[place + 1 :]]


def exact(workers: Mapping[str, Scaling]) -> tuple[Group, ...]:
    """The best partition of all."""
    timed: dict[frozenset[str], Group] = {}

    def group(names: Sequence[str]) -> Group:
        key = frozenset(names)
        if key not in timed:
            timed[key] = side_by_side({name: workers[name] for name in names})
        return timed[key]

    candidates = [list(map(group, parts)) for parts in partitions(list(workers))]
    return tuple(min(candidates, key=_total))


def _total(groups: Sequence[Group]) -> float:
    return sum(group.seconds for group in groups)


def greedy(workers: Mapping[str, Scaling]) -> tuple[Group, ...]:
    """From one worker a group: merge the two groups that save most together, until no merger saves."""
    groups = [side_by_side({name: worker}) for name, worker in workers.items()]
    while len(groups) > 1:
        mergers = []
        for one, other in itertools.combinations(groups, 2):
            merged = side_by_side({name: workers[name] for name in (*one.quotas, *other.quotas)})
            mergers.append((one.seconds + other.seconds - merged.seconds, one, other, merged))
        saving, one, other, merged = max(mergers, key=lambda merger: merger[0])
        if saving <= 0:
            break
        groups = [merged if group is one else group for group in groups if group is not other]
    return tuple(groups)


def plan(workers: Mapping[str, Scaling]) -> RewardPlan:
    """Groups and quotas of the least makespan; serial where side by side saves less than `LEAST_GAIN`."""
    alone = tuple(side_by_side({name: worker}) for name, worker in workers.items())
    serial = _total(alone)
    best = (exact if len(workers) <= MOST_EXACT else greedy)(workers)
    gained = serial - _total(best)
    return RewardPlan(best if gained > LEAST_GAIN * serial else alone, serial)

"""How many threads torch computes with: one where layers are small, all cores where they are large. The one place that
sets the number.

Two threads meet at the end of every operation. Where an operation is short and another process holds one of the cores,
each meeting costs a time slice of the scheduler; a small network makes thousands of them a second. Small networks
therefore take one thread, and processes side by side fill the machine.

What the user says comes first: `--threads N`, then OMP_NUM_THREADS. Imports torch only where the number is set.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

USER_VARIABLE = "OMP_NUM_THREADS"  # of OpenMP, which torch computes with
SHARE_VARIABLE = "ASTRO_CORES"  # cores a process may use, set by the one that starts several of them
# All cores are used from this much work of the widest layer on. Speed of two threads over one on 2 cores, by the work
# of a linear layer:
#   MFLOP                        1.6   6    34   134   537   2147  4295  9664
#   quiet                        -     1.4  1.9  -     -     -     -     -
#   beside 5 to 10 processes     .01   -    -    .14   .4    1.0   1.1   1.0
#   and one more for each core   .01   -    -    .20   .55   1.0   1.2   1.9
# (`python -m bench.threads` measures it.) The layers of the embedded world have 6 MFLOP, those of Wan 2.1 1.3B 43,000
# and more.
THREADS_PAY_FLOPS = 2e9
LARGE = float("inf")  # work of networks whose layers are known to be large
SMALL = 0.0  # ... to be small


class Threads(NamedTuple):
    """A number of threads and the reason for it, in words."""

    number: int
    why: str


_requested: int | None = None  # by --threads


def ask(number: int | None) -> None:
    """Take the number of `--threads`; None leaves the choice to OMP_NUM_THREADS and the rule."""
    global _requested
    _requested = number


def cores() -> int:
    """Cores this process may use: all of the machine's, of its affinity mask, or its share beside other processes."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = os.environ.get(SHARE_VARIABLE, "")
    return min(allowed, _count(share) or allowed)


def _count(text: str) -> int:
    """A variable's number of threads or cores; 0 where it is none."""
    return int(text) if re.fullmatch("[0-9]{1,4}", text) else 0


def is_set_by_user() -> bool:
    """Whether the user says how many."""
    return _requested is not None or USER_VARIABLE in os.environ


def choose(flops: float) -> Threads:
    """The number of threads for this much work.

    Args:
        flops: floating-point operations of the widest layer in the smallest pass that is repeated.
    """
    if _requested is not None:
        return Threads(_requested, "--threads")
    first = os.environ.get(USER_VARIABLE, "").split(",")[0].strip()  # a list gives a number per nesting level
    if number := _count(first):
        return Threads(number, USER_VARIABLE)
    level = f"{THREADS_PAY_FLOPS / 1e9:g} GFLOP each"
    if flops < THREADS_PAY_FLOPS:
        return Threads(1, f"for small layers (below {level}), where more threads wait for each other")
    return Threads(cores(), f"for large layers ({level} or more), one thread per core")


def fit(flops: float) -> Threads:
    """Let torch compute with as many threads as `choose` says."""
    chosen = choose(flops)
    use(chosen.number)
    return chosen


def use(number: int) -> None:
    """Let torch compute with this many threads, in the thread that calls this and in the main one."""
    import torch

    torch.set_num_threads(number)


def share(processes: int) -> dict[str, str]:
    """What to add to the environment of each of several processes side by side: its share of the cores, and the number
    of `--threads`.
    """
    shared = {SHARE_VARIABLE: str(max(1, cores() // processes))}
    return shared if _requested is None else shared | {USER_VARIABLE: str(_requested)}

"""Which transition kernel a sampler takes its steps with, and how noisy it is. Free of torch, for recipes.

| kind | a step from sigma to sigma' | level |
|---|---|---|
| renoise | x0 with fresh noise of level sigma': the few-step sampler of distilled students | none |
| cps | keeps the total noise sigma'; a share of it is fresh | nu in [0, 1]: 0 is the ODE, 1 is `renoise` |
| dance | the ODE with constant diffusion | eta >= 0: 0 is the ODE |
| flow | the ODE with diffusion a sqrt(sigma / (1 - sigma)) | a >= 0: 0 is the ODE |
| ode | Euler on the probability-flow ODE | none |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["renoise", "cps", "dance", "flow", "ode"]
LEVELS = {"cps": (0.0, 1.0), "dance": (0.0, float("inf")), "flow": (0.0, float("inf"))}  # kinds with a level, its range


@dataclass(frozen=True)
class Kernel:
    """A kind and its noise level; 0 where the kind has none.

    Attributes:
        window: steps [first, stop) that are taken with it, the others with the ODE; None: all.
    """

    kind: Kind
    level: float = 0.0
    window: tuple[int, int] | None = None

    @property
    def random(self) -> bool:
        """Whether its steps draw noise, so that a step has a density."""
        return self.kind == "renoise" or self.level > 0.0

    def at(self, step: int) -> Kernel:
        """The kernel of a step of the sampler."""
        return self if self.window is None or self.window[0] <= step < self.window[1] else ODE


RENOISE = Kernel("renoise")
ODE = Kernel("ode")


def level_problem(kind: Kind, level: float | None) -> str | None:
    """What is wrong with a kernel's noise level, None where nothing is."""
    if kind not in LEVELS:
        return None if level is None else f"found {level}, {kind!r} has no noise level: leave it out"
    if level is None:
        return f"missing, {kind!r} needs its noise level"
    least, most = LEVELS[kind]
    if least <= level <= most:
        return None
    return f"found {level}, expected {f'a number from {least:g} to {most:g}' if kind == 'cps' else '0 or more'}"

"""The path a video takes through a feature space: principal components and how compact, far apart and evenly connected
its events are.

Free of torch. Dimensions: T frame, D feature, K component.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np


def project(z_TD: np.ndarray, components: int) -> tuple[np.ndarray, float]:
    """Points on the video's own first principal directions (T, K), and the share of the variance they hold (0 where
    nothing varies).

    z~_t = W^T (z_t - mu). A direction's sign is free; its largest entry is made positive. Fewer than `components`
    directions exist for short videos: the rest is 0.

    Source: Delta Forcing 2605.14382v1, Appendix A.2, Eq. 12 and 13 (two components). **Deviations:** none.
    """
    centred_TD = z_TD.astype(np.float64) - z_TD.mean(axis=0, dtype=np.float64)
    _, spread, directions = np.linalg.svd(centred_TD, full_matrices=False)
    w_KD = directions[:components]
    largest = np.abs(w_KD).argmax(axis=1)
    w_KD = w_KD * np.where(w_KD[np.arange(len(w_KD)), largest] < 0, -1.0, 1.0)[:, None]
    points_TK = centred_TD @ w_KD.T
    total = float((spread**2).sum())
    share = float((spread[:components] ** 2).sum()) / total if total > 0 else 0.0
    missing: tuple[tuple[int, int], ...] = ((0, 0), (0, components - points_TK.shape[1]))
    return np.pad(points_TK, missing), share


@dataclass(frozen=True)
class Shape:
    """Lengths are in the units of the features; None where there is one event only, or no movement to divide by.

    Attributes:
        spread: s = mean over events e of sqrt(mean over t in e of |z_t - m_e|^2), m_e the event's mean point.
        displacement: mean over switches of |m_(e+1) - m_e|.
        step: mean over switches of |z_b - z_(b-1)|, b the first frame of the new event.
        smoothness: mean over switches of (1 - max_i d_i / sum_i d_i) / (1 - 1/n), d_1..d_n the steps of the bridge
            around the switch: 1 where all steps are equally long, 0 where one step makes the whole way.
    """

    spread: float
    displacement: float | None
    step: float | None
    smoothness: float | None


def measure(points_TK: np.ndarray, events: Sequence[Sequence[int]], bridge: int) -> Shape:
    """Compactness within events and movement between neighbouring ones.

    Args:
        events: row numbers of each event, ascending, none empty.
        bridge: frames of the bridge before and after a switch.

    Source: Delta Forcing, Appendix A.1: "within-interaction aggregation" and "smooth cross-interaction displacement",
        and claim df-trajectory.
    **Deviations:** the paper shows pictures and gives no number; these formulas are ours.
    """
    groups = [points_TK[list(event)] for event in events]
    centres = [group.mean(axis=0) for group in groups]
    spreads = [
        float(np.sqrt(((group - centre) ** 2).sum(axis=1).mean()))
        for group, centre in zip(groups, centres, strict=True)
    ]
    moves = [float(np.linalg.norm(after - before)) for before, after in pairwise(centres)]
    switches = [event[0] for event in events[1:]]
    steps = [float(np.linalg.norm(points_TK[first] - points_TK[first - 1])) for first in switches]
    bridges = [evenness(points_TK[max(0, first - bridge) : first + bridge]) for first in switches]
    return Shape(
        float(np.mean(spreads)), _mean(moves), _mean(steps), _mean([value for value in bridges if value is not None])
    )


def evenness(path_TK: np.ndarray) -> float | None:
    """(1 - max d / sum d) / (1 - 1/n) over the n steps d of a path; None of fewer than two steps, or where nothing
    moves.
    """
    steps = np.linalg.norm(np.diff(path_TK, axis=0), axis=1)
    total = float(steps.sum())
    if len(steps) < 2 or total == 0:
        return None
    return float((1 - steps.max() / total) / (1 - 1 / len(steps)))


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None

"""Simulated raters for the papers' user studies: they judge arms by the oracle's scores that are recorded, and err.

A rater's opinion of a video is the oracle's score plus noise of a Gumbel distribution, so that of two videos a and b a
is preferred with chance sigmoid((s_a - s_b) / tau). tau is fitted so that two raters agree about three pairs of four,
on average over arms and prompts.
Source: Reward Forcing (arXiv 2512.04678), Table 4; Delta Forcing (arXiv 2605.14382v1), Table 3.

**Deviations**: the papers asked people; these raters know nothing but the oracle.
Dimensions: A arm, P prompt, T trial.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from scipy.stats import rankdata

from astro_cli.core.rng import stream_seed
from astro_cli.training.environment import environment
from eval.records import store
from eval.records.writer import RecordWriter

AGREEMENT = 0.75  # of two raters
HALVINGS = 60
SCALE = 4  # ratings are 1 to 4
BACKBONE: store.Backbone = "shapes"


class RaterStudy(NamedTuple):
    """A user study of a paper.

    Attributes:
        benchmark: of the records it makes.
        source: the suite whose records hold the oracle's scores.
        kind: whether raters give each video a rating or put all videos of a prompt in order.
        criteria: what is asked for -> the oracle's scores whose mean decides.
        total: name of the mean of all criteria; "": none.
        arms: in the order of the table.
        raters, each: how many, and how many trials each sees.
    """

    benchmark: str
    source: str
    kind: Literal["likert", "rank"]
    criteria: dict[str, tuple[str, ...]]
    total: str
    arms: tuple[str, ...]
    raters: int
    each: int


RATER_STUDIES = {
    "reward-forcing": RaterStudy(
        "simulated-likert",
        "shapes-long",
        "likert",
        {"consistency": ("identity",), "dynamics": ("dynamics",), "preference": ("vq", "mq", "ta")},
        "",
        ("self_forcing_shapes", "longlive_shapes", "reward_forcing_shapes"),
        20,
        20,
    ),
    "delta-forcing": RaterStudy(
        "simulated-rank",
        "shapes-multi",
        "rank",
        {"aesthetic": ("vq",), "dynamic": ("dynamics",), "naturalness": ("mq",)},
        "average",
        ("longlive_shapes", "reward_forcing_shapes", "delta_forcing_shapes"),
        20,
        3,
    ),
}


@dataclass(frozen=True)
class _Judged:
    """Arms with the records a criterion needs at one seed, and its scores (A, P)."""

    records: list[store.Record]
    scores_AP: np.ndarray


def agreement(scores_AP: np.ndarray, tau: float) -> float:
    """How often two raters prefer the same of two arms' videos of a prompt, on average: p^2 + (1 - p)^2."""
    one, other = np.triu_indices(len(scores_AP), k=1)
    difference = np.clip((scores_AP[one] - scores_AP[other]) / tau, -700, 700)
    p = 1 / (1 + np.exp(-difference))
    return float((p**2 + (1 - p) ** 2).mean())


def temperature(scores_AP: np.ndarray) -> float:
    """tau at which two raters agree in three of four pairs, or the least there is where more noise than any is needed:
    equal scores.
    """
    spread = float(np.ptp(scores_AP))
    low, high = 1e-6 * (spread or 1.0), 1e3 * (spread or 1.0)
    for _ in range(HALVINGS):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if agreement(scores_AP, middle) > AGREEMENT else (low, middle)
    return (low * high) ** 0.5


def opinions(scores_AP: np.ndarray, trials: int, seed: int) -> np.ndarray:
    """(A, T) what raters think: trial t is of prompt t, going round, by a rater of its own."""
    rng = np.random.default_rng(seed)
    prompts = np.arange(trials) % scores_AP.shape[1]
    return scores_AP[:, prompts] + rng.gumbel(scale=temperature(scores_AP), size=(len(scores_AP), trials))


def judgements(kind: Literal["likert", "rank"], opinion_AT: np.ndarray) -> np.ndarray:
    """(A, T) ranks from 1, the best, or ratings from 1 to 4, the best: the quarter of all opinions an opinion is in."""
    if kind == "rank":
        return rankdata(-opinion_AT, axis=0)
    edges = np.quantile(opinion_AT, np.arange(1, SCALE) / SCALE)
    return 1.0 + np.searchsorted(edges, opinion_AT)


def rate(paper: str, results: Path) -> int:
    """Judge the arms of a paper's user study that have records at the same seed; writes a record per arm and criterion.

    Returns:
        How many seeds were judged; 0 where fewer than two arms have what it takes.
    """
    study = RATER_STUDIES[paper]
    path = store.record_path(results, study.source)
    records = store.latest(store.load([path])) if path.is_file() else []
    judged = 0
    for seed in sorted({record.seed for record in records}):
        of_seed = [record for record in records if record.seed == seed and record.backbone == BACKBONE]
        judged += _rate_seed(study, seed, of_seed, results)
    return judged


def _rate_seed(study: RaterStudy, seed: int, records: Sequence[store.Record], results: Path) -> bool:
    judged = {name: _scores(study, metrics, records) for name, metrics in study.criteria.items()}
    if any(len(each.records) < 2 for each in judged.values()):
        return False
    here, trials, all_AT = environment("cpu", seed), study.raters * study.each, []
    for name, each in judged.items():
        opinion_AT = opinions(each.scores_AP, trials, stream_seed("simulated-raters", study.benchmark, name, seed))
        all_AT.append(judgements(study.kind, opinion_AT))
        _write(study, name, each.records, all_AT[-1], seed, results, here)
    if study.total:
        _write(study, study.total, each.records, np.mean(all_AT, axis=0), seed, results, here)
    return True


def _scores(study: RaterStudy, metrics: tuple[str, ...], records: Sequence[store.Record]) -> _Judged:
    """The arms that have all of these metrics of the prompts of the first that has."""
    by_key = {(record.arm, record.metric): record for record in records}
    kept, rows = list[store.Record](), []
    for arm in study.arms:
        own = [by_key[arm, metric] for metric in metrics if (arm, metric) in by_key]
        if len(own) < len(metrics) or (kept and own[0].prompt_set_hash != kept[0].prompt_set_hash):
            continue
        values = np.array([record.scores for record in own], dtype=float)  # None becomes NaN
        kept.append(own[0])
        rows.append(values.mean(0))
    scores_AP = np.array(rows) if rows else np.zeros((0, 0))
    return _Judged(kept, scores_AP[:, ~np.isnan(scores_AP).any(0)])


def _write(
    study: RaterStudy,
    name: str,
    records: Sequence[store.Record],
    judged_AT: np.ndarray,
    seed: int,
    results: Path,
    here: dict[str, object],
) -> None:
    protocol = {"raters": study.raters, "trials": judged_AT.shape[1], "agreement": AGREEMENT, "source": study.source}
    for record, scores in zip(records, judged_AT, strict=True):
        hashes = record.recipe_hash, record.weights_hash, record.prompt_set_hash
        writer = RecordWriter(results, study.benchmark, BACKBONE, record.arm, seed, *hashes)
        values = [float(score) for score in scores]
        if (old := writer.own().get(name)) is None or list(old.scores) != values:
            direction: store.Direction = "down" if study.kind == "rank" else "up"
            writer.append(writer.record(name, direction, values, protocol, here))

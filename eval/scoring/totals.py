"""Computes a suite's totals once all their metrics are complete. A total has one score per prompt, which gives its
interval.

Dimensions: P prompts, D metrics.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from eval.contract import MetricInfo
from eval.records import store
from eval.scoring.outcomes import Outcome, mean_of
from eval.vbench import totals as vbench_totals

PERCENT = 100.0


@dataclass(frozen=True)
class Total:
    """A total that is affine in the means of its metrics (fractions)."""

    metrics: tuple[str, ...]
    formula: Callable[[Mapping[str, float]], float]
    text: str


def consistency(means: Mapping[str, float]) -> float:
    """Mean of subject and background consistency. Astrolabe (arXiv 2603.17051), Table 3, "Consistency Score".

    **Deviations:** the paper gives no formula; ours.
    """
    return (means["subject_consistency"] + means["background_consistency"]) / 2


TOTALS = {
    "quality": Total(
        tuple(vbench_totals.QUALITY_DIMENSIONS),
        vbench_totals.quality,
        "VBench: weighted mean of the seven quality dimensions",
    ),
    "semantic": Total(
        tuple(vbench_totals.SEMANTIC_DIMENSIONS), vbench_totals.semantic, "VBench: mean of the nine semantic dimensions"
    ),
    "total": Total(tuple(vbench_totals.DIMENSIONS), vbench_totals.total, "VBench: (4 Quality + Semantic) / 5"),
    "long_total": Total(
        vbench_totals.LONG_DIMENSIONS,
        vbench_totals.long_total,
        "Reward Forcing: weighted mean of six quality dimensions",
    ),
    "i2v": Total(
        tuple(vbench_totals.I2V_DIMENSIONS),
        vbench_totals.i2v,
        "VBench-I2V: likeness to the image, and camera motion at weight 0.1",
    ),
    "i2v_quality": Total(
        vbench_totals.LONG_DIMENSIONS, vbench_totals.i2v_quality, "VBench-I2V: weighted mean of six quality dimensions"
    ),
    "i2v_total": Total(
        (*vbench_totals.I2V_DIMENSIONS, *vbench_totals.LONG_DIMENSIONS),
        vbench_totals.i2v_total,
        "VBench-I2V: mean of its own part and its quality",
    ),
    "consistency": Total(
        ("subject_consistency", "background_consistency"), consistency, "mean of subject and background consistency"
    ),
}


def gather(outcomes: Iterable[Outcome], earlier: Iterable[store.Record]) -> list[Outcome]:
    """The metrics of an evaluation, and those of records that it lacks."""
    own = {outcome.key: outcome for outcome in outcomes}
    for record in earlier:
        info = MetricInfo(record.metric, record.direction, record.protocol["unit"], "recorded before")
        count = sum(score is not None for score in record.scores)
        own[record.metric] = Outcome(
            record.metric,
            info,
            count,
            count,
            list(record.scores),
            mean_of(record.scores),
            scale=record.protocol["scale"],
        )
    return list(own.values())


def totals(names: Mapping[str, str], outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The totals of a suite, in percent.

    Args:
        names: name in records -> name in `TOTALS`.
        outcomes: the suite's metrics over one folder, with the same order of prompts.
    """
    by_key = {outcome.key: outcome for outcome in outcomes}
    return [_total(key, TOTALS[name], by_key) for key, name in names.items()]


def _total(key: str, total: Total, by_key: Mapping[str, Outcome]) -> Outcome:
    info = MetricInfo(key, "up", "percent", total.text)
    parts = [
        by_key[name]
        for name in total.metrics
        if name in by_key and by_key[name].complete and by_key[name].mean is not None
    ]
    if len(parts) < len(total.metrics):
        return Outcome(key, info, len(parts), len(total.metrics), None, None, parts="metrics")
    scores = _linearised(total, parts)
    return Outcome(
        key, info, len(parts), len(parts), scores, float(np.nanmean(np.array(scores, dtype=float))), parts="metrics"
    )


def _linearised(total: Total, parts: Sequence[Outcome]) -> list[float | None]:
    """One number per prompt whose mean is the total and whose spread is the total's, in percent; None where no metric
    has a score.

    T + sum_d w_d (P / P_d) (x_pd - m_d) over the metrics d that prompt p has: the empirical influence of prompt p on T
    = c + sum_d w_d m_d, where m_d is a mean over P_d of the P prompts. The standard error of these numbers' mean is T's
    to first order (the nonparametric delta method). Efron & Tibshirani 1993, ch. 22.
    """
    values_DP = np.array([part.scores for part in parts], dtype=float) / np.array([[part.scale] for part in parts])
    means_D = np.nanmean(values_DP, axis=1)
    names = [part.key for part in parts]
    base = total.formula(dict(zip(names, means_D, strict=True)))
    weights_D = [
        total.formula({**dict(zip(names, means_D, strict=True)), name: mean + 1}) - base
        for name, mean in zip(names, means_D, strict=True)
    ]
    present_DP = ~np.isnan(values_DP)
    share_D = present_DP.any(0).sum() / present_DP.sum(1)
    influence_DP = np.where(present_DP, (values_DP - means_D[:, None]) * (np.array(weights_D) * share_D)[:, None], 0.0)
    scores_P = np.where(present_DP.any(0), PERCENT * (base + influence_DP.sum(0)), np.nan)
    return [None if math.isnan(score) else score for score in scores_P.tolist()]

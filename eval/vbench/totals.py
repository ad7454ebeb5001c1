"""Computes VBench's totals from its sixteen dimensions: normalisation, weights, Quality, Semantic, Total.

Scores are fractions, as VBench's own JSON has them: 0.9633 is what tables print as 96.33.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from astro_cli.config.errors import RecordError

QUALITY_WEIGHT, SEMANTIC_WEIGHT = 4.0, 1.0


class Range(NamedTuple):
    """The empirical range of a dimension and its weight within its group."""

    low: float
    high: float
    weight: float = 1.0


# VBench 0.1.5, scripts/constant.py; printed as Reward Forcing (arXiv 2512.04678), Table 5.
QUALITY_DIMENSIONS = {
    "subject_consistency": Range(0.1462, 1.0),
    "background_consistency": Range(0.2615, 1.0),
    "temporal_flickering": Range(0.6293, 1.0),
    "motion_smoothness": Range(0.706, 0.9975),
    "dynamic_degree": Range(0.0, 1.0, weight=0.5),
    "aesthetic_quality": Range(0.0, 1.0),
    "imaging_quality": Range(0.0, 1.0),
}
SEMANTIC_DIMENSIONS = {
    "object_class": Range(0.0, 1.0),
    "multiple_objects": Range(0.0, 1.0),
    "human_action": Range(0.0, 1.0),
    "color": Range(0.0, 1.0),
    "spatial_relationship": Range(0.0, 1.0),
    "scene": Range(0.0, 0.8222),
    "appearance_style": Range(0.0009, 0.2855),
    "temporal_style": Range(0.0, 0.364),
    "overall_consistency": Range(0.0, 0.364),
}
DIMENSIONS = QUALITY_DIMENSIONS | SEMANTIC_DIMENSIONS
# VBench++, arXiv 2411.13503: ranges as VBench's, camera motion at a tenth of the weight.
I2V_DIMENSIONS = {
    "i2v_subject": Range(0.1462, 1.0),
    "i2v_background": Range(0.2615, 1.0),
    "camera_motion": Range(0.0, 1.0, weight=0.1),
}
RANGES = DIMENSIONS | I2V_DIMENSIONS
# Reward Forcing, section 4.1: its VBench-Long total leaves flicker and the semantic dimensions out.
LONG_DIMENSIONS = tuple(name for name in QUALITY_DIMENSIONS if name != "temporal_flickering")


def normalise(dimension: str, score: float) -> float:
    """(score - min) / (max - min), not clipped: motion smoothness above 0.9975 is above 1.

    Raises:
        RecordError: no such dimension.
    """
    if dimension not in RANGES:
        raise RecordError("vbench", dimension, f"no such dimension, allowed: {', '.join(RANGES)}")
    span = RANGES[dimension]
    return (score - span.low) / (span.high - span.low)


def weighted(scores: Mapping[str, float], dimensions: Iterable[str]) -> float:
    """Weighted mean of the normalised scores of these dimensions.

    Args:
        scores: fraction per dimension; others than asked for are ignored.
        dimensions: which enter; all of them must be there.

    Raises:
        RecordError: a dimension has no score.

    Source: VBench 0.1.5, scripts/cal_final_score.py.
    **Deviations:** VBench counts an absent dimension as 0 and prints a total all the same; here a total needs every
    dimension.
    """
    wanted = list(dimensions)
    if missing := [name for name in wanted if name not in scores]:
        raise RecordError(
            "vbench",
            ", ".join(missing),
            f"no score, so no total: {len(wanted) - len(missing)} of {len(wanted)} dimensions",
        )
    terms = [RANGES[name].weight * normalise(name, scores[name]) for name in wanted]
    return sum(terms) / sum(RANGES[name].weight for name in wanted)


def quality(scores: Mapping[str, float]) -> float:
    """Quality: the seven quality dimensions, dynamic degree at half weight."""
    return weighted(scores, QUALITY_DIMENSIONS)


def semantic(scores: Mapping[str, float]) -> float:
    """Semantic: the plain mean of the nine semantic dimensions."""
    return weighted(scores, SEMANTIC_DIMENSIONS)


def combine(quality_score: float, semantic_score: float) -> float:
    """Total = (4 Quality + Semantic) / 5."""
    return (QUALITY_WEIGHT * quality_score + SEMANTIC_WEIGHT * semantic_score) / (QUALITY_WEIGHT + SEMANTIC_WEIGHT)


def total(scores: Mapping[str, float]) -> float:
    """Total from all sixteen dimensions."""
    return combine(quality(scores), semantic(scores))


def long_total(scores: Mapping[str, float]) -> float:
    """Reward Forcing's VBench-Long total: six quality dimensions with the constants and weights of VBench."""
    return weighted(scores, LONG_DIMENSIONS)


def i2v(scores: Mapping[str, float]) -> float:
    """VBench-I2V's own part: subject and background likeness to the image, camera motion at weight 0.1."""
    return weighted(scores, I2V_DIMENSIONS)


def i2v_quality(scores: Mapping[str, float]) -> float:
    """VBench-I2V's quality: six dimensions, no flicker, dynamic degree at half weight; the same as `long_total`."""
    return weighted(scores, LONG_DIMENSIONS)


def i2v_total(scores: Mapping[str, float]) -> float:
    """VBench-I2V's total: the mean of both parts."""
    return (i2v(scores) + i2v_quality(scores)) / 2

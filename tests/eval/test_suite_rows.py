"""What `astro eval SUITE` prints of one metric: a mean, an interval where there is one, coverage, unit and
direction.
"""

from __future__ import annotations

from astro_cli.commands.eval_suite import row
from eval.contract import MetricInfo
from eval.scoring.outcomes import Outcome

INFO = MetricInfo("flicker", "up", "0..1", "text")


def outcome(scores: list[float | None], mean: float | None) -> Outcome:
    return Outcome("flicker", INFO, len(scores), len(scores), scores, mean)


def test_one_prompt_has_a_mean_without_an_interval() -> None:
    assert row(outcome([88.7754], 88.7754), allow_partial=False)[:4] == ["flicker", "88.7754", "", "1/1"]
    assert row(outcome([88.7754, None], 88.7754), allow_partial=False)[2] == ""  # the other prompt has no score


def test_two_prompts_have_an_interval() -> None:
    # standard error sqrt(.5 / 2) = .5, Student's quantile with one degree of freedom 12.706: 1.5 -+ 6.353
    assert row(outcome([1.0, 2.0], 1.5), allow_partial=False)[1:3] == ["1.5000", "-4.8531 .. 7.8531"]

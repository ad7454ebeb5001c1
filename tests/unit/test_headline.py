"""Headlines of claims: numbers as a reader says them, every part, and what was claimed."""

from __future__ import annotations

import pytest

from eval.papers.claims import PartVerdict
from eval.renderers.headline import by_pair, counts_text, headline, headline_lines, headline_text
from tests.claim_records import compare, pair, verdict


def part(**changes: object) -> PartVerdict:
    fields = {
        "text": "vq: tuned > base",
        "verdict": "holds",
        "metric": "vq",
        "a": "tuned",
        "b": "base",
        "a_mean": 0.805,
        "b_mean": 0.755,
        "effect": 0.05,
        "effect_kind": "difference",
        "low": 0.019,
        "high": 0.089,
        "n": 3,
        "relation": ">",
    }
    return PartVerdict.model_validate(fields | changes)


def test_the_line_of_a_part() -> None:
    # half-width (.089 - .019) / 2 = .035: two significant digits are three decimals
    assert headline_text(part()) == "VQ .755 -> .805, +.050 [.019, .089], holds, 3 seeds"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"n": 1}, "VQ .755 -> .805, +.050 [.019, .089], holds, 1 seed"),
        (
            {"effect": -0.0004, "low": -0.03, "high": 0.04, "verdict": "undecided"},
            "VQ .755 -> .805, .000 [-.030, .040], undecided, 3 seeds",  # no -0.000
        ),
        (
            {"relation": ">=", "allowance": "within 2%, ours"},
            "VQ .755 -> .805, +.050 [.019, .089], holds, 3 seeds, claimed: no lower, within 2%, ours",
        ),
        (
            {"metric": "peak_memory", "a_mean": 2.0**21, "b_mean": 2.0**22, "effect": -(2.0**21)}
            | {"low": -(2.0**21), "high": -(2.0**21), "relation": "<"},
            "peak memory 4.0 -> 2.0 MiB, -2.0 MiB, holds, 3 seeds, claimed: falls",  # exact: no interval
        ),
        (
            {"metric": "peak_memory", "a_mean": 2.0**21, "b_mean": 2.0**22, "effect": 0.5, "effect_kind": "ratio"}
            | {"low": 0.5, "high": 0.5, "relation": "<=", "reference": 0.6},
            "peak memory 4.0 -> 2.0 MiB, ratio .500, holds, 3 seeds, claimed: <= 0.6",
        ),
        (
            {"metric": "x0_norm_growth", "b": "", "a_mean": None, "b_mean": None, "effect": 0.927}
            | {"effect_kind": "value", "low": 0.912, "high": 0.943, "reference": 1.0, "verdict": "fails"},
            "x0 norm growth .927 [.912, .943], fails, 3 seeds, claimed: > 1",
        ),
        (
            {"a_mean": None, "b_mean": None, "effect": None, "low": None, "high": None, "verdict": "not run"},
            "VQ, not run, 3 seeds",
        ),
        ({"low": None, "high": None}, "VQ .755 -> .805, +.050, holds, 3 seeds"),  # one prompt under one seed
    ],
)
def test_lines(changes: dict[str, object], line: str) -> None:
    expected = line.replace(", 3 seeds", "") if changes.get("verdict") == "not run" else line
    assert headline_text(part(**changes)) == expected


def test_means_and_effect_are_those_of_the_records() -> None:
    records = pair("vq", 1.0)  # 0..7 has the mean 3.5
    (only,) = verdict(compare(">"), records).parts
    assert (only.b_mean, only.a_mean, only.effect, only.relation) == (3.5, 4.5, 1.0, ">")
    assert headline(only).means == "3.500 -> 4.500"


def test_a_ratio_has_its_factor_and_its_means() -> None:
    (only,) = verdict(compare("<=", ", factor = 2.0"), pair("vq", 1.0)).parts
    assert (only.b_mean, only.a_mean, only.reference, only.metric) == (3.5, 4.5, 2.0, "vq")
    assert only.effect == pytest.approx(4.5 / 3.5)


def test_parts_stand_under_the_sides_they_compare() -> None:
    parts = (compare(">"), compare(">").replace("base", "other"), compare(">", metrics='"mq"'))
    judged = verdict(", ".join(parts), pair("vq", 1.0) + pair("mq", -1.0))
    assert [(name, [each.metric for each in of_pair]) for name, of_pair in by_pair(judged)] == [
        ("base -> tuned", ["vq", "mq"]),
        ("other -> tuned", ["vq"]),
    ]
    assert headline_lines([judged]) == [
        "fails      t [P T1]",
        "           base -> tuned",
        "             VQ 3.500 -> 4.500, +1.000, holds, 3 seeds",
        "             MQ 3.500 -> 2.500, -1.000, fails, 3 seeds",
        "           other -> tuned",
        "             VQ, not run",
        "0 hold, 1 fails, 0 undecided, 0 not run of 1 claims",
    ]


def test_claims_that_were_not_run_are_counted_only() -> None:
    waiting = verdict(compare(">"), [])
    assert headline_lines([waiting]) == ["0 hold, 0 fail, 0 undecided, 1 not run of 1 claims"]
    assert headline_lines([]) == []
    assert counts_text([waiting, waiting]) == "0 hold, 0 fail, 0 undecided, 2 not run"

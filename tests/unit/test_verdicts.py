"""Verdicts of claims from records made by hand: comparisons, ratios, trends, bounds, counts, and what is refused."""

from __future__ import annotations

import pytest

from astro_cli.config.errors import IntegrityError, RecordError
from eval.papers.claims import parse_claims
from eval.papers.verdicts import conjunction, evaluate, judge
from eval.records.stats import Interval
from eval.renderers.claims import claims_text
from tests.claim_records import BASE, PROMPTS, TUNED, compare, pair, record, verdict


@pytest.mark.parametrize(
    ("low", "high", "relation", "margin", "expected"),
    [
        (0.1, 0.3, ">", 0.0, "holds"),
        (-0.1, 0.3, ">", 0.0, "undecided"),
        (-0.3, -0.1, ">", 0.0, "fails"),
        (0.0, 0.0, ">", 0.0, "fails"),  # exactly no difference is no rise
        (0.1, 0.3, ">", 0.2, "undecided"),
        (0.0, 0.0, ">=", 0.0, "holds"),
        (-0.1, 0.3, ">=", 0.2, "holds"),
        (-0.3, -0.25, ">=", 0.2, "fails"),
        (-0.3, 0.1, ">=", 0.2, "undecided"),
        (-0.3, -0.1, "<", 0.0, "holds"),
        (0.1, 0.3, "<", 0.0, "fails"),
        (0.1, 0.3, "<=", 0.3, "holds"),
        (0.4, 0.5, "<=", 0.3, "fails"),
        (-0.1, 0.1, "=", 0.1, "holds"),
        (-0.1, 0.2, "=", 0.1, "undecided"),
        (0.2, 0.3, "=", 0.1, "fails"),
        (-0.3, -0.2, "=", 0.1, "fails"),
    ],
)
def test_judge(low: float, high: float, relation: str, margin: float, expected: str) -> None:
    assert judge(Interval((low + high) / 2, low, high, 3), relation, margin) == expected  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (["holds", "holds"], "holds"),
        (["holds", "fails", "not run"], "fails"),
        (["holds", "undecided"], "undecided"),
        (["holds", "not run"], "undecided"),
        (["not run", "not run"], "not run"),
    ],
)
def test_conjunction(parts: list, expected: str) -> None:
    assert conjunction(parts) == expected


@pytest.mark.parametrize(
    ("gain", "spread", "expected"), [(1.0, 0.5, "holds"), (-1.0, 0.5, "fails"), (0.0, 0.5, "undecided")]
)
def test_paired_comparison(gain: float, spread: float, expected: str) -> None:
    found = verdict(compare(">"), pair("vq", gain, spread))
    assert (found.verdict, found.n, found.backbone) == (expected, 3, "shapes")
    assert found.effect == pytest.approx(gain)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= gain <= found.high


def test_one_prompt_under_one_seed_has_an_effect_without_an_interval() -> None:
    found = verdict(compare(">"), [record(BASE, "vq", [1.0]), record(TUNED, "vq", [3.0])])
    assert (found.verdict, found.effect, found.low, found.high, found.n) == ("undecided", 2.0, None, None, 1)
    assert "+2.000 (1 seed, shapes)" in claims_text([found])


def test_nothing_measured() -> None:
    found = verdict(compare(">"), [])
    assert (found.verdict, found.effect, found.low, found.high, found.n) == ("not run", None, None, None, 0)
    only_base = [r for r in pair("vq", 1.0) if r.arm == BASE]
    assert verdict(compare(">"), only_base).verdict == "not run"
    assert verdict(compare(">"), pair("vq", 1.0), "wan").verdict == "not run"


def test_conjunction_over_metrics_shows_the_part_that_decides() -> None:
    records = pair("vq", 1.0, 0.5) + pair("mq", -2.0, 0.5)
    found = verdict(compare(">", metrics='"vq", "mq"'), records)
    assert found.verdict == "fails"
    assert found.effect == pytest.approx(-2.0)
    assert [(part.text, part.verdict) for part in found.parts] == [
        ("vq: tuned > base", "holds"),
        ("mq: tuned > base", "fails"),
    ]


def test_margins() -> None:
    records = pair("vq", -0.05)  # 2 % of the base's 3.5 is 0.07
    assert verdict(compare(">="), records).verdict == "fails"
    assert verdict(compare(">=", ", margin_share = 0.02"), records).verdict == "holds"
    assert verdict(compare("=", ", margin_share = 0.02"), records).verdict == "holds"
    assert verdict(compare("=", ", margin = 0.01"), records).verdict == "fails"


def test_a_factor_is_compared_with_the_ratio() -> None:
    records = [record(BASE, "peak_memory", [100.0]), record(TUNED, "peak_memory", [55.0])]
    found = verdict(compare("<=", ", factor = 0.6, exact = true", '"peak_memory"'), records)
    assert (found.verdict, found.effect, found.effect_kind) == ("holds", 0.55, "ratio")  # and not -5 of whatever unit
    assert found.low == found.high == 0.55
    assert "ratio 0.550 [0.550, 0.550]" in claims_text([found])
    assert verdict(compare("<=", ", factor = 0.5, exact = true", '"peak_memory"'), records).verdict == "fails"


def test_the_interval_of_a_ratio_by_hand() -> None:
    # b is 1 throughout and a is .4 +- .1 under one seed: the ratio is a itself, s = .1069, 2.3646 x .1069 / sqrt 8 =
    # .0894
    scores = [0.3, 0.5] * 4
    records = [record(BASE, "dynamics", [1.0] * PROMPTS), record(TUNED, "dynamics", scores)]
    found = verdict(compare("<", ", factor = 0.5", '"dynamics"'), records)
    assert (found.verdict, found.effect) == ("holds", pytest.approx(0.4))
    assert (found.low, found.high) == pytest.approx((0.3106, 0.4894), abs=1e-4)
    assert verdict(compare("<", ", factor = 0.45", '"dynamics"'), records).verdict == "undecided"
    nothing = [record(BASE, "dynamics", [0.0] * PROMPTS), record(TUNED, "dynamics", scores)]
    found = verdict(compare("<", ", factor = 0.5", '"dynamics"'), nothing)
    assert (found.verdict, found.effect) == ("undecided", None)  # no share of nothing


def test_a_difference_of_memory_is_in_the_unit_of_tables() -> None:
    records = [record(BASE, "peak_memory", [3.0 * 2**20]), record(TUNED, "peak_memory", [2.0**20])]
    found = verdict(compare("<", ", exact = true", '"peak_memory"'), records)
    assert "-2.000 [-2.000, -2.000] MiB" in claims_text([found])


@pytest.mark.parametrize(
    ("wins", "expected", "bounds"),
    [
        ({"x": 1, "y": 1, "z": -1}, "holds", (2 / 3, 2 / 3, 2 / 3)),
        ({"x": 1, "y": -1, "z": -1}, "fails", (1 / 3, 1 / 3, 1 / 3)),
        ({"x": 1, "y": -1}, "undecided", (1 / 3, 1 / 3, 2 / 3)),  # z was not measured: it may yet be won
        ({"x": 1, "y": 0, "z": -1}, "undecided", (1 / 3, 1 / 3, 2 / 3)),  # equal but for spread: open
    ],
)
def test_best_in_most_metrics_is_counted(wins: dict[str, int], expected: str, bounds: tuple[float, ...]) -> None:
    records = []
    for metric, gain in wins.items():
        spread = [0.5, -0.5] * (PROMPTS // 2) if gain == 0 else [0.0] * PROMPTS
        records += [
            record(TUNED, metric, [float(gain) + value for value in spread]),
            record("low_shapes", metric, [-9.0] * PROMPTS),
        ]
        records.append(record(BASE, metric, [0.0] * PROMPTS))
    part = (
        '{ kind = "most", metrics = ["x", "y", "z", "w"], a = "tuned", b = ["base", "low"], absent = { shapes = '
        '["w"] } }'
    )
    found = verdict(part, records)
    assert found.verdict == expected
    assert (found.effect, found.low, found.high) == pytest.approx(bounds)
    assert found.effect_kind == "share"
    assert "best of tuned, base, low in most of 3 metrics" in found.parts[0].text
    assert verdict(part, []).verdict == "not run"


def test_too_few_pairs_decide_nothing_unless_exact() -> None:
    records = [record(arm, "vq", [value] * 5) for arm, value in ((BASE, 0.0), (TUNED, 1.0))]
    assert verdict(compare(">"), records).verdict == "undecided"
    assert verdict(compare(">", ", exact = true"), records).verdict == "holds"


@pytest.mark.parametrize(
    ("values", "expected"), [((1.0, 2.0, 3.0), "holds"), ((1.0, 3.0, 2.0), "fails"), ((3.0, 2.0, 1.0), "fails")]
)
def test_trend(values: tuple[float, ...], expected: str) -> None:
    arms = ["low", "mid", "top"]
    records = [
        record(f"{arm}_shapes", "drift", [value + i for i in range(PROMPTS)])
        for arm, value in zip(arms, values, strict=True)
    ]
    rises = '{ kind = "trend", metrics = ["drift"], order = ["low", "mid", "top"], direction = "rises" }'
    assert verdict(rises, records).verdict == expected
    falls = rises.replace("rises", "falls")
    assert (verdict(falls, records).verdict == "holds") == (values == (3.0, 2.0, 1.0))


@pytest.mark.parametrize(("relation", "expected"), [("<=", "holds"), (">", "fails"), ("=", "fails")])
def test_bound(relation: str, expected: str) -> None:
    part = f'{{ kind = "bound", metrics = ["quota"], a = "tuned", relation = "{relation}", value = 1.0 }}'
    found = verdict(part, [record(TUNED, "quota", [0.8, 0.9] * 4)])
    assert found.verdict == expected
    assert found.effect == pytest.approx(0.85)  # the mean itself, not its distance from the bound
    assert verdict(part, []).verdict == "not run"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.93, 0.95, 0.97], "fails"),  # .95 +- 4.30 x .02 / sqrt 3 = [.90, 1.00], below 1.1
        ([0.8, 1.0, 1.2], "undecided"),  # [.50, 1.50], though no value is above 1.2
        ([1.29, 1.3, 1.31], "holds"),
        ([1.3], "undecided"),
    ],
)
def test_one_value_per_run_is_judged_by_students_interval(values: list[float], expected: str) -> None:
    part = '{ kind = "bound", metrics = ["growth"], a = "tuned", relation = ">", value = 1.1 }'
    records = [record(TUNED, "growth", [value]).model_copy(update={"seed": seed}) for seed, value in enumerate(values)]
    assert verdict(part, records).verdict == expected


def test_mixed_protocols_are_refused_naming_both() -> None:
    records = [r.model_copy(update={"prompt_set_hash": "q"}) if r.arm == TUNED else r for r in pair("vq", 1.0)]
    with pytest.raises(IntegrityError, match="claim c: vq: mixes protocols") as caught:
        verdict(compare(">"), records)
    assert all(part in str(caught.value) for part in ("tuned has prompt set q", "base has prompt set p", "hint: "))


def test_records_of_several_benchmarks_are_refused_unless_one_is_named() -> None:
    records = pair("vq", 1.0) + pair("vq", -1.0, benchmark="shapes-long")
    with pytest.raises(RecordError, match="records of several benchmarks: shapes, shapes-long"):
        verdict(compare(">"), records)
    text = (
        f'title = "P"\n[[claims]]\nid = "c"\nsource = "s"\ntext = "t"\nbenchmark = {{ shapes = "shapes-long" '
        f"}}\nparts = [{compare('>')}]\n"
    )
    (found,) = evaluate(parse_claims(text, "p.toml"), records)
    assert found.effect == -1.0


def test_no_common_seed_decides_nothing() -> None:
    records = [r.model_copy(update={"seed": 9}) if r.arm == TUNED else r for r in pair("vq", 1.0, seeds=1)]
    found = verdict(compare(">"), records)
    assert (found.verdict, found.effect) == ("undecided", None)

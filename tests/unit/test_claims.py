"""Claims: the TOMLs are complete, and every verdict comes from records made by hand."""

from __future__ import annotations

import json
import re

import pytest

from astro_cli.config.errors import IntegrityError, RecordError
from eval.papers.claims import PaperClaims, Verdict, list_papers, load_claims, parse_claims
from eval.papers.published import load_table
from eval.papers.verdicts import conjunction, evaluate, judge
from eval.records.stats import Interval
from eval.records.store import Record
from eval.renderers.claims import claims_html, claims_json, claims_markdown, claims_text

# All of the papers' claims, by id.
IDS = {
    "astrolabe": [
        "as-gain-sf",
        "as-gain-ll",
        "as-gain-cf",
        "as-throughput",
        "as-long",
        "as-multi",
        "as-mem-clip",
        "as-quality-clip",
        "as-kl",
        "as-hack-vq",
        "as-hack-mq",
        "as-hack-ta",
        "as-all",
        "as-beta",
        "as-adaptive",
        "as-const-mem",
    ],
    "reward-forcing": [
        "rf-window-speed",
        "rf-dynamic",
        "rf-wo-redmd",
        "rf-wo-ema",
        "rf-wo-sink",
        "rf-alpha",
        "rf-beta",
        "rf-const",
        "rf-totals",
    ],
    "delta-forcing": ["df-consistency", "df-follow", "df-wo-cont", "df-wo-trust", "df-bias", "df-trajectory"],
    "teleboost": [
        "tb-bpgo",
        "tb-vipo",
        "tb-selfpaced",
        "tb-joint",
        "tb-dpo",
        "tb-dgb",
        "tb-makespan",
        "tb-sft-geo",
        "tb-sft-flow",
    ],
    "aapt": ["aa-student", "aa-recycle", "aa-long", "aa-onestep"],
}
PROMPTS = 8
BASE, TUNED = "base_shapes", "tuned_shapes"


def record(arm: str, metric: str, scores: list[float], seed: int = 0, **changes: object) -> Record:
    fields = {
        "benchmark": "shapes",
        "backbone": "shapes",
        "direction": "up",
        "recipe_hash": "r",
        "weights_hash": "w",
        "prompt_set_hash": "p",
        "protocol": {"num_frames": 12, "prompts": len(scores), "device": "cpu"},
        "commit": "abc",
        "dirty": False,
        "created": "2026-01-01T00:00:00+00:00",
    }
    return Record.model_validate(fields | {"arm": arm, "metric": metric, "scores": scores, "seed": seed} | changes)


def pair(metric: str, gain: float, spread: float = 0.0, seeds: int = 3, **changes: object) -> list[Record]:
    """Base and tuned records whose differences are gain +- spread, alternating over prompts; the base's mean is 3.5."""
    base = [float(prompt) for prompt in range(PROMPTS)]
    tuned = [value + gain + (spread if prompt % 2 else -spread) for prompt, value in enumerate(base)]
    return [
        record(arm, metric, scores, seed, **changes)
        for seed in range(seeds)
        for arm, scores in ((BASE, base), (TUNED, tuned))
    ]


def claims(parts: str, extra: str = "") -> PaperClaims:
    return parse_claims(
        f'title = "P"\n{extra}\n[[claims]]\nid = "c"\nsource = "P T1"\ntext = "t"\nparts = [{parts}]\n', "p.toml"
    )


def verdict(parts: str, records: list[Record], backbone: str = "shapes", extra: str = "") -> Verdict:
    (found,) = evaluate(claims(parts, extra), records, backbone)
    return found


def compare(relation: str, more: str = "", metrics: str = '"vq"') -> str:
    return f'{{ metrics = [{metrics}], a = "tuned", relation = "{relation}", b = ["base"]{more} }}'


# --- the files


def test_every_claim_is_there() -> None:
    assert {paper: [claim.id for claim in load_claims(paper).claims] for paper in list_papers()} == IDS
    assert sum(map(len, IDS.values())) == 44


def test_without_records_all_are_not_run_but_the_published_one() -> None:
    words = {each.id: each.verdict for paper in list_papers() for each in evaluate(load_claims(paper), [])}
    assert words.pop("rf-totals") == "holds"
    assert set(words.values()) == {"not run"}


def test_published_totals() -> None:
    found = next(each for each in evaluate(load_claims("reward-forcing"), []) if each.id == "rf-totals")
    assert found.backbone is None
    assert found.n == 0
    assert found.low is not None
    assert found.high is not None
    assert -0.01 < found.low <= 0 <= found.high < 0.01  # the printed totals deviate by at most 0.009


def test_metrics_have_their_wan_names() -> None:
    found = of_astrolabe(on_wan("hpsv3", "hpsv3", 1.0))
    assert found["as-hack-mq"].verdict == "not run"
    gain = found["as-gain-cf"]
    assert (gain.verdict, gain.effect, gain.backbone) == ("undecided", 1.0, "wan")  # VQ rises, MQ was not run


def on_wan(metric: str, benchmark: str, gain: float) -> list[Record]:
    """Causal-Forcing and its tuned student, both seeds of which gain alike."""
    arms = (("causal_forcing", 9.0), ("astrolabe_causal", 9.0 + gain))
    return [
        record(arm, metric, [value] * PROMPTS, seed, backbone="wan", benchmark=benchmark)
        for seed in (0, 1)
        for arm, value in arms
    ]


def of_astrolabe(records: list[Record], backbone: str = "wan") -> dict[str, Verdict]:
    return {each.id: each for each in evaluate(load_claims("astrolabe"), records, backbone)}


def test_short_and_long_videos_on_wan_are_different_claims() -> None:
    short = on_wan("hpsv3", "hpsv3", 1.0) + on_wan("mq", "videoalign", 1.0) + on_wan("ta", "videoalign", 1.0)
    long = on_wan("hpsv3", "hpsv3-long", -2.0) + on_wan("mq", "videoalign-long", -2.0)
    found = of_astrolabe(short + long)
    assert (found["as-gain-cf"].verdict, found["as-gain-cf"].effect) == ("holds", 1.0)
    assert (found["as-long"].verdict, found["as-long"].effect) == ("fails", -2.0)
    assert of_astrolabe(long)["as-gain-cf"].verdict == "not run"
    assert of_astrolabe(short)["as-long"].verdict == "not run"
    # Table 4c on Wan is about Causal-Forcing and `astrolabe_causal`
    assert (found["as-all"].verdict, found["as-all"].parts[0]) == (
        "holds",
        ("hpsv3: astrolabe_causal > causal_forcing", "holds"),
    )


def test_six_prompts_on_wan_are_judged_by_the_metrics_of_table_3() -> None:
    others = on_wan("hpsv3", "hpsv3", 1.0) + on_wan("mq", "videoalign", 1.0) + on_wan("ta", "videoalign", 1.0)
    assert of_astrolabe(others)["as-multi"].verdict == "not run"
    own = (
        on_wan("aesthetic_quality", "vbench-long-custom", 1.0)
        + on_wan("quality", "vbench-long-custom", 1.0)
        + on_wan("clip", "clip", -0.1)
    )
    parts = dict(of_astrolabe(others + own)["as-multi"].parts)
    table = load_table("astrolabe-3")
    assert {column.wan for column in table.columns} >= {"aesthetic_quality", "quality"}
    assert {text: word for text, word in parts.items() if word != "not run"} == {
        "aesthetic_quality: astrolabe_causal > causal_forcing": "holds",
        "quality: astrolabe_causal > causal_forcing": "holds",
        "clip: astrolabe_causal >= causal_forcing (within 2%, ours)": "holds",  # -0.1 of 9
    }


@pytest.mark.parametrize(
    ("norm", "reward", "expected"),
    [
        (1.3, -0.2, "holds"),
        (0.95, -0.2, "fails"),  # shrinks, though less than without
        (1.3, 0.1, "fails"),  # the reward rises, though less than without
        (0.95, 0.1, "fails"),
    ],
)
def test_adaptive_weighting_must_grow_and_fall_on_its_own(norm: float, reward: float, expected: str) -> None:
    records = []
    for seed in range(3):
        noise = 0.001 * seed
        for arm, values in (("astrolabe_adaptive_shapes", (norm, reward)), ("astrolabe_x0_shapes", (0.9, 0.5))):
            growth, change = (value + noise for value in values)
            records += [
                record(arm, "x0_norm_growth", [growth], seed, direction="down"),
                record(arm, "reward_change", [change], seed),
            ]
    assert of_astrolabe(records, "shapes")["as-adaptive"].verdict == expected


def test_a_claims_own_metrics_and_arms_go_before() -> None:
    records = pair("sharp", 1.0, benchmark="b") + pair("sharp", -1.0, benchmark="c") + pair("vq", -1.0)
    paper = 'metrics.shapes.vq = { name = "sharp", benchmark = "b" }'
    assert verdict(compare(">"), records, extra=paper).verdict == "holds"
    own = (
        '[[claims]]\nid = "d"\nsource = "s"\ntext = "t"\nmetrics.shapes.vq = { name = "sharp", benchmark = "c" '
        '}\narms.shapes.mine = "tuned"\n'
    )
    mine = compare("<").replace("tuned", "mine")
    found = evaluate(parse_claims(f'title = "P"\n{paper}\n{own}parts = [{mine}]\n', "p.toml"), records)[0]
    assert (found.verdict, found.parts) == ("holds", [("sharp: tuned < base", "holds")])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('relation = ">"', 'relation = "!"', "relation"),
        ('text = "t"', 'text = "t"\ntables = ["astrolabe-9"]', "no table 'astrolabe-9'"),
        ('metrics = ["vq"]', "metrics = []", "metrics"),
        ('a = "tuned"', 'A = "tuned"', "compare.A: unknown key"),
        ('b = ["base"]', 'b = ["base"], factor = 0.5, margin = 0.1', "factor"),
        ('title = "P"', "title =", "not valid TOML"),
    ],
)
def test_wrong_toml_is_a_user_error(old: str, new: str, message: str) -> None:
    text = f'title = "P"\n[[claims]]\nid = "c"\nsource = "P T1"\ntext = "t"\nparts = [{compare(">")}]\n'
    assert parse_claims(text, "p.toml").title == "P"
    with pytest.raises(RecordError) as caught:
        parse_claims(text.replace(old, new, 1), "p.toml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("error: p.toml: ")


def test_unknown_paper() -> None:
    with pytest.raises(RecordError, match="did you mean 'teleboost'"):
        load_claims("telebost")


# --- the rule


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


# --- over records


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
    assert found.parts == [("vq: tuned > base", "holds"), ("mq: tuned > base", "fails")]


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
    assert "best of tuned, base, low in most of 3 metrics" in found.parts[0][0]
    assert verdict(part, []).verdict == "not run"


def test_a_part_that_waits_for_a_recipe_says_so() -> None:
    waiting = verdict(compare(">", metrics='"vq", "mq"'), [], extra='planned = ["tuned"]')
    assert waiting.parts[0] == ("vq: tuned > base [no recipe yet: tuned]", "not run")
    only_base = [r for r in pair("vq", 1.0) if r.arm == BASE]
    assert (
        verdict(compare(">"), only_base, extra='planned = ["base", "tuned"]').parts[0][0]
        == "vq: tuned > base [no recipe yet: tuned]"
    )


def test_table_9s_numbers_support_what_is_claimed_of_them() -> None:
    """As printed: joint training is below the base in VQ, so no claim says it is above."""
    table = load_table("teleboost-9")
    arms = {"wan_1.3b": "Wan2.1-1.3B-T2V", "joint_grpo": "Joint train", "self_paced": "Self-paced GRPO"}
    records = [
        record(
            arm,
            metric,
            [float(str(table.row(label).published[metric]))] * PROMPTS,
            backbone="wan",
            benchmark="videoalign",
        )
        for arm, label in arms.items()
        for metric in ("vq", "mq", "ta")
    ]
    assert (
        next(each for each in evaluate(load_claims("teleboost"), records, "wan") if each.id == "tb-selfpaced").verdict
        == "holds"
    )


def test_table_4s_numbers_support_what_is_claimed_of_them() -> None:
    """BPGO is best of the three in 5 of the 9 columns; its TA is Table 3's."""
    table, records = load_table("teleboost-4"), []
    for row in table.rows:
        for column, cell in row.published.items():
            records.append(
                record(row.arm["wan"], column, [float(str(cell))] * PROMPTS, backbone="wan", benchmark="vbench")
            )
    for arm, ta in (("bpgo", 1.1193), ("grpo_noisy", 0.8984)):
        records.append(record(arm, "ta", [ta] * PROMPTS, backbone="wan", benchmark="videoalign"))
    found = next(each for each in evaluate(load_claims("teleboost"), records, "wan") if each.id == "tb-bpgo")
    assert found.verdict == "holds"
    assert found.parts[1][0] == "bpgo best of bpgo, bpgo_ras, bpgo_crt in most of 9 metrics: 5 won, 4 lost"


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


def test_claim_of_published_numbers_that_fails() -> None:
    found = verdict('{ kind = "published", verify = ["reward-forcing-2"] }', [])
    assert (found.verdict, found.backbone) == ("fails", None)


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


# --- printing


def test_stable_json() -> None:
    found = evaluate(claims(compare(">")), pair("vq", 1.0, 0.5))
    data = json.loads(claims_json(found))
    assert [list(each) for each in data] == [
        ["id", "source", "verdict", "effect", "effect_kind", "low", "high", "n", "backbone"]
    ]
    assert data[0] | {"low": 0, "high": 0} == {
        "id": "c",
        "source": "P T1",
        "verdict": "holds",
        "effect": 1.0,
        "effect_kind": "difference",
        "low": 0,
        "high": 0,
        "n": 3,
        "backbone": "shapes",
    }


def test_text_and_markdown() -> None:
    found = evaluate(claims(compare(">", metrics='"vq", "mq"')), pair("vq", 1.0))
    text = claims_text(found)
    assert text.startswith("undecided  c ")
    assert "- holds: vq: tuned > base" in text
    assert "- not run: mq: tuned > base" in text
    assert "| `c` | P T1 | t | undecided | +1.000 [+1.000, +1.000] | 3 | shapes |" in claims_markdown(found)


def test_html_is_escaped() -> None:
    text = claims_html(evaluate(claims(compare(">")), []))
    assert "<code>c</code>" in text
    hostile = evaluate(claims(compare(">")), [])[0].model_copy(update={"text": "<b>x</b>"})
    assert "&lt;b&gt;x" in claims_html([hostile])
    assert re.search(r'<td class="text">not run</td>', text)

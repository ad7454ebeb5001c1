"""The claims' TOML files: all are there, a wrong one is refused, and what a claim says for itself."""

from __future__ import annotations

import pytest

from astro_cli.config.errors import RecordError
from eval.papers.claims import list_papers, load_claims, parse_claims
from eval.papers.verdicts import evaluate
from tests.claim_records import BASE, compare, pair, verdict

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


def test_every_claim_is_there() -> None:
    assert {paper: [claim.id for claim in load_claims(paper).claims] for paper in list_papers()} == IDS
    assert sum(map(len, IDS.values())) == 44


def test_without_records_all_are_not_run_but_the_published_one() -> None:
    words = {each.id: each.verdict for paper in list_papers() for each in evaluate(load_claims(paper), [])}
    assert words.pop("rf-totals") == "holds"
    assert set(words.values()) == {"not run"}


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
    assert (found.verdict, [part.text for part in found.parts]) == ("holds", ["sharp: tuned < base"])


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


def test_a_part_that_waits_for_a_recipe_says_so() -> None:
    waiting = verdict(compare(">", metrics='"vq", "mq"'), [], extra='planned = ["tuned"]')
    first = waiting.parts[0]
    assert (first.text, first.verdict) == ("vq: tuned > base [no recipe yet: tuned]", "not run")
    only_base = [r for r in pair("vq", 1.0) if r.arm == BASE]
    assert (
        verdict(compare(">"), only_base, extra='planned = ["base", "tuned"]').parts[0].text
        == "vq: tuned > base [no recipe yet: tuned]"
    )

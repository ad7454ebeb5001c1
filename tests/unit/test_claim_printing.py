"""Verdicts as JSON, text, Markdown and HTML."""

from __future__ import annotations

import json
import re

from eval.papers.verdicts import evaluate
from eval.renderers.claims import claims_html, claims_json, claims_markdown, claims_text
from tests.claim_records import claims, compare, pair


def test_stable_json() -> None:
    found = evaluate(claims(compare(">")), pair("vq", 1.0, 0.5))
    data = json.loads(claims_json(found))
    assert [list(each) for each in data] == [
        ["id", "source", "verdict", "effect", "effect_kind", "low", "high", "n", "backbone", "parts"]
    ]
    parts = data[0].pop("parts")
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
    (part,) = parts
    assert (part["text"], part["verdict"], part["n"], part["advice"]) == ("vq: tuned > base", "holds", 3, "")
    assert (part["effect"], part["effect_kind"], part["metric"]) == (1.0, "difference", "vq")
    assert (part["a"], part["b"], part["a_mean"], part["b_mean"]) == ("tuned", "base", 4.5, 3.5)


def test_text_and_markdown() -> None:
    found = evaluate(claims(compare(">", metrics='"vq", "mq"')), pair("vq", 1.0))
    text = claims_text(found)
    assert text.startswith("undecided  c ")
    assert "- holds: vq: tuned > base" in text
    assert "- not run: mq: tuned > base" in text
    rows = claims_markdown(found).splitlines()[-3:]
    assert rows[0] == "| `c` | P T1 | t | undecided | 1 of 2 parts hold | 3 | shapes |"
    assert rows[1] == "|  |  | ↳ vq: tuned > base | holds | +1.000 [+1.000, +1.000] | 3 |  |"
    assert rows[2] == "|  |  | ↳ mq: tuned > base | not run | — |  |  |"


def test_a_verdict_of_one_seed_says_so_and_a_share_of_the_other_side_is_shown_as_a_ratio() -> None:
    found = evaluate(claims(compare("=", ", margin_share = 0.02")), pair("vq", -0.035, seeds=1))
    # the base's mean is 3.5: 1 - .035 / 3.5 = .99
    assert "| holds (1 seed) | ratio 0.990 [0.990, 0.990] | 1 |" in claims_markdown(found)
    assert claims_text(found).startswith("holds (1 seed)  c ")


def test_the_seeds_of_a_claim_are_those_its_verdict_rests_on() -> None:
    both = compare(">", metrics='"vq", "mq"')
    assert evaluate(claims(both), pair("vq", 1.0) + pair("mq", 1.0, seeds=1))[0].n == 1  # one seed could undo it
    assert evaluate(claims(both), pair("vq", -1.0) + pair("mq", 1.0, seeds=1))[0].n == 3  # fails by vq alone


def test_html_is_escaped() -> None:
    text = claims_html(evaluate(claims(compare(">")), []))
    assert "<code>c</code>" in text
    hostile = evaluate(claims(compare(">")), [])[0].model_copy(update={"text": "<b>x</b>"})
    assert "&lt;b&gt;x" in claims_html([hostile])
    assert re.search(r'<td class="text">not run</td>', text)

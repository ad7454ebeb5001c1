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

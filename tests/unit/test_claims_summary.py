"""The summary of claims: a row per verdict and place, every claim counted once."""

from __future__ import annotations

from eval.papers.claims import PartVerdict, Verdict, VerdictWord
from eval.renderers.claims_summary import claims_summary


def a_verdict(name: str, word: str, backbone: str | None, effect: float | None = None) -> Verdict:
    return Verdict.model_validate(
        {
            "id": name,
            "source": "P T1",
            "verdict": word,
            "effect": effect,
            "effect_kind": None if effect is None else "difference",
            "low": None if effect is None else effect - 0.1,
            "high": None if effect is None else effect + 0.1,
            "n": 0 if effect is None else 3,
            "backbone": backbone,
            "text": f"Text of {name}",
            "tables": [],
            "parts": [],
        }
    )


def rows(papers: dict[str, list[Verdict]]) -> list[list[str]]:
    lines = claims_summary(papers).splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_what_holds_or_fails_is_shown_whole_and_the_rest_by_its_text() -> None:
    papers = {
        "P": [
            a_verdict("a", "holds", "shapes", 0.5),
            a_verdict("b", "fails", "shapes", -0.5),
            a_verdict("c", "undecided", "shapes", 0.0),
            a_verdict("d", "undecided", "shapes", 0.01),
        ]
    }
    assert rows(papers) == [
        ["`shapes`", "holds", "1", "Text of a: +0.50 [+0.40, +0.60], 3 seeds."],
        ["`shapes`", "fails", "1", "Text of b: -0.50 [-0.60, -0.40], 3 seeds."],
        ["`shapes`", "undecided", "2", "Text of c. Text of d."],
    ]


def test_what_was_not_run_is_counted_by_paper_and_backbone() -> None:
    papers = {
        "P": [a_verdict("a", "holds", "shapes", 0.5), a_verdict("a", "not run", "wan")],
        "Q": [a_verdict("b", "not run", "shapes"), a_verdict("b", "not run", "wan"), a_verdict("c", "not run", "wan")],
    }
    assert rows(papers)[1:] == [
        ["`shapes`", "not run", "1", "Q 1 of 1"],
        ["Wan 2.1", "not run", "3", "P 1 of 1, Q 2 of 2"],
    ]


def test_a_claim_about_published_numbers_counts_once() -> None:
    twice = [a_verdict("a", "holds", None, 0.5), a_verdict("a", "holds", None, 0.5)]
    assert [row[:3] for row in rows({"P": twice})] == [["published numbers", "holds", "1"]]


def a_part(word: VerdictWord, metric: str, effect: float, arm: str = "rl") -> PartVerdict:
    return PartVerdict(
        text="",
        verdict=word,
        metric=metric,
        a=arm,
        b="base",
        effect=effect,
        effect_kind="difference",
        low=effect - 0.1,
        high=effect + 0.1,
        n=3,
    )


def which(word: VerdictWord, parts: list[PartVerdict]) -> str:
    verdict = a_verdict("a", word, "shapes", 0.5).model_copy(update={"parts": parts})
    return rows({"P": [verdict]})[0][3]


def test_a_claim_of_several_parts_shows_all_of_them() -> None:
    vq, mq = a_part("holds", "vq", 0.5), a_part("holds", "mq", 0.25)
    assert which("holds", [vq, mq]) == "Text of a: VQ +0.50 [+0.40, +0.60], MQ +0.25 [+0.15, +0.35], 3 seeds."
    other = a_part("holds", "vq", 0.25, "long")
    assert which("holds", [vq, other]) == (
        "Text of a: `base -> rl` +0.50 [+0.40, +0.60], `base -> long` +0.25 [+0.15, +0.35], 3 seeds."
    )
    assert which("holds", [vq, other, mq]).startswith("Text of a: VQ of `base -> rl` +0.50")


def test_of_many_parts_it_says_how_many_hold() -> None:
    words: list[VerdictWord] = ["fails", "undecided", "holds", "undecided", "holds"]
    assert which("fails", [a_part(word, "vq", 0.5) for word in words]) == (
        "Text of a: 2 of 5 parts hold, 1 fails, 2 undecided, 3 seeds."
    )
    assert which("holds", [a_part("holds", "vq", 0.5)] * 4) == "Text of a: 4 of 4 parts hold, 3 seeds."

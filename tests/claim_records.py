"""Records made by hand, and claims about them. A helper of tests."""

from __future__ import annotations

from eval.papers.claims import PaperClaims, Verdict, parse_claims
from eval.papers.verdicts import evaluate
from eval.records.store import Record

PROMPTS = 8
BASE, TUNED = "base_shapes", "tuned_shapes"


def record(arm: str, metric: str, scores: list[float | None], seed: int = 0, **changes: object) -> Record:
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


def pair(
    metric: str,
    gain: float,
    spread: float = 0.0,
    seeds: int = 3,
    arms: tuple[str, str] = (BASE, TUNED),
    **changes: object,
) -> list[Record]:
    """Base and tuned records whose differences are gain +- spread, alternating over prompts; the base's mean is 3.5."""
    base: list[float | None] = [float(prompt) for prompt in range(PROMPTS)]
    tuned: list[float | None] = [
        value + gain + (spread if prompt % 2 else -spread) for prompt, value in enumerate(range(PROMPTS))
    ]
    return [
        record(arm, metric, scores, seed, **changes)
        for seed in range(seeds)
        for arm, scores in zip(arms, (base, tuned), strict=True)
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

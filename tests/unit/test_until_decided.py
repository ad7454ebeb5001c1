"""Which claim gets the next seed, what that costs, and when a study stops adding seeds."""

import json
from pathlib import Path

import pytest

from eval.papers.ablation import load_grid, plan
from eval.papers.claims import Open, Verdict, VerdictWord
from eval.studies.until_decided import Round, arm_of, costs, next_round, run_until_decided

BASE, VQ, MQ = "self_forcing_shapes", "astrolabe_vq_shapes", "astrolabe_mq_shapes"


def claim(name: str, *parts: tuple[str, int | None], verdict: VerdictWord = "undecided") -> Verdict:
    """A claim whose parts compare an arm with the base at three seeds."""
    opened = [Open(arms=(arm, BASE), seeds=3, needed=needed) for arm, needed in parts]
    return Verdict(
        id=name,
        source="",
        verdict=verdict,
        effect=None,
        effect_kind=None,
        low=None,
        high=None,
        n=3,
        backbone=None,
        text="",
        tables=[],
        parts=[],
        open=opened,
    )


@pytest.fixture
def planned(tmp_path):
    return lambda seed: plan(load_grid("astrolabe-4c"), [seed], tmp_path, [], None)


def test_the_claim_that_is_settled_at_the_least_cost_comes_first(planned):
    cheap, dear, decided = claim("cheap", (VQ, 5)), claim("dear", (MQ, 30)), claim("no", (VQ, 4), verdict="holds")
    chosen = next_round([dear, decided, cheap], planned, lambda job: 60.0)
    assert chosen is not None
    assert (chosen.claim, chosen.further, chosen.seconds) == ("cheap", 2, 120.0)
    assert sorted(map(arm_of, chosen.jobs)) == sorted([BASE, VQ])
    assert {job.seed for job in chosen.jobs} == {3}  # the fourth
    slow = next_round([dear, cheap], planned, lambda job: 10_000.0 if arm_of(job) == VQ else 1.0)
    assert slow is not None
    assert slow.claim == "dear"


def test_claims_that_seeds_cannot_settle_are_left_out(planned):
    hopeless = claim("hopeless", (VQ, 4), (MQ, None))
    unknown = claim("unknown", ("reward_forcing_shapes", 4))
    assert next_round([hopeless, unknown, claim("counted")], planned, lambda job: 1.0) is None


def test_costs_are_means_over_seeds_of_all_that_a_job_did(planned, tmp_path):
    job = next(job for job in planned(3) if arm_of(job) == VQ)
    other = next(job for job in planned(3) if arm_of(job) == MQ)
    assert costs(tmp_path)(job) == 0.0
    rows = [(f"{VQ}-seed-0", "train", 100), (f"{VQ}-seed-0", "shapes", 20), (f"{VQ}-seed-1", "train", 200)]
    lines = [json.dumps({"job": name, "what": what, "seconds": seconds, "code": 0}) for name, what, seconds in rows]
    (tmp_path / "seconds.jsonl").write_text("\n".join(lines) + "\n")
    assert costs(tmp_path)(job) == pytest.approx(160)
    assert costs(tmp_path)(other) == pytest.approx(160)  # never ran: the mean of all


def test_seeds_are_added_until_nothing_is_open_or_the_time_is_up(planned, tmp_path):
    (tmp_path / "seconds.jsonl").write_text(json.dumps({"job": "x-seed-0", "what": "train", "seconds": 60, "code": 0}))
    rounds: list[Round] = []

    def verdicts() -> list[Verdict]:
        return [claim("one", (VQ, 5)) if len(rounds) < 2 else claim("one", verdict="holds")]

    why = run_until_decided(verdicts, planned, tmp_path, 2, lambda: 1e6, rounds.append)
    assert [each.claim for each in rounds] == ["one", "one"]
    assert why.startswith("no undecided claim is left")
    rounds.clear()
    why = run_until_decided(verdicts, planned, Path(tmp_path), 2, lambda: 59.0, rounds.append)
    assert not rounds
    assert "for one, takes about 1 min" in why

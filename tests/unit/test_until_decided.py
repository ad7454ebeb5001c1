"""Which claim gets the next seed, what that costs, and when a study stops adding seeds."""

import json

import pytest

from eval.papers.ablation import load_grid, plan
from eval.papers.claims import Open, PartVerdict, Verdict, VerdictWord
from eval.studies.until_decided import Planner, Round, arm_of, costs, next_seed, run_until_decided

BASE, VQ, MQ = "causal_forcing_shapes", "astrolabe_vq_shapes", "astrolabe_mq_shapes"
THREE = (0, 1, 2)


def part(arm: str, needed: int | None, seeds: tuple[int, ...] = THREE) -> Open:
    """An arm against the base."""
    return Open(arms=(arm, BASE), seeds=seeds, needed=needed)


def claim(name: str, *parts: Open, verdict: VerdictWord = "undecided", other: VerdictWord = "holds") -> Verdict:
    """A claim with these open parts and one more."""
    words: list[VerdictWord] = ["undecided"] * len(parts)
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
        parts=[PartVerdict(text="", verdict=word) for word in (*words, other)],
        open=list(parts),
    )


@pytest.fixture
def planner(tmp_path):
    def made(cost=lambda job: 60.0) -> Planner:
        return Planner(THREE, lambda seed: plan(load_grid("astrolabe-4c"), [seed], tmp_path, [], None), cost)

    return made


def test_seeds_of_the_study_come_first_and_then_the_one_after_all():
    assert next_seed((3, 1), ()) == 3
    assert next_seed((3, 1), (3,)) == 1
    assert next_seed((0, 1, 2), (0, 1, 2, 5)) == 6
    assert next_seed((0, 1, 2), (0, 2, 5)) == 1


def test_a_round_holds_the_arms_of_all_open_parts_and_counts_all_its_seeds(planner):
    cheap, dear, decided = claim("cheap", part(VQ, 5)), claim("dear", part(MQ, 30)), claim("no", verdict="holds")
    found = {each.claim: each for each in planner().rounds([dear, decided, cheap])}
    assert set(found) == {"cheap", "dear"}
    assert (found["cheap"].further, found["cheap"].seconds) == (2, 120.0)
    assert found["dear"].further == 27
    assert sorted(map(arm_of, found["cheap"].jobs)) == sorted([BASE, VQ])
    assert {job.seed for job in found["cheap"].jobs} == {3}


def test_the_part_with_the_fewest_seeds_gets_the_next_one(planner):
    (found,) = planner().rounds([claim("both", part(VQ, 6, (0, 1, 2, 3)), part(MQ, 6))])
    assert {job.seed for job in found.jobs} == {3}
    (found,) = planner().rounds([claim("both", part(VQ, 6, (0, 1, 2, 3)), part(MQ, 6, (0, 1, 3)))])
    assert {job.seed for job in found.jobs} == {2}


def test_claims_that_seeds_cannot_settle_are_left_out(planner):
    hopeless = claim("hopeless", part(VQ, 4), part(MQ, None))
    unknown = claim("unknown", part("reward_forcing_shapes", 4))
    unpaired = claim("unpaired", part(VQ, 4), other="undecided")
    lacking = claim("lacking", part(VQ, 4), other="not run")
    assert not list(planner().rounds([hopeless, unknown, unpaired, lacking, claim("counted")]))


def test_costs_are_means_over_seeds_of_all_that_a_job_did(planner, tmp_path):
    jobs = {arm_of(job): job for job in planner().jobs(3)}
    assert costs(tmp_path)(jobs[VQ]) == 0.0
    rows = [(f"{VQ}-seed-0", "train", 100), (f"{VQ}-seed-0", "shapes", 20), (f"{VQ}-seed-1", "train", 200)]
    lines = [json.dumps({"job": name, "what": what, "seconds": seconds, "code": 0}) for name, what, seconds in rows]
    (tmp_path / "seconds.jsonl").write_text("\n".join(lines) + "\n" + '{"job": 1}\n')
    assert costs(tmp_path)(jobs[VQ]) == pytest.approx(160)
    assert costs(tmp_path)(jobs[MQ]) == pytest.approx(160)  # never ran: the mean of all


def test_the_claim_that_is_settled_at_the_least_cost_comes_first_until_nothing_is_open(planner):
    rounds: list[Round] = []

    def verdicts() -> list[Verdict]:
        seeds = {name: (*THREE, *(job.seed for job in _of(rounds, name))) for name in ("near", "far")}
        open_at = {"near": 5, "far": 4}
        return [
            claim(name, part(arm, open_at[name], seeds[name]))
            if len(seeds[name]) < open_at[name]
            else claim(name, verdict="holds")
            for name, arm in (("near", VQ), ("far", MQ))
        ]

    dear = planner(lambda job: 1000.0 if arm_of(job) == MQ else 1.0)
    why = run_until_decided(verdicts, lambda: dear, 2, lambda: 1e6, rounds.append)
    assert [(each.claim, each.jobs[0].seed) for each in rounds] == [("near", 3), ("near", 4), ("far", 3)]
    assert why.startswith("no undecided claim is left")


def _of(rounds: list[Round], name: str):
    return [each.jobs[0] for each in rounds if each.claim == name]


def test_a_claim_that_a_seed_left_as_it_was_gets_no_other(planner):
    rounds: list[Round] = []
    why = run_until_decided(lambda: [claim("stuck", part(VQ, 5))], planner, 2, lambda: 1e6, rounds.append)
    assert [each.claim for each in rounds] == ["stuck"]
    assert why.startswith("no undecided claim is left")


def test_a_round_that_takes_longer_than_is_left_is_not_begun(planner):
    rounds: list[Round] = []
    why = run_until_decided(lambda: [claim("one", part(VQ, 5))], planner, 2, lambda: 59.0, rounds.append)
    assert not rounds
    assert "for one, takes about 1 min" in why

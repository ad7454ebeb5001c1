"""A reward of weight 0 is measured while another is optimised, so that its curve is there; it has no share in the
total.
"""

from __future__ import annotations

import pytest
from test_training import RL, run, same_bits, without_times

from astro_cli.training import executors
from tests.tiny_world import bare_rl_recipe


@pytest.fixture
def watched(tiny, tmp_path):
    """A run that optimises one reward, without a primary that the others would judge."""
    (tmp_path / "watched.toml").write_text(bare_rl_recipe("", "rewards = { vq = 0.0, mq = 0.0, ta = 2.0 }"))
    return ["rl", "--recipe", str(tmp_path / "watched.toml"), *tiny]


def test_a_reward_of_weight_zero_is_logged_and_not_optimised(watched, tmp_path, monkeypatch):
    assert run([*watched, "--out", str(tmp_path / "run")], monkeypatch) == 0
    for row in without_times(tmp_path / "run" / "metrics.jsonl"):
        assert {"reward/vq", "reward/mq", "reward/ta"} <= row.keys()
        assert row["reward/total"] == pytest.approx(2 * row["reward/ta"], abs=1e-6)
        assert "reward/disagreement" not in row  # it is among optimised rewards, and there is one


def test_watching_changes_no_bit_of_what_is_trained(watched, tmp_path, monkeypatch):
    assert run([*watched, "--out", str(tmp_path / "watched")], monkeypatch) == 0
    roller = executors.Roller

    def alone(spec, context, backbone, rewards, *rest, **options):
        return roller(spec, context, backbone, [reward for reward in rewards if reward.key == "ta"], *rest, **options)

    monkeypatch.setattr(executors, "Roller", alone)
    assert run([*watched, "--out", str(tmp_path / "alone")], monkeypatch) == 0
    assert "reward/vq" not in without_times(tmp_path / "alone" / "metrics.jsonl")[0]
    assert same_bits(
        tmp_path / "watched" / "final" / "student.safetensors", tmp_path / "alone" / "final" / "student.safetensors"
    )


def test_a_judge_that_says_the_same_of_all_clips_stops_nothing(tiny, tmp_path, monkeypatch):
    """Only what is optimised must differ: a judge of weight 0 ranks all alike."""
    import torch

    from astro_cli.rewards.shapes import MotionQuality

    monkeypatch.setattr(MotionQuality, "score", lambda self, frames, prompts: torch.zeros(len(prompts)))
    weights = [
        f"--set=stages.nft.experience.rewards.{key}={value}" for key, value in (("vq", 1.0), ("mq", 0.0), ("ta", 1.0))
    ]
    assert run([*RL, "--set", "stages.nft.steps=1", *weights, *tiny, "--out", str(tmp_path / "run")], monkeypatch) == 0
    assert without_times(tmp_path / "run" / "metrics.jsonl")[0]["reward/mq"] == 0

"""A reward of weight 0 is measured while another is optimised, so that its curve is there; it has no share in the total."""

from __future__ import annotations

import pytest
from test_training import RL, run, same_bits, without_times

from astro_cli.training import experience


def test_a_reward_of_weight_zero_is_logged_and_not_optimised(tiny, tmp_path, monkeypatch):
    weights = [f"--set=stages.nft.experience.rewards.{key}={value}" for key, value in (("vq", 0.0), ("mq", 0.0), ("ta", 2.0))]
    assert run([*RL, "--set", "stages.nft.steps=2", *weights, *tiny, "--out", str(tmp_path / "run")], monkeypatch) == 0
    for row in without_times(tmp_path / "run" / "metrics.jsonl"):
        assert {"reward/vq", "reward/mq", "reward/ta"} <= row.keys()
        assert row["reward/total"] == pytest.approx(2 * row["reward/ta"], abs=1e-6)
        assert "reward/disagreement" not in row  # it is among optimised rewards, and there is one


def test_watching_changes_no_bit_of_what_is_trained(tiny, tmp_path, monkeypatch):
    weights = [f"--set=stages.nft.experience.rewards.{key}={value}" for key, value in (("vq", 0.0), ("mq", 0.0), ("ta", 2.0))]
    arguments = [*RL, "--set", "stages.nft.steps=2", *weights, *tiny]
    assert run([*arguments, "--out", str(tmp_path / "watched")], monkeypatch) == 0
    roller = experience.Roller
    monkeypatch.setattr(experience, "Roller", lambda *parts: roller(*parts[:3], [reward for reward in parts[3] if reward.key == "ta"]))
    assert run([*arguments, "--out", str(tmp_path / "alone")], monkeypatch) == 0
    assert "reward/vq" not in without_times(tmp_path / "alone" / "metrics.jsonl")[0]
    assert same_bits(tmp_path / "watched" / "final" / "student.safetensors", tmp_path / "alone" / "final" / "student.safetensors")

"""Gains over the base: which clips are compared, and what is logged."""

import pytest
import torch

from astro_cli.training.base_gain import describe_gain, first_members


def test_the_first_members_of_every_group_are_compared():
    assert first_members(3, 4, 2) == [0, 1, 4, 5, 8, 9]


def test_a_gain_is_the_mean_of_paired_differences_and_the_total_their_weighted_sum():
    policy = {"vq": torch.tensor([0.5, 0.9]), "mq": torch.tensor([0.2, 0.2])}
    base = {"vq": torch.tensor([0.4, 0.4]), "mq": torch.tensor([0.3, 0.5])}
    gain = describe_gain(policy, base, {"vq": 3.0})  # mq has no weight: logged, not in the total
    # vq (.1 + .5) / 2 = .3; mq (-.1 - .3) / 2 = -.2; total 3 x .3
    assert gain == pytest.approx({"gain/vq": 0.3, "gain/mq": -0.2, "gain/total": 0.9})

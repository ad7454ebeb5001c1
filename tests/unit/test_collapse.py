"""When a run has collapsed, by hand: rewards that fall epoch after epoch, clips that stand still, and a count that goes
on after a resume.
"""

import pytest
import torch

from astro_cli.spec import CollapseSpec
from astro_cli.training.collapse import CollapseWatch, ConstantRewards

MOVING = 1.0


def watch(falling: int = 3, static: float = 0.25) -> CollapseWatch:
    return CollapseWatch(CollapseSpec(falling=falling, static=static))


def warned(watch: CollapseWatch, rewards: list[float]) -> list[bool]:
    """Per epoch, with clips that move as ever."""
    return [watch.see(reward, MOVING) != "" for reward in rewards]


@pytest.mark.parametrize(("rewards", "wanted"), [
    ([5, 4, 3, 2], [False, False, False, True]),  # the first epoch has none before it: three falls in four epochs
    ([5, 4, 3, 2, 1], [False, False, False, True, True]),  # said as long as it falls
    ([5, 4, 3, 3.5, 3, 2], [False] * 6),  # a rise after two falls: two more are two in a row, not four
    ([5, 4, 3, 3.5, 3, 2, 1], [False] * 6 + [True]),
    ([5, 4, 3, 3, 2, 1], [False] * 6),  # the same reward again is no fall
    ([5, 4, 3, 2, 9, 8], [False, False, False, True, False, False]),  # and a rise takes the warning back
])  # fmt: skip
def test_falling_epochs_in_a_row(rewards, wanted):
    assert warned(watch(falling=3), rewards) == wanted


def test_one_fall_is_enough_where_the_recipe_says_so():
    assert warned(watch(falling=1), [5, 5, 4.999]) == [False, False, True]


def test_the_message_counts_the_falls_and_names_the_reward():
    here = watch(falling=2)
    assert [here.see(reward, MOVING) for reward in (3.0, 2.0, 1.25, 0.5)][2:] == [
        "the mean reward fell 2 epochs in a row, to 1.25",
        "the mean reward fell 3 epochs in a row, to 0.5",
    ]


def test_static_clips_are_measured_against_the_first_epoch():
    """0.25 x 0.8 = 0.2 is the least motion, whatever the epoch before had: 8 -> 0.3 is a small share of 8, not of
    0.8.
    """
    here = watch(static=0.25)
    assert [here.see(1.0, motion) for motion in (0.8, 0.3, 8.0, 0.3)] == [""] * 4
    assert here.see(1.0, 0.1) == "clips stand still: 12.5% of the first epoch's motion"
    assert here.see(1.0, 0.3) == ""


def test_motion_exactly_at_the_bound_is_enough():
    """0.25 x 0.5 = 0.125, exact in binary."""
    here = watch(static=0.25)
    assert [here.see(1.0, motion) for motion in (0.5, 0.125)] == ["", ""]
    assert here.see(1.0, 0.1249) != ""


def test_without_a_static_bound_frozen_clips_are_no_collapse():
    here = watch(static=0.0)
    assert [here.see(1.0, motion) for motion in (0.5, 0.0)] == ["", ""]


def test_falling_rewards_are_said_before_static_clips():
    here = watch(falling=1)
    here.see(2.0, 1.0)
    assert here.see(1.0, 0.0).startswith("the mean reward fell")


def test_a_resumed_watch_goes_on_mid_count():
    """Two of three falls, and a first motion of 0.8, seen before the checkpoint."""
    before, after = watch(), watch()
    assert [before.see(reward, 0.8) for reward in (5.1, 4.1, 3.1)] == [""] * 3
    after.load(before.state())
    assert (after.last_reward, after.falls, after.first_motion) == (3.1, 2, 0.8)  # float64: no rounding
    assert before.see(3.0, 0.3) == after.see(3.0, 0.3) == "the mean reward fell 3 epochs in a row, to 3"
    assert before.see(4.0, 0.1) == after.see(4.0, 0.1) == "clips stand still: 12.5% of the first epoch's motion"


def test_a_watch_resumed_before_its_first_epoch_is_a_new_one():
    fresh = watch(falling=1)
    fresh.load(watch(falling=1).state())
    assert warned(fresh, [1.0, 0.5]) == [False, True]
    assert fresh.first_motion == MOVING


def seen(watch: ConstantRewards, *epochs: list[float]) -> list[bool]:
    """Whether the reward counts as broken after each epoch's scores."""
    broken = []
    for scores in epochs:
        watch.see({"mq": torch.tensor(scores), "vq": torch.tensor([0.1, 0.2])})
        broken.append(watch.is_broken("mq"))
    return broken


def test_a_reward_that_varied_may_be_constant_for_two_epochs_in_a_row():
    varied, constant = [0.1, 0.2], [0.0, 0.0]
    epochs = (varied, constant, constant, varied, constant, constant, constant)
    assert seen(ConstantRewards(["mq", "vq"]), *epochs) == [False] * 6 + [True]


def test_a_reward_that_never_varied_is_broken_at_once():
    assert seen(ConstantRewards(["mq", "vq"]), [0.5, 0.5]) == [True]


def test_the_count_of_constant_epochs_goes_on_after_a_resume():
    first, then = ConstantRewards(["mq", "vq"]), ConstantRewards(["mq", "vq"])
    assert seen(first, [0.1, 0.2], [0.0, 0.0], [0.0, 0.0]) == [False] * 3
    then.load(first.state())
    assert not then.is_broken("vq")
    assert seen(then, [0.0, 0.0]) == [True]


def test_a_run_from_before_there_were_counts_goes_on():
    watch = ConstantRewards(["mq", "vq"])
    watch.load(None)
    assert seen(watch, [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]) == [False, False, True]


def test_counts_stay_with_their_rewards_in_any_order():
    first, then = ConstantRewards(["vq", "mq"]), ConstantRewards(["mq", "vq"])
    seen(first, [0.1, 0.2], [0.0, 0.0])
    then.load(first.state())
    assert (first.epochs, then.epochs) == ({"vq": 0, "mq": 1}, {"mq": 1, "vq": 0})

"""The quota planner: hand-worked makespans, limit cases, and every partition by brute force."""

import itertools

import pytest

from astro_cli.core.makespan import Scaling, exact, fit, greedy, partitions, plan, side_by_side

THREE = {"vq": Scaling(0.1, 0.2), "mq": Scaling(0.2, 0.4), "ta": Scaling(0.05, 0.1)}


def test_a_group_ends_together_at_the_time_that_uses_the_whole_device():
    # b_1 / (T - a) + b_2 / (T - a) = 1 with a = 1, b = 1 and 3: T = 1 + 4 = 5, q = 1/4 and 3/4.
    group = side_by_side({"one": Scaling(1.0, 1.0), "two": Scaling(1.0, 3.0)})
    assert group.seconds == pytest.approx(5.0)
    assert group.quotas == pytest.approx({"one": 0.25, "two": 0.75})
    # a = 0 and 1, b = 1 and 1: 1/T + 1/(T - 1) = 1, T^2 - 3T + 1 = 0, T = (3 + sqrt 5) / 2.
    assert side_by_side({"one": Scaling(0.0, 1.0), "two": Scaling(1.0, 1.0)}).seconds == pytest.approx(2.618034)


def test_three_workers_by_hand():
    planned = plan(THREE)
    assert planned.serial == pytest.approx(1.05)  # .3 + .6 + .15
    assert planned.seconds == pytest.approx(0.8549, abs=1e-4)
    [group] = planned.groups
    assert group.quotas == pytest.approx({"vq": 0.265, "mq": 0.611, "ta": 0.124}, abs=1e-3)
    two = side_by_side({name: THREE[name] for name in ("vq", "mq")})
    assert two.seconds + THREE["ta"].seconds(1) == pytest.approx(0.9202, abs=1e-4)


def test_workers_that_scale_perfectly_gain_nothing_and_stay_serial():
    workers = {name: Scaling(0.0, b) for name, b in (("a", 1.0), ("b", 2.0), ("c", 0.5))}
    assert side_by_side(workers).seconds == pytest.approx(3.5)  # a = 0: T = sum b
    planned = plan(workers)
    assert planned.is_serial
    assert planned.seconds == planned.serial == pytest.approx(3.5)


def test_workers_that_do_not_scale_take_as_long_as_the_slowest():
    planned = plan({"a": Scaling(1.0, 0.0), "b": Scaling(2.0, 0.0)})
    assert planned.serial == pytest.approx(3.0)
    assert planned.seconds == pytest.approx(2.0)
    assert not planned.is_serial


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_the_exact_plan_is_the_best_of_all_partitions_and_greedy_is_never_worse_than_serial(count):
    workers = {f"w{i}": Scaling(0.3 * i % 1.1, 0.2 + 0.17 * i) for i in range(count)}
    labels = itertools.product(range(count), repeat=count)  # brute force: every worker picks a group's number
    best = min(_makespan(workers, label) for label in labels)
    assert sum(group.seconds for group in exact(workers)) == pytest.approx(best)
    serial = sum(worker.seconds(1) for worker in workers.values())
    for groups in (exact(workers), greedy(workers)):
        assert sum(group.seconds for group in groups) <= serial + 1e-12
        assert sorted(name for group in groups for name in group.quotas) == sorted(workers)
        assert all(sum(group.quotas.values()) <= 1 + 1e-9 for group in groups)


def _makespan(workers, label):
    total = 0.0
    for number in set(label):
        own = {name: worker for (name, worker), place in zip(workers.items(), label, strict=True) if place == number}
        total += side_by_side(own).seconds
    return total


def test_partitions_are_as_many_as_the_bell_numbers():
    assert [sum(1 for _ in partitions("abcdef"[:n])) for n in range(7)] == [1, 1, 2, 5, 15, 52, 203]


def test_beyond_six_workers_the_search_is_greedy():
    workers = {f"w{i}": Scaling(1.0, 0.1) for i in range(7)}
    planned = plan(workers)
    assert planned.groups == greedy(workers)
    assert planned.seconds == pytest.approx(1.7)  # one group: T = a + sum b


def test_a_profile_is_fitted_and_refused_where_it_says_nothing():
    assert fit({0.25: 4.5, 0.5: 2.5, 1.0: 1.5}) == Scaling(pytest.approx(0.5), pytest.approx(1.0))  # .5 + 1 / q
    assert fit({0.25: 1.0, 0.5: 2.0, 1.0: 3.0}).b == 0  # slower with more: nothing scales
    with pytest.raises(ValueError, match=r"found the quota 1\.2"):
        fit({0.5: 2.0, 1.0: 1.0, 1.2: 0.9})
    with pytest.raises(ValueError, match="found 2 quotas, expected 3 or more"):
        fit({0.5: 2.0, 1.0: 1.0})
    with pytest.raises(ValueError, match=r"found inf seconds at the quota 0\.5"):
        fit({0.25: 1.0, 0.5: float("inf"), 1.0: 1.0})

"""Plans of the reward phase: shares of a machine, profiles from a file, percentages of MPS, and what is kept."""

import json
import os
import time

import psutil
import pytest

from astro_cli.commands.plan import parse_quotas
from astro_cli.config.errors import AstroError, RecipeError
from astro_cli.core import makespan
from astro_cli.execution import mps, reward_plans
from astro_cli.execution.reward_process import CpuShare, throttled
from astro_cli.recipe import load_recipe
from tests.command_line import run

PROFILES = {"vq": {0.25: 0.9, 0.5: 0.5, 1.0: 0.3}, "mq": {0.25: 1.8, 0.5: 1.0, 1.0: 0.6}}  # .1 + .2 / q and twice that


def planned():
    return makespan.plan({name: makespan.fit(profile) for name, profile in PROFILES.items()})


@pytest.mark.parametrize(
    ("quota", "most", "threads", "running"),
    [(1.0, 2, 2, 1.0), (0.5, 2, 1, 1.0), (0.25, 2, 1, 0.5), (0.75, 2, 2, 0.75), (1.0, 1, 1, 1.0), (0.75, 1, 1, 1.0)],
)
def test_a_quota_of_two_cores_is_threads_and_the_share_of_time_they_run(quota, most, threads, running):
    assert CpuShare.of(quota, 2, most) == CpuShare(threads, pytest.approx(running))


def test_a_throttled_process_computes_for_its_share_of_the_time():
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, b"x")
            while True:
                pass
        finally:
            os._exit(0)
    try:
        os.read(reader, 1)
        before = _cpu(child)
        with throttled(child, 0.2):
            time.sleep(1.0)
        assert _cpu(child) - before < 0.5  # of 1: 0.2, and what a busy machine adds
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def _cpu(pid: int) -> float:
    return psutil.Process(pid).cpu_times().user


def test_percentages_of_a_group_sum_to_a_hundred_at_most_and_none_is_zero():
    assert mps.percentages({"a": 0.333, "b": 0.333, "c": 0.334}) == {"a": 33, "b": 33, "c": 33}
    assert mps.percentages({"a": 0.001, "b": 1.0}) == {"a": 1, "b": 100}
    assert mps.environment(0.29) == {"CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "29"}


def test_percentages_are_written_only_where_a_gpu_and_its_daemon_are(monkeypatch, tmp_path):
    monkeypatch.setenv(mps.PIPES, str(tmp_path))
    assert "mps" not in json.dumps(reward_plans.described(planned(), PROFILES, "cuda"))
    os.mkfifo(tmp_path / "control")
    monkeypatch.setattr(mps.torch.cuda, "is_available", lambda: False)
    assert "mps" not in json.dumps(reward_plans.described(planned(), PROFILES, "cuda"))
    monkeypatch.setattr(mps.torch.cuda, "is_available", lambda: True)
    assert "mps" not in json.dumps(reward_plans.described(planned(), PROFILES, "cpu"))
    [group] = reward_plans.described(planned(), PROFILES, "cuda")["groups"]
    assert sum(worker["mps_percentage"] for worker in group["workers"].values()) <= 100


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"vq": {"0.5": 1, "1": 1, "1.5": 1}}', "vq: found the quota 1.5, expected more than 0 and at most 1"),
        ('{"vq": {"0.5": 1, "1": 1}}', "vq: found 2 quotas, expected 3 or more"),
        ('{"vq": {"0.5": -1, "0.7": 1, "1": 1}}', "vq: found -1 seconds"),
        ('{"vq": {"half": 1, "0.7": 1, "1": 1}}', "vq: could not convert string to float"),
        ('{"vq": 3}', "vq: expected seconds by quota"),
        ("{}", "no worker"),
        ("[]", "expected"),
    ],
)
def test_profiles_that_say_nothing_are_refused(text, says, tmp_path):
    file = tmp_path / "profiles.json"
    file.write_text(text)
    with pytest.raises(RecipeError) as caught:
        reward_plans.read_profiles(file)
    assert str(file) in str(caught.value)
    assert says in str(caught.value)


@pytest.mark.parametrize("text", ["0.5,1,1.5", "0.5,1", "0,0.5,1", "a,b,c", "0.5,0.5,1"])
def test_quotas_are_three_shares_of_the_device(text):
    with pytest.raises(AstroError, match="--quotas"):
        parse_quotas(text)


def test_a_plan_from_profiles_measures_nothing(tmp_path, monkeypatch, capsys):
    file = tmp_path / "profiles.json"
    file.write_text(
        json.dumps({name: {str(quota): value for quota, value in of.items()} for name, of in PROFILES.items()})
    )
    recipe = ["plan", "rewards", "--recipe", "grpo_streaming_shapes", "--profiles", str(file)]
    assert run([*recipe, "--out", str(tmp_path / "plan.json")], monkeypatch) == 0
    shown = capsys.readouterr()
    plan = json.loads(shown.out)
    assert plan == json.loads((tmp_path / "plan.json").read_text())
    assert plan["answer"] == "planned"
    assert plan["serial_seconds"] == pytest.approx(0.9)
    # T: .2 / (T - .1) + .4 / (T - .2) = 1, T^2 - .9 T + .1 = 0, T = (.9 + sqrt .41) / 2
    assert plan["seconds"] == pytest.approx(0.770156, abs=1e-5)
    assert "reward phase: planned" in shown.err


def test_a_plan_is_kept_for_its_recipe_and_shown_in_a_dry_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    recipe = load_recipe("grpo_streaming_shapes")
    dry = ["rl", "--recipe", "grpo_streaming_shapes", "--dry-run"]
    assert reward_plans.kept(recipe) is None
    assert run(dry, monkeypatch) == 0
    assert "not measured here; astro plan rewards --recipe grpo_streaming_shapes" in capsys.readouterr().err
    reward_plans.keep(recipe, reward_plans.described(planned(), PROFILES, "cpu"))
    kept = reward_plans.kept(recipe)
    assert kept is not None
    assert kept["seconds"] == pytest.approx(planned().seconds)
    assert run(dry, monkeypatch) == 0
    assert "reward phase: planned" in capsys.readouterr().err
    assert (
        reward_plans.kept(
            load_recipe(
                "grpo_streaming_shapes", ["stages.grpo.experience.clip=0", "stages.grpo.experience.rewards={vq=1.0}"]
            )
        )
        is None
    )
    for damage in ("{", "[]", '{"answer": "planned", "groups": [{"workers": {"vq": {"quota": 2}}, "seconds": 1}]}'):
        reward_plans.place(recipe).write_text(damage)
        assert reward_plans.kept(recipe) is None


@pytest.mark.slow  # starts a process for each reward
def test_rewards_are_measured_planned_and_timed(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    words = ["plan", "rewards", "--recipe", "grpo_streaming_shapes", "--clips", "8", "--repeats", "1"]
    assert run(words, monkeypatch) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["profiles"].keys() == {"vq", "mq", "ta"}
    assert all(profile.keys() == {"0.25", "0.5", "1"} for profile in plan["profiles"].values())
    assert plan["seconds"] <= plan["serial_seconds"] + 1e-9
    assert all(sum(w["quota"] for w in group["workers"].values()) <= 1 + 1e-9 for group in plan["groups"])
    assert min(*plan["timed"]["seconds"]["serial"], *plan["timed"]["seconds"]["planned"]) > 0
    assert reward_plans.kept(load_recipe("grpo_streaming_shapes")) is not None

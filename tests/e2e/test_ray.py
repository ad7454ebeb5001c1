"""`astro rl --executor ray`: what the inline executor computes, with workers killed on the way; nothing is left
behind."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file
from test_training import without_times

from astro_cli.config.errors import EXIT_RUN

pytest.importorskip("ray", reason="Ray is not installed: pip install 'astro-cli[ray]'")

STEPS = 3
RL = ["rl", "--recipe", "astrolabe_self_forcing_shapes", "--set", "lora.rank=4", "--set", "runtime.save_every=1", *(
    part for item in (f"steps={STEPS}", "batch=8", "experience.prompts=2", "experience.group=4", "experience.updates=1",
    "experience.parallel=4", "experience.samples_every=0", "experience.rewards={vq=1.0, mq=1.0}",
) for part in ("--set", f"stages.nft.{item}"))]  # fmt: skip
RAY = ["--executor", "ray"]
OWN = {"memory/saved_bytes"}  # a process's own memory
START_SECONDS, END_SECONDS = 900.0, 60.0


@pytest.fixture(scope="module")
def module_tiny(tiny_base: Path) -> list[str]:
    from tests.tiny_world import TINY

    sets = [*TINY, *(f"base.{role}={tiny_base}" for role in ("student", "teacher", "critic"))]
    return [argument for item in sets for argument in ("--set", item)]


@pytest.fixture(scope="module")
def inline(module_tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("inline") / "run"
    assert begin([*RL, *module_tiny], out).wait(START_SECONDS) == 0
    return out


def begin(arguments: list[str], out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "astro_cli", *arguments, "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition: Callable[[], object], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.1)


def has_begun(process: subprocess.Popen[str], out: Path) -> Callable[[], bool]:
    """Whether a run has made a step; a run that has ended without one is an error."""

    def made_a_step() -> bool:
        file = out / "metrics.jsonl"
        if file.exists() and file.read_text():
            return True
        if process.poll() is not None:
            raise AssertionError(process.communicate()[1])
        return False

    return made_a_step


def workers(process: subprocess.Popen[str], kind: str) -> list[psutil.Process]:
    """Descendants that are actors of a class."""
    chosen = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if child.cmdline() and child.cmdline()[0].startswith(f"ray::{kind}"):
                chosen.append(child)
        except psutil.Error:
            continue
    return chosen


def listening(process: subprocess.Popen[str]) -> set[str]:
    """Addresses at which a process and its descendants take connections."""
    addresses = set()
    for each in (psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)):
        try:
            for connection in each.net_connections(kind="inet"):
                if connection.status == psutil.CONN_LISTEN:
                    addresses.add(connection.laddr.ip.removeprefix("::ffff:"))
        except psutil.Error:
            continue
    return addresses


def weights_of(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "final" / "student.safetensors")


def assert_same_bits(one: Path, other: Path) -> None:
    left, right = weights_of(one), weights_of(other)
    assert left.keys() == right.keys()
    assert all(torch.equal(value, right[key]) for key, value in left.items())
    assert without_times(one / "metrics.jsonl") == without_times(other / "metrics.jsonl")


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def wait_for_the_end_of(children: list[psutil.Process]) -> None:
    assert children, "a run on Ray has some"
    wait_for(lambda: not any(map(alive, children)), END_SECONDS)


@pytest.mark.slow  # starts Ray, and a process for each worker
def test_one_worker_gives_inlines_bits_though_its_rollout_and_reward_workers_are_killed(module_tiny, inline, tmp_path):
    out = tmp_path / "run"
    process = begin([*RL, *module_tiny, *RAY], out)
    wait_for(has_begun(process, out), START_SECONDS)
    assert listening(process) == {"127.0.0.1"}
    assert len(workers(process, "RewardWorker")) == 2
    for kind in ("RolloutWorker", "RewardWorker"):
        workers(process, kind)[0].kill()
    children = psutil.Process(process.pid).children(recursive=True)
    _, error = process.communicate(timeout=START_SECONDS)
    assert process.returncode == 0, error
    assert "worker rollout-0 was killed or crashed, and was started again" in error
    assert_same_bits(inline, out)
    wait_for_the_end_of(children)


@pytest.mark.slow  # starts Ray twice, and a process for each worker
def test_two_workers_equal_inline_and_a_killed_training_process_leaves_a_run_to_resume(module_tiny, inline, tmp_path):
    out = tmp_path / "run"
    arguments = [*RL, *module_tiny, *RAY, "--ray-workers", "2"]
    process = begin(arguments, out)
    wait_for(has_begun(process, out), START_SECONDS)
    children = psutil.Process(process.pid).children(recursive=True)
    workers(process, "UpdateWorker")[1].kill()
    _, error = process.communicate(timeout=START_SECONDS)
    assert process.returncode == EXIT_RUN, error
    named = re.search(r"error: worker update-[01]: was killed or crashed", error)
    assert named, error
    assert "--resume" in error
    wait_for_the_end_of(children)
    process = begin([*arguments, "--resume"], out)
    _, error = process.communicate(timeout=START_SECONDS)
    assert process.returncode == 0, error
    rows, expected = (without_times(folder / "metrics.jsonl") for folder in (out, inline))
    for row, other in zip(rows, expected, strict=True):
        assert row.keys() == other.keys()
        for key in row.keys() - OWN:
            assert row[key] == (other[key] if isinstance(row[key], str) else pytest.approx(other[key], abs=1e-5)), key
    for key, value in weights_of(inline).items():
        torch.testing.assert_close(value, weights_of(out)[key], atol=1e-5, rtol=0)

"""What is checked of the commands of the documentation that are not this package's. A helper of tests."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from typing import NamedTuple

from tests.docs.pages import ROOT
from tests.docs.terminal import Command, makefile_targets

VENV = "VENV := .venv"
PIN = re.compile(r"([A-Za-z0-9_.-]+)==([0-9][^\s]*)")
IMAGE = "/home/astro/astro"


class Check(NamedTuple):
    """A command of another program: why it is not run, and what of it is checked instead."""

    pattern: str
    reason: str
    check: Callable[[Command], None]


def target_exists(command: Command) -> None:
    """`make -n` plans it: the target is there, and so is all that it depends on."""
    words = command.words
    assert words[1] in makefile_targets()
    planned = subprocess.run(
        ["make", "--dry-run", "--always-make", *words[1:]], cwd=ROOT, capture_output=True, text=True, timeout=20
    )
    assert planned.returncode == 0, planned.stderr


def environment_is_made_there(command: Command) -> None:
    assert VENV in (ROOT / "Makefile").read_text(encoding="utf-8")
    assert command.words == [".", ".venv/bin/activate"]


def pins_agree(command: Command) -> None:
    """The versions that a page pins are those of constraints.txt."""
    pins = dict(PIN.findall((ROOT / "constraints.txt").read_text(encoding="utf-8")))
    named = dict(PIN.findall(" ".join(command.words)))
    assert named
    assert named == {name: pins[name] for name in named}


def image_is_this_ones(command: Command) -> None:
    """What docker is asked for is what the Dockerfile makes."""
    file = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    match command.words[1]:
        case "build":
            assert command.words[-1] == "."
        case "run":
            assert command.words[-1] == "astro"
        case "cp":
            source = command.words[2].partition(":")[2]
            assert source.startswith(f"{IMAGE}/results/")
            assert f"WORKDIR {IMAGE}\n" in file
        case other:
            raise AssertionError(f"docker {other}: no rule")


def script_takes_its_options(command: Command) -> None:
    """The script is there, can be run, and names each option."""
    script = ROOT / command.words[0]
    assert os.access(script, os.X_OK)
    text = script.read_text(encoding="utf-8")
    assert [word for word in command.words[1:] if word not in text] == []


def launcher_takes_its_options(command: Command) -> None:
    """accelerate's own parser reads the line, up to this package's command."""
    from accelerate.commands.launch import launch_command_parser

    parsed = launch_command_parser().parse_args(command.words[2:])
    assert parsed.module
    assert parsed.training_script == "astro_cli"


def extra_is_the_packages(command: Command) -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (extra,) = re.findall(r"astro-cli\[(\w+)\]", command.text)
    assert f"\n{extra} = [" in text


def nothing(command: Command) -> None:
    """A line that only the shell or Ray reads."""
    assert command.words[0] in ("export", "ray") or command.words[1:3] == ["-m", "venv"]


CHECKS = (
    Check(r"^make ", "sets up an environment, or takes minutes", target_exists),
    Check(r"^\. \.venv", "changes the shell of a user", environment_is_made_there),
    Check(r"^docker ", "tests have no docker", image_is_this_ones),
    Check(r"bin/pip install ", "downloads gigabytes", pins_agree),
    Check(r"^accelerate launch ", "needs several GPUs", launcher_takes_its_options),
    Check(r"^pip install ", "changes the environment", extra_is_the_packages),
    Check(r"^ray start ", "leaves a cluster running", nothing),
    Check(r"^scripts/", "takes minutes, and a GPU", script_takes_its_options),
    Check(r"^export |-m venv ", "changes the shell of a user, or the disk", nothing),
)
DOWNLOAD, SEVERAL = r"^hf download ", r"^python -m torch\.distributed\.run "


def check_of(command: Command) -> Check | None:
    return next((check for check in CHECKS if re.search(check.pattern, command.text)), None)

"""What a user sees while a command loads, and when it is interrupted."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from eval.scoring import run as suite_run
from eval.world import run as world_run


def on_terminal(arguments: list[str]) -> str:
    """All that `astro ARGUMENTS` prints where stderr is a terminal."""
    reader, writer = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen(
        [sys.executable, "-m", "astro_cli", *arguments], stdout=subprocess.DEVNULL, stderr=writer, env=environment
    ):
        os.close(writer)
        printed = b""
        while True:
            try:
                part = os.read(reader, 4096)
            except OSError:  # Linux: the other end is closed
                break
            if not part:
                break
            printed += part
    os.close(reader)
    return printed.decode()


def test_a_terminal_shows_what_is_loaded_and_keeps_no_trace_of_it():
    printed = on_terminal(["recipe", "check", "astrolabe_causal_shapes"])
    assert "loading astrolabe_causal_shapes" in printed
    assert printed.rindex("\x1b[2K") > printed.rindex("loading")  # the line is cleared


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("module", "name", "arguments", "kept"),
    [
        (suite_run, "evaluate", ("eval", "temporal-flickering", "videos"), "what is scored is kept"),
        (
            world_run,
            "evaluate_arm",
            ("eval", "shapes", "--arm", "shapes/causal_forcing"),
            "arms and seeds that are scored are kept",
        ),
    ],
)
def test_an_interrupted_evaluation_says_so_and_exits_1(module, name, arguments, kept, astro, monkeypatch):
    monkeypatch.setattr(module, name, interrupt)
    code, out, err = astro(*arguments)
    assert (code, out) == (1, "")
    assert err == f"interrupted; {kept}, the same command goes on\n"

"""Runs the command line in this process. A helper of tests."""

import sys
from types import ModuleType

import pytest

from astro_cli import __main__ as cli


def run(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """`astro ARGUMENTS`; returns the exit code."""
    monkeypatch.setattr(sys, "argv", ["astro", *arguments])
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def set_options(*items: str) -> list[str]:
    """`--set ITEM` for each."""
    return [part for item in items for part in ("--set", item)]


def run_and_interrupt(
    arguments: list[str], objective: ModuleType, monkeypatch: pytest.MonkeyPatch, *, step: int = 2
) -> None:
    """`astro ARGUMENTS`, interrupted as by Ctrl-C before this step (from 1) of an objective's module is done.

    It must end as an interrupted run does.
    """
    original, calls = objective.Objective.after_step, []

    def interrupt(self, number):
        calls.append(number)
        if len(calls) == step:
            raise KeyboardInterrupt
        return original(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(objective.Objective, "after_step", interrupt)
        assert run(arguments, patch) == 1

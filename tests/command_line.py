"""Runs the command line in this process. A helper of tests."""

import sys

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

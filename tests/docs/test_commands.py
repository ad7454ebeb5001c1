"""Every command of the README, of docs/ and of every `--help` example is run, or checked by a rule with a reason."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import click
import pytest
import typer.main

from astro_cli.__main__ import app
from tests.docs.checks import DOWNLOAD, SEVERAL, check_of
from tests.docs.pages import ROOT, code_spans, pages
from tests.docs.terminal import (
    EXAMPLE,
    Command,
    arguments,
    commands_of_the_app,
    help_examples,
    makefile_targets,
    page_commands,
    rule_of,
)

ON_PAGES, OF_HELP = page_commands(), help_examples()
OTHERS = [command for command in ON_PAGES if command.words[0] != "astro"]
OWN = [command for command in ON_PAGES if command.words[0] == "astro"]
WAN_RECIPES = ("astrolabe_self_forcing", "astrolabe_causal")


def once_each(commands: list[Command]) -> list:
    """A test per command of this package, however many pages show it; slow where its rule says so."""
    distinct = {tuple(command.words): command for command in commands if command.words[0] == "astro"}
    return [
        pytest.param(command, id=command.place, marks=[pytest.mark.slow] if rule_of(command).slow else [])
        for command in distinct.values()
    ]


@pytest.mark.parametrize("command", once_each([*ON_PAGES, *OF_HELP]))
def test_a_command_runs_as_it_is_shown(command: Command, astro, in_the_folder) -> None:
    rule = rule_of(command)
    code, shown = astro(*arguments(command, rule), typed=rule.typed)
    assert code == rule.code, shown
    assert re.search(rule.says, shown), shown


def test_every_command_has_an_example_of_itself() -> None:
    for name, command in commands_of_the_app():
        examples = [line for line in (command.help or "").splitlines() if EXAMPLE in line]
        assert examples, name
        assert all(f"{EXAMPLE} {name} " in f"{line} " for line in examples), name


@pytest.mark.parametrize("command", OTHERS, ids=lambda command: command.place)
def test_a_command_of_another_program_has_a_rule(command: Command) -> None:
    check = check_of(command)
    if check is None:
        assert re.search(f"{DOWNLOAD}|{SEVERAL}", command.text), f"{command.place}: no rule for {command.text}"
    else:
        check.check(command)


def test_downloads_are_the_lines_that_commands_print(astro, in_the_folder) -> None:
    printed = ""
    for recipe in WAN_RECIPES:
        code, shown = astro("rl", "--recipe", recipe)
        assert code == 2
        printed += shown
    lines = {line.strip() for line in printed.splitlines()}
    downloads = [" ".join(command.words) for command in ON_PAGES if re.search(DOWNLOAD, command.text)]
    assert downloads
    assert set(downloads) <= lines


def of_several() -> list[Command]:
    return [command for command in ON_PAGES if re.search(SEVERAL, command.text)]


def test_what_several_processes_run_is_a_command(astro, in_the_folder) -> None:
    assert of_several()
    for command in of_several():
        words = command.words
        code, shown = astro(*words[words.index("astro_cli") + 1 :], "--dry-run")
        assert code == 0, shown


def launchers() -> list[Command]:
    """The first command of every way to start several processes; what they start is tested without them."""
    first = {}
    for command in of_several():
        first.setdefault(command.text.partition("-m astro_cli")[0].partition("--module astro_cli")[0], command)
    return list(first.values())


@pytest.mark.slow
@pytest.mark.parametrize("command", launchers(), ids=lambda command: command.place)
def test_several_processes_start(command: Command, in_the_folder) -> None:
    here = re.sub(r"--nnodes \d+(.*)--rdzv-backend \S+\s+--rdzv-endpoint \S+", r"\1--standalone", command.text)
    words = [sys.executable, *re.sub(r"--nproc-per-node \d+", "--nproc-per-node 2", here).split()[1:]]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run([*words, "--dry-run"], env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr


def spans() -> list[Command]:
    """Commands in the middle of sentences. Words in capitals stand for what a reader has, dots for more."""
    found = []
    for page in pages():
        name = str(page.relative_to(ROOT))
        found += [Command(name, span) for span in code_spans(page) if re.match(r"(astro|make) [a-z-]", span)]
    return found


@pytest.mark.parametrize("command", [*spans(), *OWN], ids=lambda command: f"{command.place}: {command.text}")
def test_a_command_exists_with_its_options(command: Command) -> None:
    first, *rest = command.words
    if first == "make":
        assert rest[0] in makefile_targets()
        return
    found = typer.main.get_command(app)
    context = click.Context(found, info_name="astro")
    while rest and hasattr(found, "get_command") and not rest[0].startswith("-"):
        name = rest.pop(0)
        if name.isupper():  # any of them: COMMAND, SUITE
            return
        found = found.get_command(context, name.split("|")[0])
        assert found is not None, name
    known = {option for parameter in found.params for option in (*parameter.opts, *parameter.secondary_opts)}
    used = {word.partition("=")[0] for word in rest if word.startswith("-") and word != "-"}
    assert used <= known | set(found.get_help_option_names(context))

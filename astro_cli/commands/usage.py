"""Turns the parser's errors on a wrong command line into errors for users."""

from __future__ import annotations

from typing import Any

import typer

# typer's own click
from typer._click.exceptions import (
    BadOptionUsage,
    ClickException,
    MissingParameter,
    NoArgsIsHelpError,
    NoSuchOption,
    UsageError,
)

from astro_cli.config.errors import EXIT_RUN, EXIT_USAGE, AstroError

INTERRUPTED = 130  # typer's exit code for Ctrl-C
PROGRAM = "astro"  # in messages and help, however it was started


class CommandLineError(AstroError):
    """An option, argument or command that is unknown, missing or has a value outside of what is allowed."""


def run_app(app: typer.Typer) -> int:
    """Run the app on `sys.argv`; returns the exit code. Without arguments a group prints its help: exit 2. Ctrl-C: exit
    1, as every command that is interrupted.

    Raises:
        CommandLineError: the command line is wrong.
    """
    try:
        code = app(prog_name=PROGRAM, standalone_mode=False)
    except NoArgsIsHelpError as error:
        if text := error.format_message():  # empty where the help is printed already
            typer.echo(text)
        return EXIT_USAGE
    except ClickException as error:
        raise as_error(error) from error
    except typer.Abort:
        code = INTERRUPTED
    if code == INTERRUPTED:
        typer.echo("interrupted", err=True)
        return EXIT_RUN
    return code if isinstance(code, int) else 0


def as_error(error: ClickException) -> CommandLineError:
    """The parser's error in the words of this program: option or argument, what is wrong, and whose --help says
    more.
    """
    context = error.ctx if isinstance(error, UsageError) else None
    help_ = f"{context.command_path} --help" if context else f"{PROGRAM} --help"
    if isinstance(error, typer.BadParameter):
        return CommandLineError(_name(error.param, error.param_hint), "", _wrong_value(error), hint=help_)
    if isinstance(error, NoSuchOption):
        near = " or ".join(sorted(error.possibilities or ()))
        return CommandLineError(
            error.option_name, "", "no such option", hint=f"did you mean {near}? {help_}" if near else help_
        )
    if isinstance(error, BadOptionUsage):
        return CommandLineError(
            error.option_name, "", _sentence(error.message.removeprefix(f"Option {error.option_name!r} ")), hint=help_
        )
    return CommandLineError(
        PROGRAM if context is None else context.command_path, "", _sentence(error.format_message()), hint=help_
    )


def _name(parameter: Any, given: Any) -> str:
    """The option's long name, or the argument as the help writes it."""
    if parameter is None:
        return str(given or "command line")
    if parameter.param_type_name == "option":
        return max(parameter.opts, key=len)
    return parameter.metavar or parameter.name


def _wrong_value(error: typer.BadParameter) -> str:
    """Typer checks values with pydantic, whose error knows what was found where typer's message does not."""
    if isinstance(error, MissingParameter):
        return "missing"
    from pydantic import ValidationError  # slow to import, and only this needs it

    from astro_cli.config.problems import first_problem

    cause = error.__cause__
    if isinstance(cause, ValidationError) and (wrong := first_problem(cause)).kind != "value_error":
        return f"{_sentence(wrong.what)}, found {wrong.shown}"
    return _sentence(error.message)


def _sentence(text: str) -> str:
    """The message as part of our own line: no capital, no full stop, no name of a Python exception."""
    text = " ".join(text.split()).removeprefix("Value error, ").removesuffix(".")
    return text[:1].lower() + text[1:]

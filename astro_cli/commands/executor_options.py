"""The options that say who rolls out and scores the clips of RL, of `astro rl`. `execution` carries them out."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any

import typer

from astro_cli.execution.options import choose_executor

MOST_WORKERS = 4096


class ExecutorKind(StrEnum):
    inline = "inline"
    ray = "ray"


OPTIONS: dict[str, tuple[Any, Any]] = {
    "executor": (
        Annotated[
            ExecutorKind,
            typer.Option(help="Who rolls out and scores: this process, or a pool of Ray workers (the extra 'ray')."),
        ],
        ExecutorKind.inline,
    ),
    "ray_address": (
        Annotated[
            str | None,
            typer.Option(
                metavar="HOST:PORT", help="A running Ray cluster. Default: a pool on this machine, ended with the run."
            ),
        ],
        None,
    ),
    "ray_workers": (
        Annotated[
            int | None,
            typer.Option(min=1, max=MOST_WORKERS, help="Members of the pool, a core or GPU each. Default: 1."),
        ],
        None,
    ),
}


def with_executors(function: Callable[..., None], *, offered: bool) -> Callable[..., None]:
    """The command with these options as its last ones where they are offered; it takes what they choose as `ray`."""

    @functools.wraps(function)
    def command(*arguments: Any, **options: Any) -> None:
        kind, address, workers = (options.pop(name, default) for name, (_, default) in OPTIONS.items())
        function(*arguments, ray=choose_executor(str(kind), address, workers), **options)

    own = [p for p in inspect.signature(function, eval_str=True).parameters.values() if p.name != "ray"]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in (OPTIONS.items() if offered else ())
    ]
    command.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *added)}
    return command

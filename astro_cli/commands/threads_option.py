"""`--threads`, the option that commands which compute have in common. The rule itself is in `core.threads`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from astro_cli.core import threads

MOST = 1024
HELP = "Threads to compute with. Default: OMP_NUM_THREADS, else one for small networks and all cores for large ones."
ThreadsOption = Annotated[int | None, typer.Option("--threads", min=1, max=MOST, help=HELP)]


def with_threads(function: Callable[..., None]) -> Callable[..., None]:
    """The command with `--threads` as its last option."""

    @functools.wraps(function)
    def command(*arguments: Any, threads_: int | None = None, **options: Any) -> None:
        if threads_ is not None:
            threads.ask(threads_)
        function(*arguments, **options)

    signature = inspect.signature(function, eval_str=True)
    last = inspect.Parameter("threads_", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=ThreadsOption)
    own = [parameter for parameter in signature.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
    command.__signature__ = signature.replace(parameters=[*own, last])  # type: ignore[attr-defined]
    command.__annotations__ = {**inspect.get_annotations(function, eval_str=True), "threads_": ThreadsOption}
    return command

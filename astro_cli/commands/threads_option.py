"""`--threads`, the option that commands which compute have in common. The rule itself is in `core.threads`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from astro_cli.commands.added_options import with_options
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

    last = inspect.Parameter("threads_", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=ThreadsOption)
    return with_options(command, function, [last])

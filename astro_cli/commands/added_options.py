"""Options that several commands have in common, added to a command's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable


def with_options(
    command: Callable[..., None],
    function: Callable[..., None],
    added: Iterable[inspect.Parameter],
    instead_of: str | None = None,
) -> Callable[..., None]:
    """Show `command`, which calls `function`, with the function's options and the added ones as its last.

    Args:
        instead_of: a parameter of the function that the added options replace.
    """
    signature = inspect.signature(function, eval_str=True)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD and p.name != instead_of]
    parameters = [*own, *added]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command

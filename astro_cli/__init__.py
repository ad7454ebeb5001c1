"""astro: post-training of distilled autoregressive video models.

`from astro_cli import load_student, stream, train, evaluate` is the Python API (`astro_cli.api`). Importing the package
imports no torch; a function of the API does, when it is looked up.
"""

from typing import TYPE_CHECKING, Any

from astro_cli.compat import torchvision_ops

if TYPE_CHECKING:
    from astro_cli.api import evaluate, load_student, stream, train

__all__ = ["evaluate", "load_student", "stream", "train"]

torchvision_ops.install()  # makes torchvision importable beside a CPU build of torch


def __getattr__(name: str) -> Any:
    """The functions of the API, imported when they are asked for (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from astro_cli import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

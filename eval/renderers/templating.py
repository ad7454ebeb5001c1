"""The HTML templates of tables and pages: where they are, and how they are filled. They escape all they are given."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

PACKAGES = ("eval.renderers", "eval.report")  # each with its folder `templates`


def fill(template: str, **values: Any) -> Markup:
    """A template's text; marked as HTML, so that another template takes it as it is.

    Raises:
        UndefinedError: the template names a value that is not given.
    """
    return Markup(_environment().get_template(template).render(values).strip("\n"))


@cache
def _environment() -> Environment:
    loader = ChoiceLoader([PackageLoader(package) for package in PACKAGES])
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)

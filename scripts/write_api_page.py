"""Writes docs/api.md from the docstrings and signatures of `astro_cli.api`. Usage: python scripts/write_api_page.py"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import astro_cli
from astro_cli import api

PAGE = Path(__file__).resolve().parents[1] / "docs" / "api.md"
WIDTH = 120
ORDER = ("load_student", "stream", "train", "evaluate")
SECTION = re.compile(r"^(Args|Returns|Raises|Example):$", re.MULTILINE)
ENTRY = re.compile(r"^(?P<name>[\w, ]+): (?P<text>.+)$", re.DOTALL)
START = """# The Python API

<!-- `python scripts/write_api_page.py` writes this page from the docstrings -->

```python
from astro_cli import load_student, stream, train, evaluate
```

The functions are those that the commands call, and so are their objects: `Arm` (weights with all that they need to
generate), `RunDir` (a run's folder), `Record` (a metric of an arm, with a score per prompt). `import astro_cli` imports
no torch; the first use of a function does. What a user can cause is an `AstroError` (`astro_cli.config.errors`), whose
text is the message that the command prints. [first_steps.ipynb](first_steps.ipynb) is a notebook that uses all four on
the embedded world.
"""


def page() -> str:
    """The whole page."""
    assert set(ORDER) == set(astro_cli.__all__), "every function of the API, once"
    return "\n".join([START, *(section(getattr(api, name)) for name in ORDER)])


def section(function: Callable[..., Any]) -> str:
    """A function's heading, signature, text and tables of arguments."""
    intro, *rest = SECTION.split(inspect.getdoc(function) or "")
    parts = [f"## {function.__name__}", f"```python\n{signature(function)}\n```", wrapped(intro)]
    for title, body in zip(rest[::2], rest[1::2], strict=True):
        text = textwrap.dedent(body).strip()
        parts.append(f"**{title}**")
        if title == "Example":
            parts.append(f"```python\n{text}\n```")
        else:
            parts.append(wrapped(text) if title == "Returns" else entries(text))
    return "\n\n".join(parts) + "\n"


def signature(function: Callable[..., Any]) -> str:
    """`def` with an argument a line."""
    found = inspect.signature(function)
    lines, keyword = [], False
    for parameter in found.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword:
            lines.append("*")
            keyword = True
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        lines.append(f"{parameter.name}: {parameter.annotation}{default}")
    inner = "".join(f"    {line},\n" for line in lines)
    return f"def {function.__name__}(\n{inner}) -> {found.return_annotation}: ...".replace("'", '"')  # as ruff has it


def entries(text: str) -> str:
    """`name: text` entries as a list; any other text as it is."""
    items = re.split(r"\n(?=\S)", text)
    matches = [ENTRY.match(item) for item in items]
    if not all(matches):
        return wrapped(text)
    return "\n".join(
        wrapped(f"- `{match['name']}`: {match['text']}", indent="  ") for match in matches if match is not None
    )


def wrapped(text: str, indent: str = "") -> str:
    """Paragraphs in lines of at most 120 characters."""
    paragraphs = [" ".join(part.split()) for part in text.strip().split("\n\n")]
    filled = [
        textwrap.fill(part, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
        for part in paragraphs
    ]
    return "\n\n".join(filled)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

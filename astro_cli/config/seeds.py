"""Seeds as commands take them: "0,1,2" -> [0, 1, 2]."""

from __future__ import annotations

import re

from astro_cli.config.errors import AstroError

HINT = "for example: --seeds 0,1,2"


def parse_seeds(text: str) -> list[int]:
    """The numbers of `--seeds`, in order.

    Raises:
        AstroError: not whole numbers, or one of them twice.
    """
    if not re.fullmatch(r"\s*\d+\s*(,\s*\d+\s*)*", text):
        raise AstroError("--seeds", text, "expected whole numbers separated by commas", hint=HINT)
    seeds = [int(number) for number in text.split(",")]
    if len(set(seeds)) < len(seeds):
        raise AstroError("--seeds", text, "found a seed twice, expected each once", hint=HINT)
    return seeds

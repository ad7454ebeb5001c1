"""Seeds as commands take them: "0,1,2" -> [0, 1, 2]."""

from __future__ import annotations

import re

from astro_cli.config.errors import AstroError

HINT = "for example: --seeds 0,1,2"
LARGEST = 2**63 - 1  # what torch's generators take
SHOWN = 80  # characters of a wrong list


def parse_seeds(text: str) -> list[int]:
    """The numbers of `--seeds`, in order.

    Raises:
        AstroError: not whole numbers, or one of them twice.
    """
    if not re.fullmatch(r"\s*[0-9]{1,19}\s*(,\s*[0-9]{1,19}\s*)*", text):
        raise AstroError("--seeds", text[:SHOWN], "expected whole numbers separated by commas", hint=HINT)
    seeds = [int(number) for number in text.split(",")]
    if max(seeds) > LARGEST:
        raise AstroError("--seeds", str(max(seeds)), f"expected at most {LARGEST}", hint=HINT)
    if len(set(seeds)) < len(seeds):
        raise AstroError("--seeds", text, "found a seed twice, expected each once", hint=HINT)
    return seeds

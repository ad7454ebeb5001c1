"""CLIP's tokeniser with a stated rule for prompts that are too long. The vocabulary comes with open_clip.

Dimensions: B prompt, M token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import torch
from open_clip.tokenizer import SimpleTokenizer

from astro_cli.config.errors import warn
from eval.contract import ScoreError

TooLong = Literal["cut", "refuse"]
ENDS = 2  # start and end of text
QUOTED = 6  # words quoted on each side of the cut of a prompt that is too long


@dataclass(frozen=True)
class Words:
    """Token numbers (B, M), each prompt's true token count with both end marks, and how many it may have."""

    tokens_BM: torch.Tensor
    counts: tuple[int, ...]
    context: int

    @property
    def cut(self) -> tuple[bool, ...]:
        """Which prompts lost their end."""
        return tuple(count > self.context for count in self.counts)


@cache
def _tokenizer() -> SimpleTokenizer:
    return SimpleTokenizer()


def tokenize(prompts: Sequence[str], context: int, too_long: TooLong, where: str | Path) -> Words:
    """Lower-case BPE, padded with 0; a cut prompt keeps the end mark as its last token.

    Args:
        too_long: "cut" drops what does not fit (the caller records it; a warning on stderr, one per prompt, quotes the
            words at the cut), "refuse" raises.
        where: the video, for the error.

    Raises:
        ScoreError: an empty prompt, or one of more than `context` tokens under "refuse".

    Source: Radford et al. 2103.00020 (CLIP's `tokenize`). **Deviations:** none.
    """
    if empty := [prompt for prompt in prompts if not prompt.strip()]:
        raise ScoreError(where, "prompt", f"{len(empty)} of {len(prompts)} prompts are empty")
    tokenizer = _tokenizer()
    counts = tuple(len(tokenizer.encode(prompt)) + ENDS for prompt in prompts)
    words = Words(tokenizer(list(prompts), context_length=context), counts, context)
    if too_long == "refuse" and any(words.cut):
        what = f"{max(counts)} tokens, this text tower reads {context}"
        raise ScoreError(
            where, "prompt", what, hint="too_long = 'cut' scores the beginning of the prompt, and is recorded"
        )
    for prompt, count, cut in zip(prompts, counts, words.cut, strict=True):
        if cut:
            _warn(prompt, count, context)
    return words


@cache
def _warn(prompt: str, count: int, context: int) -> None:
    """Say once per process what a text tower does not read."""
    numbers = _tokenizer().encode(prompt)
    kept, dropped = (
        _tokenizer().decode(part).split() for part in (numbers[: context - ENDS], numbers[context - ENDS :])
    )
    warn(
        f"prompt: {count} tokens, the text tower reads {context}; kept up to "
        f"'... {' '.join(kept[-QUOTED:])}', dropped from '{' '.join(dropped[:QUOTED])} ...'"
    )

"""Text side of the embedded world: prompt -> encoder states. Deterministic, without weights.

It takes the place of Wan's UMT5: (B, M, text_dim) states that are zero past the prompt's end. A state is the word's
one-hot vector beside a sinusoid of its place in the prompt; what the words mean, the transformer's text embedder
learns.
"""

from __future__ import annotations

import torch

from astro_cli.config.errors import PromptError
from astro_cli.shapes.grammar import WORDS, check_words

TEXT_LEN = 32  # tokens; the longest one-object prompt has 12, two objects with a panning camera 25
POSITION_WIDTH = 16
TEXT_DIM = len(WORDS) + POSITION_WIDTH
_INDEX = {word: index for index, word in enumerate(WORDS)}


def tokenize(prompt: str) -> list[int]:
    """Word indices of a prompt. The empty prompt has none (the unconditional branch of guidance).

    Raises:
        PromptError: an unknown word, named with the nearest known ones, or more than TEXT_LEN words.
    """
    words = prompt.lower().replace(",", " ").replace(".", " ").split()
    check_words(words, prompt)
    if len(words) > TEXT_LEN:
        raise PromptError("prompt", prompt, f"{len(words)} words, at most {TEXT_LEN} fit")
    return [_INDEX[word] for word in words]


def encode(prompts: list[str]) -> torch.Tensor:
    """(B, TEXT_LEN, TEXT_DIM) float32 states of the prompts."""
    states = torch.zeros(len(prompts), TEXT_LEN, TEXT_DIM)
    place = torch.arange(TEXT_LEN, dtype=torch.float32)[:, None] * 0.7 ** torch.arange(POSITION_WIDTH // 2)
    positions = torch.cat((place.cos(), place.sin()), dim=-1)
    for row, prompt in zip(states, prompts, strict=True):
        tokens = tokenize(prompt)
        row[range(len(tokens)), tokens] = 1.0
        row[: len(tokens), len(WORDS) :] = positions[: len(tokens)]
    return states

"""Released weights of Qwen2-VL reward models from disk into a tower: sizes, words, names of transformers 4 and peft.

Source: the released files of HPSv3 (arXiv 2508.03789) and VideoAlign (arXiv 2501.13918).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from transformers import PreTrainedTokenizerBase, Qwen2VLConfig

from astro_cli.config.errors import CheckpointError
from astro_cli.models import parts, tokenizer_files, weights
from astro_cli.models.tensor_files import LazyTensor
from astro_cli.rewards.qwen2_vl_reward import RewardTower

LANGUAGE_HEAD = "lm_head.weight"  # in every released file, and used by none of the rewards
OLD_NAMES = (("visual.", "model.visual."), ("model.", "model.language_model."))  # transformers 4 -> 5
NEW_NAMES = ("model.visual.", "model.language_model.")
HINT = "do the weights and the base model's config.json belong together?"
HEAD = "rm_head."
WORDS = "model.language_model.embed_tokens.weight"


def load_tokenizer(folder: Path, specials: tuple[str, ...]) -> PreTrainedTokenizerBase:
    """The base model's words with the reward tokens added, if they are not among them.

    Raises:
        CheckpointError: none there, damaged, or without Qwen2-VL's special tokens.
    """
    tokenizer = tokenizer_files.load(folder, "copy tokenizer.json and tokenizer_config.json")
    known = tokenizer.get_vocab()
    wanted = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    lost = [token for token in wanted if token not in known]
    if lost:
        raise CheckpointError(folder, lost[0], "missing: not a tokenizer of Qwen2-VL")
    tokenizer.add_special_tokens({"additional_special_tokens": [token for token in specials if token not in known]})
    return tokenizer


def load_config(folder: Path, tokenizer: PreTrainedTokenizerBase) -> Qwen2VLConfig:
    """The base model's sizes, its vocabulary resized to the tokenizer's as in training.

    Raises:
        CheckpointError: no config.json, or of another model.
    """
    config = parts.configured(Qwen2VLConfig.from_dict, folder, "qwen2_vl")
    sizes(config).vocab_size = len(tokenizer)
    for kind, token in (("image", "<|image_pad|>"), ("video", "<|video_pad|>")):
        own, expected = tokenizer.convert_tokens_to_ids(token), getattr(config, f"{kind}_token_id")
        if own != expected:
            what = f"is {expected}, the tokenizer's {token} is {own}"
            raise CheckpointError(
                folder / "config.json", f"{kind}_token_id", what, hint="tokenizer and config.json must be of one model"
            )
    return config


def sizes(config: Qwen2VLConfig) -> Any:
    """The language model's part of the sizes; a config object once transformers has read the file."""
    return config.text_config


def check_sizes(config: Qwen2VLConfig, state: Mapping[str, Any], folder: Path) -> None:
    """Refuse sizes that the weights do not have, before anything of them is allocated.

    Raises:
        CheckpointError: another width, or more layers than tensors.
    """
    where, width = folder / "config.json", sizes(config).hidden_size
    parts.check_depth(config.to_dict(), state, where)
    if WORDS in state and width != state[WORDS].shape[-1]:
        raise CheckpointError(
            where, "hidden_size", f"found {width}, the weights have {state[WORDS].shape[-1]}", hint=HINT
        )


def token_ids(tokenizer: PreTrainedTokenizerBase, tokens: tuple[str, ...]) -> list[int]:
    known = tokenizer.get_vocab()
    return [known[token] for token in tokens]


def current_names(state: Mapping[str, LazyTensor]) -> dict[str, LazyTensor]:
    """transformers 5's names of tensors named as by transformers 4; names that are new already stay."""
    if any(key.startswith(NEW_NAMES) for key in state):
        return dict(state)
    renamed = {}
    for key, value in state.items():
        old, new = next(((old, new) for old, new in OLD_NAMES if key.startswith(old)), ("", ""))
        renamed[new + key.removeprefix(old)] = value
    return renamed


def assemble(
    build: Callable[[], RewardTower], state: Mapping[str, Any], where: Path, dtype: torch.dtype
) -> RewardTower:
    """A tower around released tensors, every key and shape checked; `dtype` for all but the head, which stays float32.

    Args:
        state: tensors, or what reads one, by transformers 5's names; the language head is checked and left out.

    Raises:
        CheckpointError: missing, unexpected or wrongly shaped tensors, or weights that are not finite.
    """
    try:
        with init_empty_weights(include_buffers=False):
            tower = build()
    except Exception as error:  # of the library, for sizes that do not go together
        raise CheckpointError(where, "config.json", f"impossible sizes: {error}", hint=HINT) from error
    expected = tower.state_dict()
    if LANGUAGE_HEAD in state:
        expected[LANGUAGE_HEAD] = expected[WORDS]
    weights.check_state(state, expected, where, HINT)
    own = {key: _cast(key, value, dtype, where) for key, value in state.items() if key != LANGUAGE_HEAD}
    tower.load_state_dict(own, assign=True)
    return tower.eval().requires_grad_(False)


def _cast(key: str, value: Any, dtype: torch.dtype, where: Path) -> torch.Tensor:
    tensor = value.read() if isinstance(value, LazyTensor) else value
    return weights.checked(tensor, where, key, torch.float32 if key.startswith(HEAD) else dtype)

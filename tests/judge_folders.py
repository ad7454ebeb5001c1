"""Tiny random Qwen2.5-VL and Qwen3-VL folders as transformers writes the released ones. A helper of tests."""

from __future__ import annotations

from pathlib import Path

import torch
from reward_folders import SPECIALS, write_tokenizer
from transformers import (
    AutoTokenizer,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

WIDTH = 32
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for content in message['content'] "
    "%}{% if content['type'] == 'video' %}"
    "<|vision_start|><|video_pad|><|vision_end|>{% else %}{{ content['text'] }}{% endif %}{% endfor "
    "%}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHAT_3 = CHAT.replace(
    "<|vision_start|><|video_pad|><|vision_end|>", "<|video_pad|>"
)  # Qwen3-VL's processor puts times and marks around frames


def _text(words: int, section: list[int]) -> dict:
    return {
        "vocab_size": words,
        "hidden_size": WIDTH,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "head_dim": 8,
        "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "default", "mrope_section": section, "rope_theta": 10000.0},
        "max_position_embeddings": 8192,
        "bos_token_id": None,
        "eos_token_id": words - len(SPECIALS) + 2,
        "pad_token_id": words - len(SPECIALS),
    }


def _places(words: int) -> dict:
    first = words - len(SPECIALS)
    return {
        "image_token_id": first + 6,
        "video_token_id": first + 7,
        "vision_start_token_id": first + 3,
        "vision_end_token_id": first + 4,
    }


def write_qwen2_5(folder: Path, seed: int = 0) -> Path:
    words = write_tokenizer(folder)
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 2,
        "out_hidden_size": WIDTH,
        "window_size": 56,
        "fullatt_block_indexes": [1],
        "patch_size": 14,
    }
    torch.manual_seed(seed)
    config = Qwen2_5_VLConfig(text_config=_text(words, [2, 1, 1]), vision_config=vision, **_places(words))
    _save(Qwen2_5_VLForConditionalGeneration(config), folder)
    videos = Qwen2VLVideoProcessor(
        size={"shortest_edge": 28 * 28, "longest_edge": 4 * 28 * 28}, cap_pixels_per_frame=False
    )
    Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(), AutoTokenizer.from_pretrained(folder), videos, chat_template=CHAT
    ).save_pretrained(folder)
    return folder


def write_qwen3(folder: Path, seed: int = 0) -> Path:
    words = write_tokenizer(folder)
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 2,
        "out_hidden_size": WIDTH,
        "patch_size": 16,
        "deepstack_visual_indexes": [0],
        "num_position_embeddings": 64,
    }
    torch.manual_seed(seed)
    config = Qwen3VLConfig(text_config=_text(words, [2, 1, 1]), vision_config=vision, **_places(words))
    _save(Qwen3VLForConditionalGeneration(config), folder)
    videos = Qwen3VLVideoProcessor(
        size={"shortest_edge": 4 * 32 * 32, "longest_edge": 16 * 32 * 32}, cap_pixels_per_frame=False
    )
    pictures = Qwen2VLImageProcessor(patch_size=16)
    Qwen3VLProcessor(pictures, AutoTokenizer.from_pretrained(folder), videos, chat_template=CHAT_3).save_pretrained(
        folder
    )
    return folder


@torch.no_grad()
def _save(model, folder: Path) -> None:
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.15)
    model.save_pretrained(folder)

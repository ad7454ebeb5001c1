"""Tiny random HPSv3 and VideoAlign checkpoints in their released layouts, with their base models' folders.

A helper of tests.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from astro_cli.rewards.templates import hpsv3_template

SPECIALS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
REWARD = ["<|Reward|>"]
REWARDS = ["<|VQ_reward|>", "<|MQ_reward|>", "<|TA_reward|>"]
WIDTH, WORDS, SPARE = 32, 900, 11  # the base model's vocabulary is larger than its tokenizer's, as Qwen2-VL's is
SPREAD = 0.15
TEMPLATE = (
    "\nJudge the video.\n**Visual Quality:**  \nIs it clear?\nVisual Quality: <|VQ_reward|>\nEND\n"
    "**Motion Quality:**\nDoes it move?\nMotion Quality: <|MQ_reward|>\nEND\n"
    "Textual prompt - {text_prompt}\nText Alignment: <|TA_reward|>\nEND\n"
)
LORA_RANK, LORA_ALPHA = 4, 8
WRAPPER = "base_model.model."
NORM = {"VQ_mean": 0.3, "VQ_std": 2.0, "MQ_mean": -0.2, "MQ_std": 0.5, "TA_mean": 1.0, "TA_std": 4.0}


def write_tokenizer(folder: Path, extra: list[str] | None = None) -> int:
    """A byte-level BPE tokenizer with Qwen2-VL's special tokens (and `extra`); returns its number of tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=WORDS, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(
        [hpsv3_template(), TEMPLATE, "a red circle moves right over a gray background"] * 2, trainer
    )
    tokenizer.add_special_tokens([*SPECIALS, *(extra or [])])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "model_max_length": 32768,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return tokenizer.get_vocab_size()


def write_base(folder: Path) -> Path:
    """config.json, flat as the hub has it, and the tokenizer."""
    words = write_tokenizer(folder)
    first = words - len(SPECIALS)
    config = {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "model_type": "qwen2_vl",
        "vocab_size": words + SPARE,
        "hidden_size": WIDTH,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 1, 1]},
        "max_position_embeddings": 4096,
        "use_sliding_window": False,
        "sliding_window": 4096,
        "max_window_layers": 2,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "bos_token_id": first,
        "eos_token_id": first + 2,
        "vision_start_token_id": first + 3,
        "vision_end_token_id": first + 4,
        "vision_token_id": first + 5,
        "image_token_id": first + 6,
        "video_token_id": first + 7,
        "transformers_version": "4.41.2",
        "vision_config": {
            "depth": 2,
            "embed_dim": 32,
            "mlp_ratio": 2,
            "num_heads": 2,
            "in_chans": 3,
            "hidden_size": WIDTH,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "spatial_patch_size": 14,
            "temporal_patch_size": 2,
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def old_name(key: str) -> str:
    """transformers 4's name of a parameter, written down here on its own."""
    return re.sub(
        r"^model\.(visual|language_model)\.", lambda match: "visual." if match[1] == "visual" else "model.", key
    )


def network(base: Path, extra: int, head: nn.Module, seed: int = 0) -> Qwen2VLForConditionalGeneration:
    """The base model resized by `extra` tokens, as transformers itself builds and resizes it, with a reward head; large
    random weights.
    """
    torch.manual_seed(seed)
    config = Qwen2VLConfig.from_pretrained(base)
    words = len(json.loads((base / "tokenizer.json").read_text())["model"]["vocab"]) + len(SPECIALS)
    model = Qwen2VLForConditionalGeneration(config)
    model.resize_token_embeddings(words + extra)
    model.rm_head = head
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * SPREAD)
    return model.float().eval()


def hpsv3_model(base: Path, seed: int = 0) -> Qwen2VLForConditionalGeneration:
    torch.manual_seed(seed)
    head = nn.Sequential(
        nn.Linear(WIDTH, 1024), nn.ReLU(), nn.Dropout(0.05), nn.Linear(1024, 16), nn.ReLU(), nn.Linear(16, 2)
    )
    return network(base, len(REWARD), head, seed)


def videoalign_model(base: Path, outputs: int = 1, seed: int = 0) -> tuple[Qwen2VLForConditionalGeneration, nn.Module]:
    """The model before its adapter, whose weights peft then wraps in place; and the wrapped one, of which the first is
    a part.
    """
    torch.manual_seed(seed)
    model = network(base, len(REWARDS), nn.Linear(WIDTH, outputs, bias=False), seed)
    return model, _with_lora(model)


def write_hpsv3(checkpoints: Path, seed: int = 0) -> Path:
    """`eval/HPSv3/HPSv3.safetensors` and `eval/Qwen2-VL-7B-Instruct`; returns the file."""
    base = write_base(checkpoints / "eval" / "Qwen2-VL-7B-Instruct")
    model = hpsv3_model(base, seed)
    file = checkpoints / "eval" / "HPSv3" / "HPSv3.safetensors"
    file.parent.mkdir(parents=True)
    save_file(
        {old_name(key): value.clone() for key, value in model.state_dict().items()}, file, metadata={"format": "pt"}
    )
    return file


def write_videoalign(checkpoints: Path, *, adapter: bool = False, outputs: int = 1, seed: int = 0) -> Path:
    """`eval/VideoReward` (model.pth, or the adapter layout) and `eval/Qwen2-VL-2B-Instruct`; returns the folder."""
    base = write_base(checkpoints / "eval" / "Qwen2-VL-2B-Instruct")
    folder = checkpoints / "eval" / "VideoReward"
    step = folder / "checkpoint-11352"
    write_tokenizer(step / "tokenizer", REWARDS)
    state = {
        _peft_old_name(key): value.detach().clone()
        for key, value in videoalign_model(base, outputs, seed)[1].state_dict().items()
    }
    if adapter:
        _write_adapter(state, step, base)
    else:
        torch.save(state, step / "model.pth")
    (folder / "prompt_template.py").write_text(
        f"import os\n\nSIMPLE = 'x'\nDETAILED_PROMPT_WITH_SPECIAL_TOKEN = {TEMPLATE!r}\n"
    )
    write_settings(folder, outputs)
    return folder


def write_settings(folder: Path, outputs: int = 1, **changes: object) -> None:
    data = {
        "fps": 2.0,
        "num_frames": None,
        "max_frame_pixels": 4 * 28 * 28 * 40,
        "sample_type": "uniform",
        "eval_dim": ["VQ", "MQ", "TA"],
        "prompt_template_type": "detailed_special",
        "meta_data": "x",
        "data_dir": "y",
        **changes,
    }
    model = {
        "model_name_or_path": "Qwen/Qwen2-VL-2B-Instruct",
        "output_dim": outputs,
        "reward_token": "special",
        "use_special_tokens": True,
    }
    lora = {"lora_enable": True, "lora_r": LORA_RANK, "lora_alpha": LORA_ALPHA, "lora_dropout": 0.05}
    table = {
        "data_config": data,
        "training_args": {},
        "model_config": model,
        "peft_lora_config": lora,
        "inference_config": NORM,
    }
    (folder / "model_config.json").write_text(json.dumps(table))


def _with_lora(model: Qwen2VLForConditionalGeneration) -> nn.Module:
    """peft's own wrapping, on the language layers, with halves that change something."""
    targets = r".*language_model\.layers\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    wrapped = get_peft_model(
        model, LoraConfig(r=LORA_RANK, lora_alpha=LORA_ALPHA, lora_dropout=0.05, target_modules=targets)
    )
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn_like(parameter) * SPREAD)
    return wrapped.eval()


def _peft_old_name(key: str) -> str:
    return f"{WRAPPER}{old_name(key.removeprefix(WRAPPER))}"


def _write_adapter(state: dict[str, torch.Tensor], step: Path, base: Path) -> None:
    """The halves in one file, the rest but for the language layers in another; those the base model's folder has."""
    lora = {key.replace(".default.", "."): value for key, value in state.items() if "lora_" in key}
    save_file(lora, step / "adapter_model.safetensors", metadata={"format": "pt"})
    torch.save(
        {key: value for key, value in state.items() if "lora_" not in key and ".layers." not in key},
        step / "non_lora_state_dict.pth",
    )
    layers = {
        key.removeprefix(WRAPPER).replace(".base_layer.", "."): value
        for key, value in state.items()
        if ".layers." in key and key not in lora
    }
    save_file(
        {key: value for key, value in layers.items() if "lora_" not in key},
        base / "model.safetensors",
        metadata={"format": "pt"},
    )

"""Tiny random Wan 2.1 folders in diffusers' layout, written with the libraries that write the real ones.

A helper of tests.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import UMT5Config, UMT5EncoderModel

WORDS = [
    "a",
    "large",
    "small",
    "red",
    "blue",
    "green",
    "circle",
    "square",
    "moves",
    "right",
    "left",
    "slowly",
    "fast",
    "over",
    "gray",
    "plain",
    "background",
    "and",
    "then",
]
TEXT_WIDTH = 16
TEXT_ENCODER = {"d_model": TEXT_WIDTH, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 4}
TRANSFORMER = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "ffn_dim": 32,
    "num_layers": 2,
    "text_dim": TEXT_WIDTH,
    "freq_dim": 8,
    "in_channels": 16,
    "out_channels": 16,
}
SPREAD = 0.15  # of the VAE's biases: random weights alone give pictures near gray


def write_tokenizer(folder: Path) -> int:
    """A Unigram tokenizer with umt5's special tokens; returns its number of tokens."""
    vocabulary = [
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", 0.0),
        ("▁", -2.0),
        *((f"▁{word}", -1.0) for word in WORDS),
        ("z", -5.0),
    ]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=2))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    config = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "model_max_length": 1000000, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return len(vocabulary)


def write_text_encoder(folder: Path, max_shard_size: str = "1GB", **sizes: int) -> None:
    """`text_encoder/` and `tokenizer/`; `sizes` replace those of `TEXT_ENCODER`."""
    torch.manual_seed(0)
    config = UMT5Config(vocab_size=write_tokenizer(folder / "tokenizer"), **TEXT_ENCODER | sizes)
    UMT5EncoderModel(config).save_pretrained(folder / "text_encoder", max_shard_size=max_shard_size)


def tiny_vae(base_dim: int = 4) -> AutoencoderKLWan:
    """A VAE of Wan 2.1's shape in which random latents give pictures that are not gray."""
    torch.manual_seed(0)
    model = AutoencoderKLWan(base_dim=base_dim).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * SPREAD)
    return model


def write_transformer(folder: Path, **sizes: int) -> None:
    """`transformer/`, with an output head that predicts more than noise level; `sizes` replace those of
    `TRANSFORMER`.
    """
    torch.manual_seed(0)
    model = WanTransformer3DModel(**TRANSFORMER | sizes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder / "transformer")


def write_wan_folder(folder: Path) -> Path:
    """The whole folder: transformer, vae, text_encoder, tokenizer."""
    write_text_encoder(folder)
    write_transformer(folder)
    tiny_vae().save_pretrained(folder / "vae")
    return folder

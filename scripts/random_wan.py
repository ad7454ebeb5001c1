"""Writes a Wan 2.1 folder of random weights in diffusers' layout, tiny or with the sizes of the 1.3B model, and a tiny
decoder's file beside it: for checks of speed, which does not depend on the weights.

Usage: random_wan.py FOLDER [tiny|full]. The text encoder is always tiny; its states have the width that the transformer
takes. 1.3B takes 3 GB of disk.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from astro_cli.models import weights
from astro_cli.models.tiny_decoder import new_tiny_decoder

DECODER = "taew2_1.safetensors"
FULL = {
    "num_attention_heads": 12,
    "attention_head_dim": 128,
    "ffn_dim": 8960,
    "num_layers": 30,
    "text_dim": 4096,  # of UMT5-XXL's states
    "freq_dim": 256,
}
TINY_WIDTHS, FULL_WIDTHS = (16, 8, 8, 8), (256, 128, 64, 64)


def write(folder: Path, size: str) -> None:
    """The folder and the tiny decoder."""
    from wan_folder import write_wan_folder

    folder.mkdir(parents=True)
    if size == "tiny":
        write_wan_folder(folder)
    else:
        _write_full(folder)
    torch.manual_seed(0)
    weights.write(folder / DECODER, new_tiny_decoder(16, TINY_WIDTHS if size == "tiny" else FULL_WIDTHS))


def _write_full(folder: Path) -> None:
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
    from wan_folder import write_text_encoder, write_transformer

    torch.set_default_dtype(torch.bfloat16)
    write_text_encoder(folder, d_model=FULL["text_dim"], d_kv=64, d_ff=64, num_layers=1, num_heads=1)
    write_transformer(folder, **FULL)
    AutoencoderKLWan().save_pretrained(folder / "vae")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
    write(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "tiny")

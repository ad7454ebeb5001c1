"""Sizes of a Wan 2.1 transformer. Free of torch, so that recipes can be read without it."""

from __future__ import annotations

from astro_cli.config.base import Config


class WanConfig(Config):
    """Defaults are those of the 1.3B model."""

    dim: int = 1536
    ffn_dim: int = 8960
    num_heads: int = 12
    num_layers: int = 30
    in_channels: int = 16
    patch: tuple[int, int] = (2, 2)
    freq_dim: int = 256
    text_dim: int = 4096
    text_len: int = 512
    eps: float = 1e-6

    @property
    def head_dim(self) -> int:
        return self.dim // self.num_heads

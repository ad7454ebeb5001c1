"""Sizes of a Wan 2.1 transformer. Free of torch, so that recipes can be read without it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from astro_cli.config.base import Config

Size = Annotated[int, Field(gt=0)]


class WanConfig(Config):
    """Defaults are those of the 1.3B model."""

    dim: int = Field(default=1536, gt=0)
    ffn_dim: int = Field(default=8960, gt=0)
    num_heads: int = Field(default=12, gt=0)
    num_layers: int = Field(default=30, gt=0)
    in_channels: int = Field(default=16, gt=0)
    patch: tuple[Size, Size] = (2, 2)
    freq_dim: int = Field(default=256, gt=0, multiple_of=2)
    text_dim: int = Field(default=4096, gt=0)
    text_len: int = Field(default=512, gt=0)
    eps: float = Field(default=1e-6, gt=0)

    @model_validator(mode="after")
    def _check(self) -> WanConfig:
        if self.dim % self.num_heads or self.head_dim % 2:
            raise ValueError(f"dim: found {self.dim}, expected an even width for each of the {self.num_heads} heads")
        return self

    @property
    def head_dim(self) -> int:
        return self.dim // self.num_heads

    def layer_flops(self, frames: int, height: int, width: int) -> float:
        """Floating-point operations of the widest layer, over so many latent frames of height x width cells."""
        tokens = frames * (height // self.patch[0]) * (width // self.patch[1])
        return 2.0 * tokens * self.dim * self.ffn_dim

"""Sizes of a Wan 2.1 transformer. Free of torch, so that recipes can be read without it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from astro_cli.config.base import Config

CAMERA_CHANNELS = 6  # of a camera's rays: origin and direction
TEXT_LEN = 512  # tokens of a prompt, the end mark included
# More than ten times what any released model has. A network is laid out layer by layer to count it, also in a dry run:
# a size that no machine holds must not begin that.
WIDEST, DEEPEST = 2**18, 512
Width = Annotated[int, Field(gt=0, le=WIDEST)]
Depth = Annotated[int, Field(gt=0, le=DEEPEST)]
Patch = Annotated[int, Field(gt=0, le=64)]


class WanConfig(Config):
    """Defaults are those of the 1.3B model.

    Attributes:
        extra_channels: channels of conditions that follow the latent's in the input (AAPT's recycled frame, and behind
            it the camera's rays).
    """

    dim: Width = 1536
    ffn_dim: Width = 8960
    num_heads: Width = 12
    num_layers: Depth = 30
    in_channels: Width = 16
    extra_channels: int = Field(default=0, ge=0, le=WIDEST)
    patch: tuple[Patch, Patch] = (2, 2)
    freq_dim: Width = Field(default=256, multiple_of=2)
    text_dim: Width = 4096
    text_len: Width = TEXT_LEN
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

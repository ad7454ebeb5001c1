"""Tiny random networks: a policy with its adapters, a next-frame model with its discriminator. A helper of tests."""

from __future__ import annotations

import torch

from astro_cli.cache.spec import CacheSpec
from astro_cli.core.flow import warp_timesteps
from astro_cli.models import lora
from astro_cli.models.discriminator import Discriminator
from astro_cli.models.roles import Roles
from astro_cli.models.wan.config import WanConfig
from astro_cli.models.wan.transformer import CausalWan
from astro_cli.objectives.base import RunContext


def tiny_policy(layers: int = 2, dtype: torch.dtype = torch.float32) -> Roles:
    """A student of two latent channels whose trained adapter is not zero; `old` and `ref` are, as new ones."""
    config = WanConfig(
        dim=24, ffn_dim=32, num_heads=2, num_layers=layers, in_channels=2, freq_dim=8, text_dim=5, text_len=4
    )
    torch.manual_seed(0)
    network, roles = CausalWan(config).to(dtype), Roles()
    roles.add("student", network, trained=True)
    lora.add_adapters(network, 2, 2, 0.0, ("default", "old", "ref"), torch.Generator().manual_seed(1))
    rng = torch.Generator().manual_seed(2)
    for value in lora.adapter_state(network, "default").values():
        value.data += 0.1 * torch.randn(value.shape, generator=rng)
    for role in ("old", "ref"):
        roles.add_adapter(role, "student", role)
    return roles


def next_frame_context(config: WanConfig, frames: int, cache: CacheSpec) -> RunContext:
    """What AAPT's objectives get: a student and a discriminator of 4 x 4 latents, one forward per frame."""
    torch.manual_seed(0)
    roles = Roles()
    roles.add("student", CausalWan(config), trained=True)
    roles.add("discriminator", Discriminator(CausalWan(config)), trained=True)
    return RunContext(
        roles=roles,
        steps=warp_timesteps((1000,), 24.0),
        shift=24.0,
        frames=frames,
        block=1,
        latent_shape=(config.in_channels, 4, 4),
        cache=cache,
        recycle="previous",
        encode_text=lambda prompts: torch.zeros(len(prompts), config.text_len, config.text_dim),
    )

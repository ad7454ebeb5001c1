"""Wan 2.1 as a backbone: UMT5 text states and the streaming VAE, from one folder."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from astro_cli.config.errors import CheckpointError
from astro_cli.models.decoding import StreamingDecoder
from astro_cli.models.umt5 import TextEncoder, load_text_encoder, text_files
from astro_cli.models.vae import CELL, PICTURES, WanVAE, config_files, load_vae, vae_files
from astro_cli.shapes.render import FREE
from astro_cli.zoo.entries import BY_NAME
from astro_cli.zoo.needs import WAN_RELEASES
from astro_cli.zoo.places import checkpoints_folder, locate, released

FPS = 16.0
HINT = (
    "give --wan a folder such as Wan2.1-T2V-1.3B-Diffusers, or put one below the checkpoints folder (ASTRO_CHECKPOINTS)"
)


class WanBackbone:
    """The first latent frame is one frame, each later one four: N latents are 4N - 3 frames."""

    name = "wan"
    fps = FPS
    cell = CELL
    world = FREE

    def __init__(self, text_encoder: TextEncoder, vae: WanVAE) -> None:
        self.text_encoder, self.vae = text_encoder, vae

    @property
    def text_dim(self) -> int:
        return self.text_encoder.model.config.d_model

    @property
    def channels(self) -> int:
        return self.vae.model.z_dim

    @property
    def autoencoder(self) -> nn.Module:
        return self.vae.model

    def to(self, device: torch.device) -> WanBackbone:
        self.text_encoder.to(device)
        self.vae.to(device)
        return self

    def encode_text(self, prompts: list[str]) -> torch.Tensor:
        return self.text_encoder.encode(prompts)

    def encode(self, frames_BTCHW: torch.Tensor) -> torch.Tensor:
        return self.vae.encode(frames_BTCHW)

    def decode(self, latents_BFCHW: torch.Tensor, *, gradient: bool = False) -> torch.Tensor:
        return self.vae.decode(latents_BFCHW, gradient=gradient)

    def decoder(self) -> StreamingDecoder:
        return self.vae.decoder()

    def num_frames(self, num_latents: int, history: int = 0) -> int:
        return PICTURES * num_latents - (PICTURES - 1 if num_latents and not history else 0)

    def num_latents(self, num_frames: int) -> int:
        return 1 + -(-(num_frames - 1) // PICTURES) if num_frames else 0


def load_wan_backbone(source: str | Path | None = None, dtype: torch.dtype | None = None) -> WanBackbone:
    """Text encoder and VAE of a Wan 2.1 folder in either layout.

    Args:
        source: the folder, or a release's name; default the first release found below the checkpoints folder.
        dtype: to run in; default that of the files.

    Raises:
        CheckpointError: no such folder, or parts that are missing, damaged or of another model.
    """
    folder = wan_folder(source)
    return WanBackbone(load_text_encoder(folder, dtype), load_vae(folder, dtype))


def backbone_files(source: str | Path | None = None) -> tuple[Path, ...]:
    """What `load_wan_backbone` reads. Raises: CheckpointError: it is not here."""
    folder = wan_folder(source)
    return (*text_files(folder), *vae_files(folder), *config_files(folder))


def wan_folder(source: str | Path | None) -> Path:
    """Where the text encoder and VAE are: the folder `source` names, else a release below the checkpoints folder."""
    if source is not None:
        entry = BY_NAME.get(str(source))
        folder = (entry and released(entry)) or locate(source)
        if not folder.is_dir():
            raise CheckpointError(source, "", "not a folder", hint=HINT)
        return folder
    folder = next((path for name in WAN_RELEASES if (path := released(BY_NAME[name])) is not None), None)
    if folder is None:
        raise CheckpointError(
            "wan", "", f"no Wan 2.1 folder below {checkpoints_folder()}: its text encoder and VAE are needed", hint=HINT
        )
    return folder

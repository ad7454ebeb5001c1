"""Wan's VAE as a stream: latents -> frames block after block, frames -> latents. Owns normalisation and the feature
cache.

The first latent frame is one picture, each later one four. Decoding is causal: a decoder keeps the last two features of
every convolution, so blocks of any size give the frames of the whole-video decode, in memory that does not grow with
length.
Source: Wan 2.1 (arXiv 2503.20314), section 4.1. The network is diffusers' `AutoencoderKLWan`.
Dimensions: B sample, F latent frame, T picture, C channel, H, W rows and columns.

**Deviations**: none.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan, WanCausalConv3d

from astro_cli.config.errors import CheckpointError
from astro_cli.config.files import described
from astro_cli.models import parts
from astro_cli.models.decoding import Features, StreamingDecoder

FOLDER, ORIGINAL_FILE = "vae", "Wan2.1_VAE"
Z_DIM = 16  # latent channels, where config.json does not say
PICTURES = 4  # of every latent frame but the first
CELL = 8  # pixels along each side of a latent cell


class WanVAE:
    """Encoder and decoder between frames in [0, 1] and normalised latents, z' = (z - mean) / std per channel."""

    def __init__(self, model: AutoencoderKLWan) -> None:
        self.model = model.eval().requires_grad_(False)
        self.mean_C11, self.std_C11 = (
            torch.tensor(model.config[key]).view(-1, 1, 1) for key in ("latents_mean", "latents_std")
        )

    def to(self, device: torch.device | str) -> WanVAE:
        self.model.to(device)  # type: ignore[arg-type]
        return self

    def decoder(self) -> StreamingDecoder:
        """A decoder at the start of a video; several may run beside each other."""
        return StreamingDecoder(
            self._decode, [None] * len(_convolutions(self.model.decoder)), _reach(self.model.decoder)
        )

    def encoder(self) -> StreamEncoder:
        """An encoder at the start of a video; several may run beside each other."""
        return StreamEncoder(self)

    def decode(self, latents_BFCHW: torch.Tensor, *, gradient: bool = False) -> torch.Tensor:
        """Normalised latents of whole videos -> frames (B, 4F - 3, 3, H, W) in [0, 1], float32."""
        return self.decoder().push(latents_BFCHW, gradient=gradient)

    def _decode(self, latents_BFCHW: torch.Tensor, features: Features) -> tuple[torch.Tensor, Features]:
        """The step of a decoder: T is 4F, or 4F - 3 where the video begins."""
        model, features = self.model, list(features)
        latents = latents_BFCHW.to(model.device, torch.float32)
        latents = latents * self.std_C11.to(latents) + self.mean_C11.to(latents)
        hidden_BCFHW = model.post_quant_conv(latents.transpose(1, 2).to(model.dtype))
        pictures = []
        for frame_BC1HW in hidden_BCFHW.split(1, dim=2):
            first = features[0] is None
            pictures.append(model.decoder(frame_BC1HW, feat_cache=features, feat_idx=[0], first_chunk=first))
        return torch.cat(pictures, 2).transpose(1, 2).float().clamp(-1, 1) / 2 + 0.5, features

    @torch.no_grad()
    def encode(self, frames_BTCHW: torch.Tensor) -> torch.Tensor:
        """Frames in [0, 1] -> normalised latents (B, F, C, H, W), the posterior's mode, float32.

        Raises:
            ValueError: T is not 4F - 3.
        """
        if (frames_BTCHW.shape[1] - 1) % PICTURES:
            raise ValueError(f"the VAE encodes 4F - 3 frames, found {frames_BTCHW.shape[1]}")
        pictures = frames_BTCHW.transpose(1, 2).to(self.model.device, self.model.dtype) * 2 - 1
        latents = self.model.encode(pictures, return_dict=False)[0].mode().float().transpose(1, 2)
        return (latents - self.mean_C11.to(latents)) / self.std_C11.to(latents)


class StreamEncoder:
    """Encodes one batch of videos as frames come: the first alone, then four to a latent."""

    def __init__(self, vae: WanVAE) -> None:
        self.vae = vae
        self._features: list[Any] = [None] * len(_convolutions(vae.model.encoder))
        self._started = False

    @torch.no_grad()
    def encode(self, frames_BTCHW: torch.Tensor) -> torch.Tensor:
        """The next frames in [0, 1] -> their normalised latents (B, F, C, H, W), float32; T is 4F, or 4F - 3 where the
        video begins.

        Raises:
            ValueError: another number of frames.
        """
        alone = 0 if self._started else 1
        if (frames_BTCHW.shape[1] - alone) % PICTURES or not frames_BTCHW.shape[1]:
            raise ValueError(
                f"the VAE encodes {'4F - 3 frames at the start' if alone else '4F frames at a time'}, found "
                f"{frames_BTCHW.shape[1]}"
            )
        model, latents = self.vae.model, []
        pictures = frames_BTCHW.transpose(1, 2).to(model.device, model.dtype) * 2 - 1
        for chunk in (*pictures[:, :, :alone].split(1, dim=2), *pictures[:, :, alone:].split(PICTURES, dim=2)):
            if chunk.shape[2]:
                latents.append(model.encoder(chunk, feat_cache=self._features, feat_idx=[0]))
        self._started = True
        mean = model.quant_conv(torch.cat(latents, 2)).chunk(2, dim=1)[0].float().transpose(1, 2)
        return (mean - self.vae.mean_C11.to(mean)) / self.vae.std_C11.to(mean)


def _convolutions(network: torch.nn.Module) -> list[tuple[str, WanCausalConv3d]]:
    """Those that see earlier frames, by name, first to last."""
    return [(name, module) for name, module in network.named_modules() if isinstance(module, WanCausalConv3d)]


def _reach(decoder: torch.nn.Module) -> int:
    """How many earlier latents the frames of a latent depend on: its first frame, traced back through the convolutions.

    `time_conv` makes two frames of one, so frame p behind it comes from ceil(p / 2) before it.
    """
    frame = 1 - PICTURES  # the first of latent 0; the last is 0
    for name, convolution in reversed(_convolutions(decoder)):
        if name.endswith("time_conv"):
            frame = -(-frame // 2)
        frame -= convolution.kernel_size[0] - 1
    return -frame


def new_vae() -> AutoencoderKLWan:
    """The network of Wan 2.1's sizes with random weights."""
    return AutoencoderKLWan()


def load_vae(folder: str | Path, dtype: torch.dtype | None = None) -> WanVAE:
    """The VAE of a Wan 2.1 folder, in diffusers' layout (`vae/`) or the original one (`Wan2.1_VAE.pth`).

    Args:
        dtype: to run in; default that of the file.

    Raises:
        CheckpointError: files that are missing, damaged or of another model.
    """
    folder = Path(folder)
    if (folder / FOLDER).is_dir():
        where = folder / FOLDER
        config, state = parts.config(where, "AutoencoderKLWan"), parts.state(where)
        parts.check_depth(config, state, where)
        _check_statistics(config, where)
        if config.get("patch_size") is not None:
            raise CheckpointError(
                where,
                "patch_size",
                f"found {config['patch_size']}, this is the VAE of Wan 2.2",
                hint="use that of Wan 2.1",
            )
    else:
        where = parts.original_file(folder, ORIGINAL_FILE, f"{FOLDER}/")
        state = convert_wan_vae_to_diffusers(parts.state(where))
        config = {"base_dim": _base_dim(state, where)}
    return WanVAE(parts.assemble(lambda: AutoencoderKLWan.from_config(config), state, where, dtype))  # type: ignore[arg-type]


def _check_statistics(config: Mapping[str, Any], where: Path) -> None:
    """Raises: CheckpointError: means or deviations of the latents that are no list of so many finite numbers."""
    channels = config.get("z_dim", Z_DIM)
    for key in ("latents_mean", "latents_std"):
        values = config.get(key, [1.0] * Z_DIM)
        if not isinstance(values, list) or not all(isinstance(v, float | int) and v == v for v in values):
            raise CheckpointError(where, key, f"found {described(values)}, expected a list of numbers")
        if len(values) != channels:
            raise CheckpointError(where, key, f"found {len(values)} numbers, expected {channels} (z_dim)")


def vae_files(folder: str | Path) -> tuple[Path, ...]:
    """The weights `load_vae` reads from that folder.

    Raises:
        CheckpointError: there are none.
    """
    folder = Path(folder)
    if (folder / FOLDER).is_dir():
        return tuple(sorted((folder / FOLDER).glob("*.safetensors")))
    return (parts.original_file(folder, ORIGINAL_FILE, f"{FOLDER}/"),)


def config_files(folder: str | Path) -> tuple[Path, ...]:
    """The configuration beside those weights; the original layout has none."""
    path = Path(folder) / FOLDER / "config.json"
    return (path,) if path.is_file() else ()


def _base_dim(state: Mapping[str, torch.Tensor], where: Path) -> int:
    """Width of the first convolution, the one size in which original files may differ."""
    if "encoder.conv_in.weight" not in state:
        raise CheckpointError(where, "encoder.conv1.weight", "missing: not Wan's VAE")
    return state["encoder.conv_in.weight"].shape[0]

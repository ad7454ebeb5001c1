"""Recordings of released causal Wan models: JSON descriptors, safetensors tensors and a weights file, read and checked.

A folder holds `<name>.json` beside `<name>.safetensors`, and the weights the descriptors name, in original or diffusers
key names. What a case's tensors are called and mean: `parity`. Dimensions: B sample, F latent frame, C channel, H, W
latent rows and columns.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from astro_cli.config.base import validate
from astro_cli.config.errors import AstroError, RecordingError, did_you_mean
from astro_cli.config.files import Reader
from astro_cli.config.problems import first_problem
from astro_cli.models import weights
from astro_cli.models.wan.config import WanConfig
from astro_cli.models.wan.keys import original_to_diffusers
from astro_cli.models.wan.transformer import CausalWan

FORMAT_HINT = "expected <name>.json with 'model', 'weights' and 'cases', and <name>.safetensors beside it"


class _Descriptor(BaseModel):
    """Read leniently: a descriptor may say more than a replay needs."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class ModelInfo(_Descriptor):
    """Sizes under the original code's names."""

    dim: int
    ffn_dim: int
    num_heads: int
    num_layers: int
    in_dim: int
    text_dim: int
    text_len: int
    freq_dim: int = 256
    patch_size: tuple[Literal[1], int, int] = (1, 2, 2)
    eps: float = 1e-6
    model_type: Literal["t2v"] = "t2v"
    qk_norm: Literal[True] = True
    cross_attn_norm: Literal[True] = True

    def config(self) -> WanConfig:
        return WanConfig(
            dim=self.dim,
            ffn_dim=self.ffn_dim,
            num_heads=self.num_heads,
            num_layers=self.num_layers,
            in_channels=self.in_dim,
            patch=self.patch_size[1:],
            freq_dim=self.freq_dim,
            text_dim=self.text_dim,
            text_len=self.text_len,
            eps=self.eps,
        )


class RecordedSwitch(_Descriptor):
    """A prompt switch: at which frame, to which text states (a tensor's name), and what becomes of the cached past."""

    frame: int = Field(gt=0)
    context: str
    recache: Literal["none", "bidirectional", "block_causal"] = "bidirectional"
    recache_frames: int | None = None
    keep_sink: bool = True


class Case(_Descriptor):
    """One recorded run. Strings name tensors; a timestep may also be a number."""

    kind: Literal["mask", "teacher_forcing", "bidirectional", "cache"]
    window: int | None = Field(default=None, gt=0)
    sink: int = Field(default=0, ge=0)
    policy: Literal["none", "fixed", "ema"] = "none"
    keys: Literal["roped", "unroped_relative"] = "roped"
    alpha: float = Field(default=0.999, ge=0, le=1)
    switch: RecordedSwitch | None = None
    first_frame_alone: bool = False
    frames_per_block: int | None = Field(default=None, gt=0)  # absent: the descriptor's
    noise: str = "in.noise"
    context: str = "in.ctx"
    timestep: float | str = "in.t_blocks"
    clean: str = "in.clean"
    clean_timestep: float = 0.0
    given: str | None = None  # clean latents of the first frames
    given_frames: int | None = Field(default=None, gt=0)  # how many of them; absent: all


class _Info(_Descriptor):
    model: ModelInfo
    weights: str
    frames_per_block: int = Field(gt=0)
    warped_steps: tuple[float, ...] = ()
    cases: dict[str, Case] = Field(min_length=1)


@dataclass
class Recording:
    """One descriptor with its tensors, on the CPU."""

    path: Path
    info: _Info
    tensors: dict[str, torch.Tensor]
    networks: dict[tuple[torch.device, torch.dtype], CausalWan] = field(default_factory=dict)

    def tensor(self, name: str, shape: tuple[int, ...] | None = None) -> torch.Tensor:
        """Raises: RecordingError where it is missing or of another shape."""
        where = self.path.with_suffix(".safetensors")
        if name not in self.tensors:
            raise RecordingError(where, name, "missing", hint=did_you_mean(name, self.tensors))
        tensor = self.tensors[name]
        if shape is not None and tuple(tensor.shape) != shape:
            raise RecordingError(where, name, f"found shape {tuple(tensor.shape)}, expected {shape}")
        return tensor

    def network(self, device: torch.device, dtype: torch.dtype) -> CausalWan:
        """The recorded model with its weights."""
        if (device, dtype) not in self.networks:
            try:
                network = CausalWan(self.info.model.config())
            except ValidationError as error:
                raise RecordingError(self.path, "model", first_problem(error).what) from error
            _load(network, self.path.parent / self.info.weights)
            self.networks[device, dtype] = network.eval().requires_grad_(False).to(device, dtype)
        return self.networks[device, dtype]


def _load(network: CausalWan, path: Path) -> None:
    state, expected = original_to_diffusers(_read(path)), network.state_dict()
    missing, extra = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if missing or extra:
        what = "; ".join(
            f"{len(keys)} {word} (first: {keys[0]})"
            for word, keys in (("missing", missing), ("unexpected", extra))
            if keys
        )
        raise RecordingError(
            path, (missing or extra)[0], f"weights of another model: {what}", hint="is the descriptor's 'model' theirs?"
        )
    for key, value in expected.items():
        if state[key].shape != value.shape:
            raise RecordingError(path, key, f"found shape {tuple(state[key].shape)}, expected {tuple(value.shape)}")
    network.load_state_dict(state)


def _read(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise RecordingError(path, "", "missing", hint=FORMAT_HINT)
    try:
        return weights.read(path)
    except AstroError as error:
        raise RecordingError(path, error.key, error.what, hint=error.hint) from error


def read_recording(path: Path) -> Recording:
    """Read one descriptor and its tensors.

    Raises:
        RecordingError: a file that is missing, damaged or not of this format, with the key.
    """
    data = Reader(RecordingError, what="not readable JSON", hint=FORMAT_HINT).json(path)
    try:
        info = validate(_Info, data)
    except ValidationError as error:
        raise _wrong_key(path, error) from error
    return Recording(path, info, _read(path.with_suffix(".safetensors")))


def _wrong_key(path: Path, error: ValidationError) -> RecordingError:
    problem = first_problem(error)
    if problem.kind == "missing":
        return RecordingError(path, problem.key, "missing", hint=FORMAT_HINT)
    expected = problem.what.removeprefix("Input ").replace("should be", "expected")
    return RecordingError(path, problem.key, f"found {problem.shown}, {expected}")


def read_folder(folder: Path) -> list[Recording]:
    """All recordings of a folder, by name.

    Raises:
        RecordingError: no such folder, no descriptor in it, or one that cannot be used.
    """
    if not folder.is_dir():
        raise RecordingError(folder, "", "no such folder", hint=FORMAT_HINT)
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise RecordingError(folder, "*.json", "no recordings here", hint=FORMAT_HINT)
    return [read_recording(path) for path in paths]

"""What this machine has and lacks: versions, devices, memory, packaged bases, optional parts.

Importing it needs no torch.
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Any

from astro_cli.config.errors import CheckpointError
from astro_cli.config.files import Reader
from astro_cli.core import memory, threads
from astro_cli.inspection.checkpoint_files import fault
from astro_cli.rewards import scorer_places
from astro_cli.zoo import hub
from astro_cli.zoo.entries import BY_NAME
from astro_cli.zoo.hub import HubId
from astro_cli.zoo.places import checkpoints_folder
from astro_cli.zoo.sizes import HPSV3_PARAMETERS, UMT5_PARAMETERS, VAE_PARAMETERS, WAN_1_3B_PARAMETERS

GIB = 2**30
PACKAGES = (
    "torch",
    "diffusers",
    "peft",
    "accelerate",
    "transformers",
    "safetensors",
    "pydantic",
    "numpy",
    "pandas",
    "av",
    "matplotlib",
    "open-clip-torch",
    "decord",
    "vbench",
    "tensorboard",
)
NOTE = (
    "The embedded world needs none of the optional parts. Wan 2.1 needs its transformer, VAE and text encoder, "
    "its rewards HPSv3 and VideoAlign."
)
WAN = BY_NAME["wan_1.3b_diffusers"].repo


@dataclass(frozen=True)
class Part:
    """An optional part of astro: present where `module` is installed, a file in the checkpoints folder matches one of
    `files` or `cached` is in the Hugging Face cache, its size and header are those of a whole one, and nothing `lacks`.
    """

    key: str
    label: str
    kind: str  # "scorer" or "checkpoint"
    enables: str
    files: tuple[str, ...] = ()  # glob patterns below the folder, safetensors first; none: the module is enough
    cached: HubId | None = None
    module: str | None = None
    parameters: int = 0  # the least that the file holds
    lacks: Callable[[], str] = lambda: ""  # what else it needs and where to put it


OPTIONAL = (
    Part(
        "hpsv3",
        "HPSv3",
        "scorer",
        "HPSv3 columns; visual-quality reward of Wan recipes",
        ("HPSv3.safetensors",),
        scorer_places.HUB[scorer_places.HPSV3],
        parameters=HPSV3_PARAMETERS,
        lacks=scorer_places.missing_hpsv3,
    ),
    Part(
        "videoalign",
        "VideoAlign",
        "scorer",
        "MQ columns; motion and alignment rewards of Wan recipes",
        ("VideoReward/**/adapter_model.safetensors", "VideoReward/**/model.pth"),
        HubId("KlingTeam/VideoReward", file="model_config.json"),
        lacks=scorer_places.missing_videoalign,
    ),
    Part("vbench", "VBench", "scorer", "Total, Quality and Semantic columns on Wan 2.1 videos", module="vbench"),
    Part(
        "wan_transformer",
        "Wan 2.1 T2V 1.3B transformer",
        "checkpoint",
        "the teacher and critic of Wan distillation",
        ("Wan2.1-T2V-1.3B*/transformer/*.safetensors", "Wan2.1-T2V-1.3B*/diffusion_pytorch_model*.safetensors"),
        HubId(WAN, file=BY_NAME["wan_1.3b_diffusers"].file),
        parameters=WAN_1_3B_PARAMETERS,
    ),
    Part(
        "wan_vae",
        "Wan 2.1 VAE",
        "checkpoint",
        "decoding and encoding of Wan 2.1 videos",
        ("Wan2.1*/vae/*.safetensors", "Wan2.1_VAE.safetensors", "Wan2.1_VAE.pth"),
        HubId(WAN, file="vae/config.json"),
        parameters=VAE_PARAMETERS,
    ),
    Part(
        "umt5",
        "UMT5-XXL text encoder",
        "checkpoint",
        "prompts of Wan recipes",
        (
            "Wan2.1*/text_encoder/*.safetensors",
            "models_t5_umt5-xxl-enc-bf16.safetensors",
            "models_t5_umt5-xxl-enc-bf16.pth",
        ),
        HubId(WAN, file="text_encoder/config.json"),
        parameters=UMT5_PARAMETERS,
    ),
    Part(
        "self_forcing",
        "Self-Forcing student",
        "checkpoint",
        "recipe astrolabe_self_forcing",
        ("self_forcing_dmd.safetensors", "self_forcing_dmd.pt"),
        HubId(BY_NAME["self_forcing"].repo, file=BY_NAME["self_forcing"].file),
        parameters=WAN_1_3B_PARAMETERS,
    ),
    Part(
        "causal_forcing",
        "Causal-Forcing student, chunk-wise",
        "checkpoint",
        "recipe astrolabe_causal",
        ("chunkwise/causal_forcing.safetensors", "chunkwise/causal_forcing.pt"),
        HubId(BY_NAME["causal_forcing"].repo, file=BY_NAME["causal_forcing"].file),
        parameters=WAN_1_3B_PARAMETERS,
    ),
    Part(
        "longlive",
        "LongLive student with its LoRA",
        "checkpoint",
        "recipe astrolabe_longlive (astro zoo import longlive --lora longlive_lora)",
        ("longlive-merged/*.safetensors",),
        parameters=WAN_1_3B_PARAMETERS,
    ),
)


def examine() -> dict[str, Any]:
    """The whole report; its keys are a stable interface."""
    devices = find_devices()
    folder = checkpoints_folder()
    return {
        "versions": versions(),
        "devices": devices,
        "machine": machine(),
        "bases": bases() if devices else [],
        "checkpoints": str(folder),
        "optional": [look_for(part, folder) for part in OPTIONAL],
        "note": NOTE,
    }


def versions() -> dict[str, str | None]:
    """Version of python, astro and the packages that matter; None where one is not installed. Imports none of them."""
    return {"python": platform.python_version(), "astro": version("astro-cli")} | {
        name: version(name) for name in PACKAGES
    }


def version(package: str) -> str | None:

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def find_devices() -> list[dict[str, Any]]:
    """The CPU, then CUDA devices, with their memory in GiB; nothing where torch cannot be imported."""
    try:
        import torch
    except (ImportError, OSError):  # a broken installation is what this command is for
        return []
    devices: list[dict[str, Any]] = [
        {"kind": "cpu", "name": platform.processor() or platform.machine(), "memory_gib": None}
    ]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        devices.append({"kind": "cuda", "name": properties.name, "memory_gib": gib(properties.total_memory)})
    return devices


def machine() -> dict[str, Any]:
    """Cores this process may use, threads it computes with, memory, and free disk in the current folder."""
    small, large = threads.choose(threads.SMALL), threads.choose(threads.LARGE)
    return {
        "cores": threads.cores(),
        "threads": small.number,
        "threads_why": small.why,
        "threads_large": large.number,
        "threads_large_why": large.why,
        "ram_total_gib": gib(memory.total()),
        "ram_available_gib": gib(memory.available()),
        "disk_free_gib": gib(shutil.disk_usage(Path.cwd()).free),
    }


def gib(size: float) -> float:
    return round(size / GIB, 1)


def bases() -> list[dict[str, Any]]:
    """Packaged bases with what their cards say."""
    from astro_cli.models import weights

    rows = []
    for name in weights.packaged():
        card_file = weights.PACKAGED / f"{name}.json"
        card = Reader(CheckpointError).table(card_file) if card_file.is_file() else {}
        size = (weights.PACKAGED / f"{name}.safetensors").stat().st_size
        known = {key: card.get(key) for key in ("recipe", "recipe_hash", "seed", "commit", "scores")}
        rows.append({"name": name, "bytes": size, **known})
    return rows


def look_for(part: Part, folder: Path) -> dict[str, Any]:
    """Whether a part is here; `missing` says what to add."""
    path = next((path for pattern in part.files for path in sorted(folder.glob(f"**/{pattern}"))), None)
    if path is None and part.cached is not None:
        path = hub.cached(part.cached)
    missing = ""
    if part.module is not None and util.find_spec(part.module) is None:
        missing = f"the package {part.module}"
    elif part.files and path is None:
        missing = part.files[0]
    else:
        missing = part.lacks() or (fault(path, part.parameters) if path else "")
    return {
        "key": part.key,
        "kind": part.kind,
        "label": part.label,
        "found": not missing,
        "path": str(path) if path else None,
        "missing": missing,
        "enables": part.enables,
    }

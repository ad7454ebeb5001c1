"""The released RAFT files of torchvision, the best first, and where they lie. Free of torch."""

from __future__ import annotations

from pathlib import Path

from astro_cli.config.errors import CheckpointError
from astro_cli.zoo.needs import NeededPart
from astro_cli.zoo.places import CHECKPOINTS_VARIABLE, checkpoints_folder

RAFT_FILES = {
    "raft_large": (
        "raft/raft_large_C_T_SKHT_V2-ff5fadd5.pth",
        "raft/raft_large_C_T_SKHT_V1-0b8c9e55.pth",
        "raft/raft_large_C_T_V2-1bb1363a.pth",
        "raft/raft_large_C_T_V1-22a6c225.pth",
        "raft/raft_large.safetensors",
    ),
    "raft_small": (
        "raft/raft_small_C_T_V2-01064c6d.pth",
        "raft/raft_small_C_T_V1-ad48884c.pth",
        "raft/raft_small.safetensors",
    ),
}


def raft_need() -> NeededPart:
    """The weights of the large network."""
    names, folder = RAFT_FILES["raft_large"], checkpoints_folder() / "eval"
    here = next((folder / name for name in names if (folder / name).is_file()), None)
    bring = f"put {Path(names[0]).name} of torchvision at {folder / names[0]}"
    return NeededPart("optical flow: RAFT", here, f"below {folder} ({CHECKPOINTS_VARIABLE})", [bring])


def find_raft() -> Path:
    """The weights of the large network.

    Raises:
        CheckpointError: they are not here, with the place to put them.
    """
    part = raft_need()
    if part.here is None:
        raise CheckpointError("RAFT", "weights", f"not {part.looked}", hint="; ".join(part.bring))
    return part.here

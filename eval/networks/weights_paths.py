"""Where the networks of scorers lie: below `<checkpoints>/eval`, or in the Hugging Face cache. Free of torch."""

from __future__ import annotations

from pathlib import Path

from astro_cli.config.errors import CheckpointError
from astro_cli.zoo import hub
from astro_cli.zoo.places import CHECKPOINTS_VARIABLE, checkpoints_folder
from eval.contract import Need

HUB = {
    "videoclip_xl/VideoCLIP-XL.bin": hub.HubId("alibaba-pai/VideoCLIP-XL", file="VideoCLIP-XL.bin"),
    "longclip/longclip-B.pt": hub.HubId("BeichenZhang/LongCLIP-B", file="longclip-B.pt"),
    "longclip/longclip-L.pt": hub.HubId("BeichenZhang/LongCLIP-L", file="longclip-L.pt"),
}


def folder() -> Path:
    return checkpoints_folder() / "eval"


def find(*names: str) -> Path | None:
    """The first of these files (paths below `folder()`) that is there, else the first in the Hugging Face cache."""
    here = next((folder() / name for name in names if (folder() / name).is_file()), None)
    return here or next((path for name in names if name in HUB and (path := hub.cached(HUB[name]))), None)


def hint(*names: str) -> str:
    """What to put where, for the user."""
    line = f"{hub.download_line(HUB[names[0]])}, or " if names[0] in HUB else ""
    others = f" (or {', '.join(Path(name).name for name in names[1:])})" if names[1:] else ""
    return (
        f"{line}put {Path(names[0]).name}{others} at {folder() / names[0]}; {CHECKPOINTS_VARIABLE} moves the "
        "checkpoints folder"
    )


def require(*names: str) -> Path:
    """Raises: CheckpointError: none of the files is there, with where the first belongs."""
    path = find(*names)
    if path is None:
        raise CheckpointError(Path(names[0]).name, "", f"not below {folder()}", hint=hint(*names))
    return path


def need(name: str, *names: str) -> Need:
    """Weights that a scorer cannot run without; looked for anew each time, so that the checkpoints folder may be named
    late.
    """
    return Need(name, lambda: "" if find(*names) is not None else f"weights of {name}: {hint(*names)}")

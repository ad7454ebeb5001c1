"""What a command on Wan needs on this machine: where each part was looked for, and the line that brings it. Free of
torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from astro_cli.config.errors import CheckpointError, did_you_mean
from astro_cli.config.files import expanded
from astro_cli.zoo import hub
from astro_cli.zoo.entries import BY_NAME
from astro_cli.zoo.places import CHECKPOINTS_VARIABLE, checkpoints_folder, download_line, locate, released

WAN_RELEASES = ("wan_1.3b_diffusers", "wan_1.3b", "wan_14b_diffusers", "wan_14b")  # one text encoder and VAE in all


class NeededPart(NamedTuple):
    """A part a command needs.

    Attributes:
        what: its role and its name.
        here: where it is; None where it is missing.
        looked: where it was looked for.
        bring: what to do, a command line where there is one.
    """

    what: str
    here: Path | None
    looked: str
    bring: Sequence[str]


def weights(role: str, source: str) -> NeededPart:
    """A transformer's weights: a path, a known release, or a hub id."""
    return NeededPart(f"{role}: {source}", _located(source), f"as a path, {looked_for()}", _bring(source))


def wan_folder(source: str | None) -> NeededPart:
    """The Wan 2.1 folder that holds text encoder and VAE; default any release below the checkpoints folder."""
    name = WAN_RELEASES[0] if source is None else source
    if source is None:
        here = next((path for release in WAN_RELEASES if (path := released(BY_NAME[release])) is not None), None)
    else:
        here = _located(source)
    return NeededPart("Wan 2.1 folder: text encoder and VAE", here, looked_for(), _bring(name))


def prompts(key: str, source: str) -> NeededPart:
    path = expanded(source)
    bring = [f"a text file with a prompt a line; another one: --set {key}=FILE"]
    return NeededPart(f"prompts: {source}", path if path.is_file() else None, f"as a path, from {Path.cwd()}", bring)


def clips(key: str, source: str) -> NeededPart:
    """The user's videos: a folder, or a manifest."""
    path = expanded(source)
    bring = [f"a folder of videos with prompts, or a manifest.jsonl; another one: --set {key}=PATH"]
    return NeededPart(f"clips: {source}", path if path.exists() else None, f"as a path, from {Path.cwd()}", bring)


def refuse_missing(where: str, needs: Sequence[NeededPart], way_out: str) -> None:
    """List all parts, each with a mark, if one is missing.

    Raises:
        CheckpointError: some are.
    """
    missing = [need for need in needs if need.here is None]
    if not missing:
        return
    lines = [f"{len(missing)} of {len(needs)} parts are not on this machine"]
    for need in needs:
        if need.here is not None:
            lines.append(f"  [x] {need.what}  ({need.here})")
            continue
        lines += [f"  [ ] {need.what}", f"      looked for {need.looked}", *(f"      {line}" for line in need.bring)]
    raise CheckpointError(where, "", "\n".join(lines), hint=way_out)


def looked_for(inside: str = "") -> str:
    """Where weights are looked for, in words; `inside` is a folder in the checkpoints folder."""
    return f"below {checkpoints_folder() / inside} ({CHECKPOINTS_VARIABLE}) and in {hub.cache_folder()} (HF_HOME)"


def _located(source: str) -> Path | None:
    try:
        return locate(source)
    except CheckpointError:
        return None


def _bring(source: str) -> list[str]:
    """What brings a checkpoint here: the hub client's line where the source is of the hub."""
    line = download_line(source)
    return [line or f"put it below {checkpoints_folder()}; {did_you_mean(source, BY_NAME)}"]

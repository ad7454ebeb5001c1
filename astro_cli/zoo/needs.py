"""What a command on Wan needs on this machine: where each part was looked for, and the line that brings it. Free of
torch.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from astro_cli.config.errors import CheckpointError, did_you_mean
from astro_cli.config.files import expanded
from astro_cli.zoo.entries import BY_NAME, Release, of_path
from astro_cli.zoo.places import CHECKPOINTS_VARIABLE, checkpoints_folder, locate, released

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
    """A transformer's weights: a path, or a known release."""
    folder = checkpoints_folder()
    looked = f"as a path, and below {folder} ({CHECKPOINTS_VARIABLE})"
    entry = BY_NAME.get(source) or of_path(source)
    bring = [_download(entry)] if entry is not None else [f"put it below {folder}; {did_you_mean(source, BY_NAME)}"]
    return NeededPart(f"{role}: {source}", _located(source), looked, bring)


def wan_folder(source: str | None) -> NeededPart:
    """The Wan 2.1 folder that holds text encoder and VAE; default any release below the checkpoints folder."""
    name = WAN_RELEASES[0] if source is None else source
    if source is None:
        here = next((path for release in WAN_RELEASES if (path := released(BY_NAME[release])) is not None), None)
    else:
        here = _located(source)
    entry = BY_NAME.get(name) or of_path(name)
    bring = [_download(entry)] if entry is not None else [f"name a folder such as {BY_NAME[WAN_RELEASES[0]].folder}"]
    return NeededPart("Wan 2.1 folder: text encoder and VAE", here, f"below {checkpoints_folder()}", bring)


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


def fetch(repo: str, files: Sequence[str], folder: Path) -> str:
    """The hub client's line that brings these files of a repository, all without any, into a folder."""
    return shlex.join(["hf", "download", repo, *files, "--local-dir", str(folder)])


def _located(source: str) -> Path | None:
    try:
        return locate(source)
    except CheckpointError:
        return None


def _download(entry: Release) -> str:
    """The hub client's line for an entry: its file, or the whole folder where it is one."""
    is_folder = entry.tail == entry.folder
    return fetch(entry.repo, [] if is_folder else [entry.file], checkpoints_folder() / entry.folder)

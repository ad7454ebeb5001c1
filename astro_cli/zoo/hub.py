"""Models in the local Hugging Face cache, by hub id: `OWNER/NAME`, `OWNER/NAME@REVISION`, `OWNER/NAME/FILE`.

The cache is the one `hf download` fills, below `HF_HOME`. Nothing is downloaded: a hub id that is not in the cache is
an error with the line that brings it. Free of torch; huggingface_hub is imported once a repository is in the cache.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path, PurePath

from huggingface_hub import constants

PART = r"[A-Za-z0-9][\w.-]{0,95}"
REVISION = r"refs/(?:pr|heads|tags|convert)/[\w.-]+|[\w.-]+"  # what follows the next slash is the file
HUB_ID = re.compile(rf"(?P<repo>{PART}/{PART})(?:@(?P<revision>{REVISION}))?(?:/(?P<file>[^@]+))?")
REPO_FOLDER = re.compile(r"models--(?P<owner>.+?)--(?P<name>.+)")
SNAPSHOTS = "snapshots"


@dataclass(frozen=True)
class HubId:
    """A repository of the hub, or one file of it.

    Attributes:
        repo: `OWNER/NAME`.
        revision: branch, tag, commit or `refs/pr/N`; None: the cache's `main`.
        file: path inside the repository; "": the whole repository.
    """

    repo: str
    revision: str | None = None
    file: str = ""

    def __str__(self) -> str:
        revision, file = f"@{self.revision}" if self.revision else "", f"/{self.file}" if self.file else ""
        return f"{self.repo}{revision}{file}"


def parse(text: str) -> HubId | None:
    """A text as hub id; None where it has another form. A relative path may have this form too: paths go first."""
    match = HUB_ID.fullmatch(text)
    if match is None or ".." in PurePath(text).parts:
        return None
    return HubId(match["repo"], match["revision"], match["file"] or "")


def cache_folder() -> Path:
    """The cache: `HF_HUB_CACHE`, else `hub` below `HF_HOME`, else `~/.cache/huggingface/hub`."""
    return Path(constants.HF_HUB_CACHE)


def cached(hub_id: HubId, having: str = "") -> Path | None:
    """The file, or the repository's snapshot folder, in the cache; None where it is not there.

    Args:
        having: a file that a snapshot must hold: a download may have brought only some.
    """
    if not (cache_folder() / "--".join(["models", *hub_id.repo.split("/")])).is_dir():
        return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            hub_id.repo, revision=hub_id.revision, cache_dir=cache_folder(), local_files_only=True
        )
    except (LocalEntryNotFoundError, ValueError, OSError):  # ValueError: a name the hub does not know
        return None
    place = Path(folder, hub_id.file)
    return place if place.exists() and (place / having).exists() else None


def of_snapshot(path: PurePath | str) -> HubId | None:
    """The repository, commit and file of a path in a cache's layout, `models--OWNER--NAME/snapshots/COMMIT/FILE`."""
    parts = PurePath(path).parts
    for index in range(len(parts) - 2, 0, -1):
        if parts[index] == SNAPSHOTS and (match := REPO_FOLDER.fullmatch(parts[index - 1])):
            file = PurePath(*parts[index + 2 :]).as_posix() if parts[index + 2 :] else ""
            return HubId(f"{match['owner']}/{match['name']}", parts[index + 1], file)
    return None


def download_line(hub_id: HubId, *more: str) -> str:
    """The hub client's line that brings a repository, or its file and `more` of them, into the cache."""
    files = [hub_id.file] if hub_id.file else []
    revision = ["--revision", hub_id.revision] if hub_id.revision else []
    return shlex.join(["hf", "download", hub_id.repo, *files, *more, *revision])

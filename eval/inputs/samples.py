"""Loads a folder of videos as samples: lists its entries and probes its files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from astro_cli.config.errors import AstroError
from astro_cli.config.parsing import is_text
from astro_cli.media.decode import SUFFIXES, VideoError, count_frames, probe
from astro_cli.models.hashes import sha256
from eval.contract import Sample, VideoInfo
from eval.inputs.entries import Finding, InputError, Listing, about
from eval.inputs.manifest import MANIFEST, list_manifest
from eval.inputs.names import list_names, split_name
from eval.inputs.sidecars import has_sidecars, list_sidecars
from eval.prompt_sets import PromptSet

PARTIAL = ".partial"  # of the stem: a video `astro sample` has not finished
FORMATS_HINT = f"expected {MANIFEST}, files named {{prompt}}-{{index}}.mp4, or an output folder of `astro sample`"
Progress = Callable[[int, int], None]  # files done, of how many


@dataclass(frozen=True)
class Opened:
    """What a file holds; `error` instead of `info` where it is no whole video or cannot be read (the hash is then
    "").
    """

    path: Path
    video_hash: str
    info: VideoInfo | None
    error: AstroError | None = None


def load(folder: str | Path, prompts: PromptSet | None = None, progress: Progress | None = None) -> list[Sample]:
    """The samples of a folder, in the order of its manifest or of prompt texts and indices.

    The folder holds `manifest.jsonl`, or is an output folder of `astro sample`, or its files have VBench's names; see
    the modules of these names. Files are hashed and their packets counted, not decoded. A text that the prompt set has
    twice gives two samples of one file.

    Args:
        prompts: the set whose ids, texts, labels and segments the samples get; None: what the folder says.

    Raises:
        InputError: no videos, one that cannot be read or has no prompt in the set, two of a prompt with one index or
            equal bytes; `astro eval check` lists all that is wrong.
        VideoError: a file that is no whole video.
    """
    listing = list_folder(Path(folder), prompts)
    errors = [finding for finding in listing.findings if finding.severity == "error"]
    if errors:
        more = f" (and {len(errors) - 1} more errors: see `astro eval check {folder}`)" if len(errors) > 1 else ""
        where = folder if errors[0].file == str(listing.folder) else listing.folder / errors[0].file
        raise InputError(where, errors[0].key, errors[0].what + more, hint=errors[0].hint)
    paths = [entry.path for entry in listing.entries]
    opened = {file.path: file for file in open_all(paths, decode=False, jobs=1, progress=progress)}
    samples = []
    for entry in listing.entries:
        file = opened[entry.path]
        if file.info is None:
            assert file.error is not None, "a file has one or the other"
            raise file.error
        samples.append(entry.sample(file.info, file.video_hash))
    _refuse_twins(samples)
    return samples


def _refuse_twins(samples: Sequence[Sample]) -> None:
    """Raise where two videos of a prompt are one: they would be counted as two samples."""
    seen: dict[tuple[str, str, str], Sample] = {}
    for sample in samples:
        for key, claim in (("index", sample.labels.get("index")), ("bytes", sample.video_hash)):
            other = sample if claim is None else seen.setdefault((sample.prompt_id, key, str(claim)), sample)
            if other is not sample:
                what = f"the same as of {other.path.name}, a video of the same prompt"
                raise InputError(sample.path, key, what, hint="keep one of each; `astro eval check` names all")


def list_folder(folder: Path, prompts: PromptSet | None) -> Listing:
    """What a folder holds, without opening a video.

    Raises:
        InputError: no such folder, or no video in it.
    """
    if not folder.is_dir():
        raise InputError(
            folder, "", "a file, expected a folder" if folder.exists() else "no such folder", hint=FORMATS_HINT
        )
    if (folder / MANIFEST).is_dir():
        raise InputError(
            folder / MANIFEST, "", "a folder, expected a file", hint="rename it: a manifest is a file of JSON lines"
        )
    if (folder / MANIFEST).is_file():
        return _with_strays(list_manifest(folder, prompts))
    files = sorted((path for path in folder.iterdir() if is_video(path)), key=lambda path: (*_place(path), path.name))
    videos = [path for path in files if not path.stem.endswith(PARTIAL)]
    if strange := [path for path in files if not is_text(path.name)]:
        hint = "rename it: records could not name it"
        raise InputError(folder, strange[0].name, "its name is not UTF-8 text", hint=hint)
    if not videos:
        below = next((path.parent for path in sorted(folder.glob("*/*")) if is_video(path)), None)
        raise InputError(folder, "", "no videos", hint=f"there are some in {below}" if below else FORMATS_HINT)
    listing = list_sidecars(folder, videos, prompts) if has_sidecars(videos) else list_names(folder, videos, prompts)
    unfinished = [path.name for path in files if path.stem.endswith(PARTIAL)]
    findings = about(
        "warning",
        folder,
        "unfinished",
        "is an unfinished video; it is left out",
        unfinished,
        hint="make it again, or remove it",
    )
    return Listing(folder, listing.kind, listing.entries, (*listing.findings, *findings))


def _with_strays(listing: Listing) -> Listing:
    """Says which videos the manifest does not name.

    Raises:
        InputError: it names none, and nothing is wrong with its lines.
    """
    if not listing.entries and not listing.findings:
        raise InputError(
            listing.folder / MANIFEST,
            "",
            "names no video",
            hint='expected lines like {"video": "a.mp4", "prompt": "..."}',
        )
    known = {entry.path for entry in listing.entries}
    strays = sorted(
        path.relative_to(listing.folder).as_posix()
        for path in listing.folder.rglob("*")
        if path not in known and is_video(path)
    )
    findings = about("warning", listing.folder, "video", f"not named in {MANIFEST}; it is left out", strays)
    return Listing(listing.folder, listing.kind, listing.entries, (*listing.findings, *findings))


def is_video(path: Path) -> bool:
    """Whether a name is a video's; hidden files (macOS's `._` ones among them) are none."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _place(path: Path) -> tuple[str, int]:
    """Prompt and index as a number, so that 10 comes after 9."""
    text, index = split_name(path)
    return text, -1 if index is None else index


def open_all(paths: Sequence[Path], *, decode: bool, jobs: int, progress: Progress | None = None) -> Iterator[Opened]:
    """Every file once, in order.

    Args:
        decode: decode all frames too, to be sure that they can be.
    """
    unique = list(dict.fromkeys(paths))
    pool = ThreadPoolExecutor(max(1, jobs))
    try:
        for done, file in enumerate(pool.map(lambda path: open_one(path, decode=decode), unique), 1):
            if progress is not None:
                progress(done, len(unique))
            yield file
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for files nobody has opened


def open_one(path: Path, *, decode: bool) -> Opened:
    """Hash and facts of a file."""
    digest = ""
    try:
        digest, info = file_hash(path), probe(path)
        if decode and (decoded := count_frames(path)) != info.frames:
            what = f"{decoded} frames can be decoded, the file says {info.frames}"
            raise VideoError(path, "frames", what, hint="the file is damaged: make it again, or leave it out")
    except (InputError, VideoError) as error:
        return Opened(path, digest, None, error)
    return Opened(path, digest, info)


def file_hash(path: Path) -> str:
    """sha256 of a file, hex, read piece by piece.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return sha256(path)
    except OSError as error:
        raise InputError(path, "", f"cannot be read: {error.strerror or error}") from error


def broken(folder: Path, opened: Sequence[Opened]) -> list[Finding]:
    """A finding per file that is no whole video."""
    return [
        Finding(
            "error",
            _name(file.path, folder),
            file.error.key or "decode",
            file.error.what,
            file.error.hint,
            (_name(file.path, folder),),
        )
        for file in opened
        if file.error is not None
    ]


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)

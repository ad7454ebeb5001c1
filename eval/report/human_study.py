"""The page of a human study: one HTML file that holds its clips and runs its own script, and loads nothing.

The template is `templates/human_study.html`; the script keeps the answers in the browser's storage and saves them as
the JSON lines that `astro eval gsb`, `likert` and `rank` read.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from astro_cli.config.files import Reader
from astro_cli.generate.media import written_whole
from astro_cli.generate.mp4 import write_mp4
from astro_cli.media import decode
from eval.human.trials import HumanStudy, StudyError, Trial
from eval.renderers.templating import fill

POLICY = "default-src 'none'; media-src blob:; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{}'"
TASKS = {
    "rank": "Watch the clips of each prompt, then put them in order: the best first.",
    "gsb": "Watch the two clips of each prompt, then say which is better, or that there is no difference.",
    "likert": "Watch the clips of each prompt, then give each a score.",
}
MOST_BYTES = 2**28  # of clips: browsers hold the page in memory several times
PLAYED = {".mp4": ("h264", "av1"), ".webm": ("vp8", "vp9", "av1")}  # by every browser, with 4:2:0 pixels
PIXELS = ("yuv420p", "yuvj420p")
KINDS = {".mp4": "video/mp4", ".webm": "video/webm"}


class EmbeddedClip(NamedTuple):
    """A clip as it is in the page."""

    name: str
    kind: str
    content: str


def clip_path(arm: str, item: str, suffix: str) -> str:
    """What a line of the answers calls a video, and where `copy_clips` puts it."""
    return f"{arm}/{item}{suffix}"


def write_study(path: Path, study: HumanStudy, files: dict[Path, Path]) -> None:
    """Write the page.

    Args:
        files: as `playable` gives them.

    Raises:
        StudyError: the clips are too large for a page.
        OutputError: the page cannot be written.
    """
    clips, trials = dict[Path, EmbeddedClip](), []
    total = sum(file.stat().st_size for file in set(files.values()))
    if total > MOST_BYTES:
        what = f"the clips are {total / 2**20:,.0f} MiB, a page holds {MOST_BYTES / 2**20:,.0f}"
        raise StudyError("--prompts", "", what, hint="make several pages of fewer prompts, or smaller clips")
    for trial in study.trials:
        trials.append(_trial(study, trial, files, clips))
    script = (resources.files("eval.report") / "templates" / "human_study.js").read_text(encoding="utf-8")
    data = {
        "id": study.id,
        "mode": study.mode,
        "arms": study.arms,
        "criteria": study.criteria,
        "scale": study.scale,
        "trials": trials,
    }
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    page = fill(
        "human_study.html",
        title=study.title,
        mode=study.mode,
        task=TASKS[study.mode],
        policy=POLICY.format(digest),
        data=data,
        clips=list(clips.values()),
        script=Markup(script),
    )
    with written_whole(path) as temporary:
        temporary.write_text(f"{page}\n", encoding="utf-8")


def _trial(study: HumanStudy, trial: Trial, files: dict[Path, Path], clips: dict[Path, EmbeddedClip]) -> dict[str, Any]:
    """A trial as the script reads it; adds its clips, each file once."""
    shown = []
    for arm in trial.arms:
        file = files[trial.item.clips[arm].path]
        if file not in clips:
            content = base64.b64encode(Reader(StudyError).content(file)).decode("ascii")
            clips[file] = EmbeddedClip(f"clip-{len(clips)}", KINDS[file.suffix], content)
        video = clip_path(arm, trial.item.id, file.suffix)
        shown.append({"arm": study.arms.index(arm), "id": clips[file].name, "video": video})
    fps = max(trial.item.clips[arm].info.fps for arm in trial.arms)
    return {"item": trial.item.id, "prompts": trial.item.prompts, "fps": fps, "clips": shown}


def playable(study: HumanStudy, folder: Path, progress: Callable[[], None]) -> dict[Path, Path]:
    """The file that stands for every video: itself where browsers play it, else an MP4 made of it in `folder`.

    Args:
        progress: called after every trial.

    Raises:
        VideoError: one that cannot be decoded.
    """
    files: dict[Path, Path] = {}
    for trial in study.trials:
        for sample in (trial.item.clips[arm] for arm in trial.arms):
            if sample.path in files:
                continue
            suffix = sample.path.suffix.lower()
            codec, pixels = decode.codec(sample.path)
            if sample.path.suffix in KINDS and codec in PLAYED.get(suffix, ()) and pixels in PIXELS:
                files[sample.path] = sample.path
                continue
            files[sample.path] = folder / f"{len(files)}.mp4"
            write_mp4(_pictures(sample.path), files[sample.path], sample.info.fps)
        progress()
    return files


def _pictures(path: Path) -> Iterator[Any]:
    for _, frame in decode.frames(path):
        yield frame


def copy_clips(study: HumanStudy, files: dict[Path, Path], folder: Path) -> None:
    """The clips as the lines of the answers name them, below a folder: `astro prefer` reads answers that lie there.

    Raises:
        OutputError: a file cannot be written.
    """
    for trial in study.trials:
        for arm in trial.arms:
            source = files[trial.item.clips[arm].path]
            with written_whole(folder / clip_path(arm, trial.item.id, source.suffix)) as temporary:
                shutil.copyfile(source, temporary)

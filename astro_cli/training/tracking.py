"""Trackers of a run, by accelerate's names: its settings, curves of all metrics, and the best and worst clips.

accelerate logs numbers to all of its trackers, but pictures in a way of each; here every tracker gets the clips as GIF.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from PIL import Image

from astro_cli.config.errors import RecipeError
from astro_cli.config.toml_text import flatten
from astro_cli.spec import Recipe

PROJECT = "astro"
# What the trackers that name a run take as its name.
RUN_NAMES = {"wandb": "name", "trackio": "name", "swanlab": "experiment_name"}
PACKAGES = {"comet_ml": "comet-ml"}  # where pip knows another name


@dataclass(frozen=True)
class TrackedClip:
    """A clip for a tracker: its name ("samples/best"), GIF file and a line of text."""

    name: str
    file: Path
    caption: str


def check_tracker(tracker: str) -> None:
    """Refuse a tracker that is not installed: accelerate would leave it out without a word.

    Raises:
        RecipeError: it is not here.
    """
    if tracker != "none" and tracker not in {str(name) for name in get_available_trackers()}:
        hint = f'pip install {PACKAGES.get(tracker, tracker)}, or runtime.tracker = "none"'
        raise RecipeError("runtime", "tracker", f"found {tracker!r}, which is not installed", hint=hint)


def start_tracker(accelerator: Accelerator, recipe: Recipe, folder: Path) -> None:
    """Begin the tracker's run, named by the run's folder, with the recipe's values. The folder is there already.

    Raises:
        RecipeError: the tracker does not start, for example without a login; the accelerator has none then.
    """
    tracker = recipe.runtime.tracker
    if tracker == "none":
        return
    options = {tracker: {RUN_NAMES[tracker]: folder.resolve().name}} if tracker in RUN_NAMES else {}
    try:
        accelerator.init_trackers(PROJECT, config=_settings(recipe), init_kwargs=options)
    except Exception as error:  # of the tracker's library, or of its service
        accelerator.trackers.clear()  # half started: it can take nothing, and cannot be ended
        hint = 'log in to it, or runtime.tracker = "none"'
        raise RecipeError("runtime", "tracker", f"{tracker} did not start: {_line(error)}", hint=hint) from error


def end_tracker(accelerator: Accelerator) -> str:
    """End the tracker's run, if one began; a warning where that fails, else ""."""
    if not accelerator.trackers:
        return ""
    try:
        accelerator.end_training()
    except Exception as error:  # as above: the run is on the disk
        return f"the tracker did not end as it should: {_line(error)}"
    return ""


def track_numbers(accelerator: Accelerator, values: Mapping[str, float], step: int) -> str:
    """Send a step's numbers to the run's tracker; a warning where it does not take them, else ""."""
    try:
        accelerator.log(dict(values), step=step)
    except Exception as error:  # as above: training goes on
        return f"the tracker did not take row {step} of metrics.jsonl: {_line(error)}; training goes on"
    return ""


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _settings(recipe: Recipe) -> dict[str, Any]:
    """The recipe by dotted keys, as trackers take it: numbers, truth values and texts."""
    flat = flatten(recipe.model_dump(mode="json", exclude_none=True)) | {"recipe_hash": recipe.hash()}
    return {key: value if isinstance(value, bool | int | float | str) else str(value) for key, value in flat.items()}


def track_clips(accelerator: Accelerator, clips: Sequence[TrackedClip], step: int) -> list[str]:
    """Send clips to the run's tracker.

    Returns:
        Warnings: clips that a tracker did not take, and where they are.
    """
    warnings = []
    for tracker in accelerator.trackers:
        for clip in clips:
            try:
                MEDIA[str(tracker.name)](tracker, clip, step)
            except Exception as error:  # of the tracker's library, or of its service: training goes on
                warnings.append(f"{tracker.name} did not take {clip.name}: {_line(error)}; it is {clip.file}")
    return warnings


def _tensorboard(tracker: Any, clip: TrackedClip, step: int) -> None:
    """An animated picture: TensorBoard shows a GIF as it is."""
    summary_pb2 = importlib.import_module("tensorboard.compat.proto.summary_pb2")
    with Image.open(clip.file) as picture:
        width, height = picture.size
    image = summary_pb2.Summary.Image(
        height=height, width=width, colorspace=3, encoded_image_string=clip.file.read_bytes()
    )
    summary = summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag=clip.name, image=image)])
    tracker.writer.file_writer.add_summary(summary, step)
    tracker.writer.add_text(f"{clip.name}/prompt", clip.caption, global_step=step)
    tracker.writer.flush()


def _as_video(package: str, options: Mapping[str, Any]) -> Callable[[Any, TrackedClip, int], None]:
    """Of the trackers with a class for videos in their package."""

    def send(tracker: Any, clip: TrackedClip, step: int) -> None:
        video = importlib.import_module(package).Video(str(clip.file), caption=clip.caption, **options)
        tracker.log({clip.name: video}, step=step)

    return send


def _comet(tracker: Any, clip: TrackedClip, step: int) -> None:
    tracker.writer.log_image(str(clip.file), name=clip.name, step=step)
    tracker.writer.log_text(clip.caption, step=step)


def _mlflow(tracker: Any, clip: TrackedClip, step: int) -> None:
    tracker.log_artifact(str(clip.file), artifact_path=clip.name)


def _clearml(tracker: Any, clip: TrackedClip, step: int) -> None:
    title, _, series = clip.name.partition("/")
    tracker.tracker.get_logger().report_media(title, series, iteration=step, local_path=str(clip.file))


def _aim(tracker: Any, clip: TrackedClip, step: int) -> None:
    image = importlib.import_module("aim").Image(str(clip.file), caption=clip.caption, format="gif")
    tracker.writer.track(image, name=clip.name, step=step)


def _dvclive(tracker: Any, clip: TrackedClip, step: int) -> None:
    tracker.live.log_image(f"{clip.name}-{step}.gif", str(clip.file))


MEDIA: dict[str, Callable[[Any, TrackedClip, int], None]] = {
    "aim": _aim,
    "clearml": _clearml,
    "comet_ml": _comet,
    "dvclive": _dvclive,
    "mlflow": _mlflow,
    "swanlab": _as_video("swanlab", {}),
    "tensorboard": _tensorboard,
    "trackio": _as_video("trackio", {"format": "gif"}),
    "wandb": _as_video("wandb", {"format": "gif"}),
}

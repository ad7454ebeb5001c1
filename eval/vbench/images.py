"""Finds the picture that an image-to-video prompt starts from."""

from __future__ import annotations

from pathlib import Path

from astro_cli.config.files import expanded
from eval.contract import Sample, ScoreError


def images_of(sample: Sample) -> tuple[Path, ...]:
    """`image_of` as what a declaration reads."""
    return (image_of(sample),)


def image_of(sample: Sample) -> Path:
    """The picture an image-to-video prompt starts from: `labels["image"]`, as it is or beside the video.

    Raises:
        ScoreError: the prompt names none, or it is not there.
    """
    name = sample.labels.get("image")
    if not isinstance(name, str):
        raise ScoreError(
            sample.path, "image", "the prompt names no image", hint="VBench-I2V scores videos made from an image"
        )
    places = [expanded(name), sample.path.parent / name]
    picture = next((path for path in places if path.is_file()), None)
    if picture is None:
        raise ScoreError(
            sample.path, "image", f"no such file: {places[0]}", hint="a relative path is of this folder or the video's"
        )
    return picture

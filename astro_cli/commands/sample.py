"""`astro sample`: stream videos from a student to disk. Owns the options and their checks; `sample_run` makes the
videos.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from astro_cli.commands import student_options as options
from astro_cli.commands.acceleration_options import Make
from astro_cli.commands.console import loading, typed_lines
from astro_cli.commands.limits import MOST_FRAMES, MOST_SECONDS, MOST_VIDEOS
from astro_cli.config.errors import StreamError
from astro_cli.config.seeds import LARGEST
from astro_cli.generate import plan as sample_input

if TYPE_CHECKING:
    from astro_cli.generate.arm import Arm
    from astro_cli.generate.given import Given


class Recache(StrEnum):
    none = "none"
    bidirectional = "bidirectional"
    block_causal = "block_causal"


class FitChoice(StrEnum):
    exact = "exact"
    crop = "crop"


def sample(
    prompts: Annotated[
        list[str] | None, typer.Argument(help="Prompts; '-' or none reads them from standard input.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--prompts", help="Text (a prompt a line), .csv, or JSON lines with prompts in turn."),
    ] = None,
    weights: options.WeightsOption = None,
    lora: options.LoraOption = None,
    recipe: options.RecipeOption = None,
    wan: options.WanOption = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, max=MOST_SECONDS, help="Length of each video.")] = None,
    frames: Annotated[
        int | None, typer.Option(min=1, max=MOST_FRAMES, help="Length in frames, instead of seconds.")
    ] = None,
    size: options.SizeOption = None,
    stretch: options.StretchOption = None,
    image: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Picture that is the first frame of every video.")
    ] = None,
    video: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Clip that every video continues, for --seconds more.")
    ] = None,
    camera: Annotated[
        str | None, typer.Option(metavar='"right 2s, rest"', help="Moves of the camera, where the model has one.")
    ] = None,
    fit: Annotated[FitChoice, typer.Option(help="A picture or clip of another aspect: refuse it, or cut it.")] = (
        FitChoice.exact
    ),
    seed: Annotated[
        int | None, typer.Option(min=0, max=LARGEST - MOST_FRAMES, help="Prompt i uses seed + i. Default: 0.")
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="0,1,2", help="Make every prompt with each of these seeds.")
    ] = None,
    switch: Annotated[
        list[str] | None, typer.Option(metavar="TIME:PROMPT", help="New prompt from a frame (80:) or second (5s:) on.")
    ] = None,
    recache: Annotated[Recache, typer.Option(help="How a switch recomputes the cached past.")] = Recache.bidirectional,
    renew_sink: Annotated[bool, typer.Option("--renew-sink", help="Let a switch recompute the sink too.")] = False,
    interactive: Annotated[
        bool, typer.Option("--interactive", help="Type the next prompt while frames stream; /quit ends.")
    ] = False,
    window: options.WindowOption = None,
    sink: options.SinkOption = None,
    relative: Annotated[
        bool | None, typer.Option("--relative/--absolute", help="Positions in the window, or frame numbers.")
    ] = None,
    ema: Annotated[
        float | None, typer.Option(min=0, max=1, metavar="ALPHA", help="Blend evicted frames into the sink.")
    ] = None,
    dtype: options.DtypeOption = options.Dtype.fp32,
    device: options.DeviceOption = options.Device.auto,
    batch: Annotated[
        int, typer.Option(min=1, max=MOST_VIDEOS, help="Videos made at once; what they show does not depend on it.")
    ] = 1,
    decoder: options.DecoderOption = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the videos.")] = Path("samples"),
    *,
    acceleration: Make,
) -> None:
    """Stream videos: MP4, PNG contact sheet and JSON sidecar per video. Time and memory per frame do not grow with
    length.

    Example: astro sample "a large red circle moves right slowly over a gray plain background" --seconds 4
    """
    requested = (
        None
        if interactive and prompts in (None, [], ["-"]) and file is None
        else sample_input.stories(prompts, file, typed_lines())
    )
    switches, numbers = sample_input.parse_switches(switch), sample_input.chosen_seeds(seeds, seed)
    if renew_sink and recache is Recache.none:
        raise StreamError(
            "--renew-sink",
            "",
            "a sink is renewed by recomputing it, found --recache none",
            hint="use bidirectional or block_causal",
        )
    if interactive and (
        switches or (requested and (len(requested) > 1 or len(requested[0]) > 1)) or (numbers and len(numbers) > 1)
    ):
        raise StreamError(
            "--interactive",
            "",
            "streams one video whose prompts are typed",
            hint="give at most one prompt, one seed and no --switch",
        )
    if seconds is not None and frames is not None:
        raise StreamError("--seconds", f"{seconds:g}", "found --frames too", hint="give one of them")
    if image is not None and video is not None:
        raise StreamError("--image", str(image), "found --video too", hint="give one of them")
    named = sample_input.pictures(file)
    if named is not None and (image is not None or video is not None):
        option, path = ("--image", image) if image is not None else ("--video", video)
        raise StreamError(option, str(path), "the prompt file names a picture on every line", hint="leave one out")
    if fit is FitChoice.crop and not (image or video or named):
        raise StreamError("--fit", fit.value, "there is no --image and no --video to cut", hint="leave it out")
    cache = options.cache_fields(window, sink, relative=relative, alpha=ema, policy=None if ema is None else "ema")
    with loading(weights or recipe or options.DEFAULT_WEIGHTS):
        arm = options.load(weights, recipe, lora, wan, dtype, device, cache, acceleration(), decoder)
    arm = options.resize(arm, size, stretch=stretch)
    if camera is not None:
        from astro_cli.generate.camera import with_camera

        arm = with_camera(arm, camera)
    opening = _opening(arm, named or ([] if image is None else [image]), video, fit)
    length = _length(arm, seconds, frames, opening[0] if opening else None)
    from astro_cli.commands.sample_run import Studio
    from astro_cli.rollout.switching import SwitchRule

    facts = {
        "lora": lora or None,
        "dtype": dtype.value,
        "device": str(arm.network.device),
        "recache": recache.value,
        "renew_sink": renew_sink,
        **arm.acceleration.facts(),
        **({} if camera is None else {"camera": camera}),
        **({} if size is None else {"size": list(arm.pixels), "stretch": arm.card["video"]["stretch"]}),
        **({} if arm.tiny is None else {"tiny_decoder": arm.decoder_name}),
    }
    studio = Studio(
        arm,
        length,
        SwitchRule(recache=recache.value, renew_sink=renew_sink),
        out,
        facts,
        endless=interactive and seconds is None and frames is None,
        given=opening[0] if opening else None,
    )
    with _interruptible():
        if requested is None or interactive:
            first = requested[0][0] if requested else None
            studio.interactive(first, numbers[0] if numbers else seed or 0, typed_lines())
        else:
            given = opening if named else opening * len(requested)
            videos = sample_input.plan(requested, numbers, seed or 0, switches, length, studio.settings(), given)
            _note_switches(switches, videos, length)
            studio.make(videos, batch)


def _opening(arm: Arm, images: list[Path], video: Path | None, fit: FitChoice) -> list[Given]:
    """What opens the videos; says where a student was not trained on a first frame alone."""
    from astro_cli.generate import given

    if video is not None:
        return [given.clip(arm, video, fit.value)]
    opened = [given.picture(arm, image, fit.value) for image in images]
    if opened and (block := arm.card["video"]["block"]) > 1:
        _note(f"{arm.name} was trained in blocks of {block} latent frames; a first frame alone is new to it")
    return opened


def _length(arm: Arm, seconds: float | None, frames: int | None, given: Given | None) -> sample_input.Length:
    """As `length_for`; says where another length than the one asked for is made."""
    from astro_cli.generate.stream import length_for

    length = length_for(arm, seconds, frames, given)
    if length.requested is not None and length.frames != length.requested:
        _note(f"{length.requested} frames asked for, {length.frames} are made: {length.rule()}")
    return length


def _note(text: str) -> None:
    typer.echo(f"note: {text}", err=True)


def _note_switches(
    switches: list[sample_input.Switch], videos: list[sample_input.Video], length: sample_input.Length
) -> None:
    """Say where a switch does not act at the frame it was asked for."""
    for switch, (latent, _) in zip(switches, videos[0].switches, strict=False):
        requested, frame = switch.frame(length.backbone.fps), length.backbone.num_frames(latent)
        if frame != requested:
            _note(f"--switch {switch.given}: acts at frame {frame}, not {requested}: it waits for the next block")


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let a termination signal end the stream as Ctrl-C does: with its files closed."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

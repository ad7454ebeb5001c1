"""`astro doctor world`: does a base of the embedded world use its prompt's words?"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from astro_cli.commands.console import echo, echo_aligned, loading, plain_column, plain_console
from astro_cli.commands.limits import MOST_FRAMES, MOST_PROMPTS
from astro_cli.config.errors import CheckpointError

if TYPE_CHECKING:
    from eval.world.diagnosis import Gap, MotionShares

BATCH = 16  # videos generated at once


def world(
    arm: Annotated[
        str,
        typer.Argument(metavar="WEIGHTS", help="A packaged base, run folder or weights file of the embedded world."),
    ],
    clips: Annotated[
        int, typer.Option(min=2, max=MOST_PROMPTS, help="Clips the gaps are measured on (teachers only).")
    ] = 32,
    prompts: Annotated[
        int, typer.Option(min=1, max=MOST_PROMPTS, help="Held-out prompts to generate; 32 take about a minute.")
    ] = 32,
    frames: Annotated[
        int | None,
        typer.Option(min=1, max=MOST_FRAMES, help="Latent frames of a video; default as trained. Whole blocks."),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    """Measure what a base of the embedded world has learned of its prompts, so that a training that goes wrong is seen
    early.

    For a teacher: how much the loss rises when a word of the caption is wrong, per noise level, in thousandths
    (0: the word is not used). For teachers and students: the share of held-out prompts whose videos show what is
    asked, per kind of motion.

    Example: astro doctor world shapes/teacher
    """
    with loading(arm):
        from astro_cli.generate.arm import load_arm
        from eval.world.diagnosis import gaps, motion_shares

        loaded = load_arm(arm)
    if loaded.backbone.name != "shapes":
        raise CheckpointError(
            arm, "backbone", f"found {loaded.backbone.name!r}, expected a base of the embedded world ('shapes')"
        )
    block, length = loaded.card["video"]["block"], frames or loaded.card["video"]["frames"]
    if length % block:
        raise CheckpointError(arm, "--frames", f"found {length}, expected a multiple of the block ({block})")
    console = plain_console(stderr=True)
    columns = (plain_column(), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:

        def bar(what: str) -> Callable[[int, int], None]:
            task = progress.add_task(what, total=None)
            return lambda done, total: progress.update(task, completed=done, total=total)

        measured = [] if loaded.streams else gaps(loaded, clips, bar("noise levels"))
        videos = motion_shares(loaded, prompts, length, BATCH, bar("videos"))
    if json_:
        echo(
            json.dumps({"gaps": [asdict(gap) for gap in measured], "videos": [asdict(row) for row in videos]}, indent=2)
        )
        return
    if measured:
        show_gaps(measured)
        echo("")
    show_videos(videos, loaded.backbone.num_frames(length))


def show_gaps(measured: list[Gap]) -> None:
    names = list(measured[0].added)
    echo("loss added by a wrong word, x 1e-3 (standard error)")
    rows = []
    for gap in measured:
        added = [f"{1e3 * mean:.1f} ({1e3 * error:.1f})" for mean, error in gap.added.values()]
        rows.append([f"{gap.sigma:g}", f"{gap.loss:.4f}", *added])
    echo_aligned([["noise", "loss", *names], *rows])


def show_videos(videos: list[MotionShares], frames: int) -> None:
    names = list(videos[0].oracle)
    echo(f"share of prompts shown, videos of {frames} frames")
    rows = []
    for row in videos:
        oracle = [share_text(value) for value in row.oracle.values()]
        rows.append([row.kind, str(row.prompts), share_text(row.path), share_text(row.borders), *oracle])
    echo_aligned([["motion", "prompts", "path", "borders", *(f"oracle's {name}" for name in names)], *rows])


def share_text(share: float | None) -> str:
    return "" if share is None else f"{share:.2f}"

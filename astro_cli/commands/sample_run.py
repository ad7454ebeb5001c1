"""Makes the videos of one `astro sample` call, with a progress bar or a preview, and prints what was written.

Owns what the user sees; `sample` checks the options.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from astro_cli.commands.console import plain_column, plain_console
from astro_cli.commands.interactive import QUIT, TypedPrompts
from astro_cli.commands.preview import TerminalPreview, write_preview
from astro_cli.config.errors import EXIT_RUN, StreamError
from astro_cli.generate.arm import Arm
from astro_cli.generate.given import Given
from astro_cli.generate.mp4 import mp4_encoder
from astro_cli.generate.plan import Length, Video, batches, free_name, name_of, refuse_others
from astro_cli.generate.stream import Schedule, Script, enlarged, stream_batch
from astro_cli.rollout.switching import SwitchRule

NAMED = 60  # characters of a prompt beside the bar


@dataclass
class Studio:
    """An arm with everything that holds for all videos of a call."""

    arm: Arm
    length: Length
    rule: SwitchRule
    out: Path
    facts: dict[str, Any]
    endless: bool = False  # the video has no length of its own
    given: Given | None = None  # what opens the videos

    def __post_init__(self) -> None:
        mp4_encoder()  # refuse a machine that cannot write MP4 before the first frame
        self.console = plain_console(stderr=True)
        self.facts |= {
            "weights": self.arm.name,
            "weights_hash": self.arm.weights_hash(),
            "recipe_hash": self.arm.card["recipe_hash"],
            "sampling": self.arm.card["sampling"],
            "cache": self.cache(),
        }

    def cache(self) -> dict[str, Any]:
        """The cache videos of this length stream with."""
        return self.arm.stream_spec(None if self.endless else self.length.latents).cache.model_dump()

    def settings(self) -> dict[str, Any]:
        """What decides, beside prompts and seed, what a video of this call shows."""
        length = None if self.endless else self.length.latents
        return {
            **self.facts,
            "latent_frames": length,
            "video": self.arm.card["video"],
            "sampler": self.arm.card["sampler"],
        }

    def make(self, videos: list[Video], size: int) -> None:
        """Make planned videos, `size` at once.

        Raises:
            AstroError: a prompt the text side cannot take, or a file of another prompt in a video's place, before
                anything is written.
        """
        if not self.arm.streams and any(video.switches for video in videos):
            raise StreamError(
                "--switch",
                "",
                f"{self.arm.name} is a multi-step teacher and takes no switches",
                hint="sample a student",
            )
        for prompt in dict.fromkeys(prompt for video in videos for prompt in video.prompts):
            self.check(prompt)
        refuse_others(videos, self.out)
        self.arm.check_fits(self.length.latents, min(size, len(videos)))
        columns = (
            plain_column(),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            plain_column("{task.fields[rate]}"),
        )
        for group in batches(videos, size):
            name = group[0].prompt[:NAMED] + (f" and {len(group) - 1} more" if len(group) > 1 else "")
            with Progress(*columns, console=self.console, disable=not self.console.is_terminal) as progress:
                bar = progress.add_task(name, total=self.length.frames, rate="")

                def on_block(
                    clips: np.ndarray, done: int, rate: float, bar: Any = bar, progress: Progress = progress
                ) -> None:
                    progress.update(bar, completed=done, rate=f"{rate:.1f} frames/s")

                self._stream(
                    group, Schedule(group, self.length.latents, self.length.block), self.length.latents, on_block
                )

    def interactive(self, prompt: str | None, seed: int, lines: Iterable[str]) -> None:
        """Make one video whose prompts are typed.

        Args:
            prompt: the first one, unless another is typed before the first block; None waits for a line.
        """
        if not self.arm.streams:
            raise StreamError(
                "--interactive",
                "",
                f"{self.arm.name} is a multi-step teacher and does not stream",
                hint="sample a student",
            )
        if prompt is not None:
            self.check(prompt)
        latents = None if self.endless else self.length.latents
        self.arm.check_fits(latents, 1)
        script = TypedPrompts(lines, latents, self.check, self.say)
        self.say(f"type a prompt and Enter: it takes over at the next block; {QUIT} ends")
        first = script.first(prompt)
        if first is None:
            raise StreamError(
                "--interactive", "", "the input ended before a prompt", hint="type one, or give it on the command line"
            )
        settings = {**self.settings(), **({} if self.given is None else self.given.facts)}
        name = free_name(name_of(first, seed, (), settings), self._written)
        video = Video(first, seed, (), name, self.given)
        preview = self.out / f"{video.stem}.preview.png"
        self.say(f"frames stream to {self.out / video.stem}.partial.mp4, the newest to {preview}")
        with TerminalPreview(self.console.file) as terminal:

            def on_block(clips: np.ndarray, done: int, rate: float) -> None:
                write_preview(clips[0, -1], preview, enlarged(clips.shape[2]))
                terminal.show(clips[0, -1], f"frame {done}  {rate:.1f} frames/s  {QUIT} ends")

            self._stream([video], script, latents, on_block)

    def _written(self, name: str) -> bool:
        """Whether a video has this name, whole or not; another session's prompts were typed, so it is another video."""
        return any((self.out / f"{name}{end}").exists() for end in (".mp4", ".partial.mp4", ".json"))

    def check(self, prompt: str) -> None:
        """Raises: AstroError, where the text side cannot take a prompt."""
        self.arm.backbone.encode_text([prompt])

    def say(self, line: str) -> None:
        self.console.print(line, soft_wrap=True)

    def _stream(
        self,
        videos: list[Video],
        script: Script,
        latents: int | None,
        on_block: Callable[[np.ndarray, int, float], None],
    ) -> None:
        try:
            sidecars = stream_batch(self.arm, videos, script, latents, self.rule, self.out, self.facts, on_block)
        except KeyboardInterrupt:
            kept = [path for video in videos if (path := self.out / f"{video.stem}.partial.mp4").is_file()]
            self.say(
                f"interrupted; what was made is in {', '.join(str(path) for path in kept)}"
                if kept
                else "interrupted before the first block"
            )
            raise typer.Exit(EXIT_RUN) from None
        for sidecar in sidecars:
            self.say(f"{sidecar['video']}: {sidecar['frames']} frames, {sidecar['frames_per_second']:.1f} frames/s")

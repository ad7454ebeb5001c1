"""When the prompt of a stream changes: at starts of blocks, the one place that refuses switch times. Free of torch and
pydantic.

A switch inside a block takes effect at the start of the next block, as in LongLive's released inference (a switch at 40
with blocks of 3 acts at 42).
Source: LongLive (arXiv 2509.22622) and its released code. Frames are latent frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from astro_cli.config.errors import StreamError

T = TypeVar("T")


def block_starts(frames: int, block: int, *, first_frame_alone: bool = False) -> list[int]:
    """First frame of each block of a video of `frames` frames, or of as many whole blocks as it holds."""
    head = 1 if first_frame_alone and frames else 0
    return [*range(head), *range(head, frames - block + 1, block)]


def whole_blocks(frames: int, block: int, *, first_frame_alone: bool = False) -> int:
    """Frames of the fewest whole blocks that hold `frames` of them; also where the first block behind them begins."""
    head = 1 if first_frame_alone and frames else 0
    return head + -(-(frames - head) // block) * block


@dataclass(frozen=True)
class SwitchUnits:
    """The units in which a refusal names switch times; by default latent frames.

    Attributes:
        option: where the times were given.
        given: each time as it was given; default its latent frame.
        unit: name of a frame.
        frame: that frame for a latent one.
        fps: frames per second, where a refusal names seconds too.
    """

    option: str = "switch"
    given: Sequence[str] | None = None
    unit: str = "latent frame"
    frame: Callable[[int], int] = int
    fps: float | None = None

    def start(self, latent: int) -> str:
        return f"{self.unit} {self.frame(latent)}"

    def seconds(self, latent: int) -> str:
        return "" if self.fps is None else f" ({self.frame(latent) / self.fps:.1f} s)"


LATENT_FRAMES = SwitchUnits()


class SwitchSchedule(Generic[T]):
    """Prompts (or their text states) that take over at given frames.

    Args:
        switches: (frame, text), frames increasing.
        frames: length of the video.
        block, first_frame_alone: of the stream.
        units: how a refusal names the times.

    Raises:
        StreamError: a switch at frame 0, out of order, or too late to act on any block.
    """

    def __init__(
        self,
        switches: Sequence[tuple[int, T]],
        frames: int,
        block: int,
        *,
        first_frame_alone: bool = False,
        units: SwitchUnits = LATENT_FRAMES,
    ) -> None:
        starts = block_starts(frames, block, first_frame_alone=first_frame_alone)
        last, before = starts[-1] if starts else 0, 0
        for index, (frame, _) in enumerate(switches):
            given = str(frame) if units.given is None else units.given[index]
            if frame <= 0:
                what, hint = "expected a time after the beginning", "the first prompt is the one the video starts with"
                raise StreamError(units.option, given, what, hint=hint)
            if frame <= before:
                what = f"takes over at {units.start(frame)}, not after the switch before it, at {units.start(before)}"
                hint = f"list switches in order; each acts at the start of a block of {block} latent frames"
                raise StreamError(units.option, given, what, hint=hint)
            if frame > last:
                begins = f"{units.start(last)}{units.seconds(last)}"
                what = f"past the end: the last block begins at {begins} of {units.frame(frames)}"
                raise StreamError(units.option, given, what, hint="switch earlier, or make the video longer")
            before = frame
        self.switches = list(switches)
        self._next = 0

    def due(self, frame: int) -> T | None:
        """The text to switch to before the block that starts at `frame`; of several that fell due since the last block,
        the latest.
        """
        text = None
        while self._next < len(self.switches) and self.switches[self._next][0] <= frame:
            text = self.switches[self._next][1]
            self._next += 1
        return text

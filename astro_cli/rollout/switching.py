"""Changing the prompt of a running stream: how (`SwitchRule`) and when (`SwitchSchedule`). `engine.Streamer.switch`
carries it out.

A switch inside a block takes effect at the start of the next block, as in LongLive's released inference (a switch at 40
with blocks of 3 acts at 42).
Source: LongLive (arXiv 2509.22622) section 3.1, KV-recache, and its released code. Frames are latent frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, Literal, TypeVar

from pydantic import model_validator

from astro_cli.config.base import Config
from astro_cli.config.errors import StreamError

T = TypeVar("T")


class SwitchRule(Config):
    """What happens to the cached past when the prompt changes.

    recache: "none" changes only the text that new blocks attend to. "bidirectional" recomputes the keys and values of
        the visible frames under the new prompt in one pass without a mask (LongLive as released). "block_causal"
        recomputes them block by block, as they were first made.
    renew_sink: recompute the sink too; it becomes the first frames of the window. Else the sink keeps the old prompt.
    """

    recache: Literal["none", "bidirectional", "block_causal"] = "bidirectional"
    renew_sink: bool = False

    @model_validator(mode="after")
    def _check(self) -> SwitchRule:
        if self.renew_sink and self.recache == "none":
            raise ValueError(
                'renew_sink: found true, expected false with recache = "none": a sink is renewed by recomputing it'
            )
        return self


def block_starts(frames: int, block: int, *, first_frame_alone: bool = False) -> list[int]:
    """First frame of each block of a video of `frames` frames, or of as many whole blocks as it holds."""
    head = 1 if first_frame_alone and frames else 0
    return [*range(head), *range(head, frames - block + 1, block)]


class SwitchSchedule(Generic[T]):
    """Prompts (or their text states) that take over at given frames.

    Args:
        switches: (frame, text), frames increasing.
        frames: length of the video.
        block, first_frame_alone: of the stream.

    Raises:
        StreamError: a switch at frame 0, out of order, or too late to act on any block.
    """

    def __init__(
        self, switches: Sequence[tuple[int, T]], frames: int, block: int, *, first_frame_alone: bool = False
    ) -> None:
        starts = block_starts(frames, block, first_frame_alone=first_frame_alone)
        last, before = starts[-1] if starts else 0, 0
        for frame, _ in switches:
            if frame <= 0:
                raise StreamError(
                    "switch",
                    str(frame),
                    "expected a frame after 0",
                    hint="the first prompt is the one the stream starts with",
                )
            if frame <= before:
                raise StreamError(
                    "switch",
                    str(frame),
                    f"not after the switch before it, at frame {before}",
                    hint="list switches in order, each once",
                )
            if frame > last:
                what = f"past the end: the last block of {frames} latent frames starts at frame {last}"
                raise StreamError("switch", str(frame), what, hint="switch earlier, or make the video longer")
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

"""Streams a batch of videos to disk while it is made: MP4, contact sheet and sidecar of each. Decoding and writing run
beside generation (`pipeline`).

Dimensions: B video, T frame, H, W rows and columns, C colour.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image

from astro_cli.config.durable import write_json
from astro_cli.config.errors import StreamError
from astro_cli.generate.acceleration import device_name
from astro_cli.generate.arm import Arm
from astro_cli.generate.given import Given
from astro_cli.generate.media import contact_sheet, to_uint8
from astro_cli.generate.memory_use import peak_memory
from astro_cli.generate.mp4 import Mp4Stream
from astro_cli.generate.pipeline import BlockClock, Pipeline
from astro_cli.generate.plan import Length, Video
from astro_cli.rollout.switch_schedule import SwitchSchedule, whole_blocks
from astro_cli.rollout.switching import SwitchRule

SHEET_FRAMES = 12  # at least, of a video that has them; a long one's sheet has up to twice as many
SHEET_PX = 256  # width above which a sheet's frames are reduced
SHOWN_ROWS = 192  # smaller pictures are enlarged by whole pixels up to it


class Script(Protocol):
    """Decides which prompts the next block shows. Frames are latent frames."""

    def due(self, frame: int) -> list[str] | None:
        """Prompts of the batch that take over at the block starting at `frame`, if any. The first block, at frame 0,
        has those of the videos; it is not asked for.
        """
        ...

    def ended(self, frame: int) -> bool:
        """Whether the videos are complete with `frame` frames."""
        ...


class Schedule:
    """A script known beforehand: switches at given frames, a given length."""

    def __init__(self, videos: list[Video], latents: int, block: int) -> None:
        given = videos[0].given
        switches = []
        for turn in zip(*(video.switches for video in videos), strict=True):
            frames, prompts = zip(*turn, strict=True)
            switches.append((frames[0], list(prompts)))
        alone = given is not None and given.first_frame_alone
        self.switches = SwitchSchedule(switches, latents, block, first_frame_alone=alone)
        self.latents = latents

    def due(self, frame: int) -> list[str] | None:
        return self.switches.due(frame)

    def ended(self, frame: int) -> bool:
        return frame >= self.latents


@dataclass
class Reel:
    """One video on its way to disk."""

    video: Video
    file: Mp4Stream
    prompts: list[tuple[int, str]]  # (frame, prompt), the first at 0
    kept: list[np.ndarray] = field(default_factory=list)
    apart: int = 1  # frames between two that are kept

    def write(self, clip_THWC: np.ndarray) -> None:
        for frame in clip_THWC:
            if self.file.frames % self.apart == 0:
                self._keep(frame)
            self.file.write(frame)

    def _keep(self, frame_HWC: np.ndarray) -> None:
        picture = Image.fromarray(to_uint8(frame_HWC))
        self.kept.append(np.asarray(picture.reduce(-(-picture.width // SHEET_PX))))
        if len(self.kept) == 2 * SHEET_FRAMES:
            self.kept, self.apart = self.kept[::2], 2 * self.apart

    def write_sheet(self, path: Path) -> None:
        label = self.video.prompt + "".join(f" → from frame {frame}: {prompt}" for frame, prompt in self.prompts[1:])
        contact_sheet([(label, np.stack(self.kept))], path, enlarged(self.kept[0].shape[0]), apart=self.apart)


def enlarged(rows: int) -> int:
    """Width in which a pixel of the video is shown, in pixels."""
    return max(1, SHOWN_ROWS // rows)


def length_for(arm: Arm, seconds: float | None, frames: int | None, given: Given | None = None) -> Length:
    """Whole blocks that show at least the requested time; default a clip as long as those trained on.

    Args:
        given: what opens the videos: a picture is the first frame of that time, a clip comes before it.

    Raises:
        StreamError: another length than its own from a multi-step teacher; an EMA without a sink; a video that ends
            with what opens it.
        RecipeError: a cache that cannot stream.
    """
    video, backbone = arm.card["video"], arm.backbone
    wanted = frames if frames is not None else None if seconds is None else max(1, round(seconds * backbone.fps))
    opened, alone = (0, False) if given is None else (given.latents, given.first_frame_alone)
    if arm.recycles and given is None:
        opened = 1  # rendered
    if given is not None and given.continues:
        wanted = given.frames + (backbone.num_frames(video["frames"]) if wanted is None else wanted)
    if wanted is None:
        behind = max(1, (video["frames"] - alone) // video["block"])
        latents = alone + behind * video["block"]
    else:
        latents = whole_blocks(backbone.num_latents(wanted), video["block"], first_frame_alone=alone)
    if latents <= opened:
        what = f"found {wanted}, the first {backbone.num_frames(opened)} are given: expected more"
        raise StreamError("--frames", "", what, hint="ask for a longer video")
    if not arm.streams and latents != video["frames"]:
        made = backbone.num_frames(video["frames"])
        raise StreamError(
            "--frames",
            str(wanted),
            f"{arm.name} is a multi-step teacher and makes clips of {made} frames",
            hint="sample a student",
        )
    if arm.streams:
        spec = replace(arm.stream_spec(latents), first_frame_alone=alone)
        spec.check(1, latents)
        if spec.cache.policy == "ema" and not spec.cache.sink:
            raise StreamError(
                "--ema",
                f"{spec.cache.alpha:g}",
                "there is no sink to blend evicted frames into",
                hint="for example --sink 3",
            )
    return Length(latents, video["block"], backbone, wanted, opened, alone)


def stream_batch(
    arm: Arm,
    videos: list[Video],
    script: Script,
    latents: int | None,
    rule: SwitchRule,
    out: Path,
    facts: dict[str, Any],
    on_block: Callable[[np.ndarray, int, float], None],
) -> list[dict[str, Any]]:
    """Make videos and write their files.

    Args:
        latents: length in latent frames, None for a stream whose end only the script knows.
        facts: what every sidecar says beside its video's own numbers.
        on_block: called with each block's clips (B, T, H, W, C) once they are written, the frames made of each video so
            far, and the frames per second of all of them.

    Returns:
        Sidecars. On an error, `KeyboardInterrupt` included, what was made stays as `<name>.partial.mp4`.
    """
    fps, rows = arm.backbone.fps, arm.card["video"]["height"] * arm.backbone.cell
    clock, decoded = BlockClock(arm.network.device), list[float]()
    with ExitStack() as stack:
        reels = [
            Reel(
                video,
                stack.enter_context(Mp4Stream(out / f"{video.stem}.mp4", fps, enlarged(rows))),
                [(0, video.prompt)],
            )
            for video in videos
        ]
        stack.enter_context(arm.acceleration.on())
        began = time.perf_counter()
        makers = Blocks(arm, videos, latents, rule)

        def write(clips_BTHWC: np.ndarray) -> None:
            for reel, clip in zip(reels, clips_BTHWC, strict=True):
                reel.write(clip)

        def done(clips_BTHWC: np.ndarray, moment: float) -> None:
            decoded.append(moment)
            shown = clips_BTHWC.shape[1] + (counts[-1] if counts else 0)
            counts.append(shown)
            on_block(clips_BTHWC, shown, len(reels) * shown / (moment - began))

        counts: list[int] = []  # frames of each video when a block is done
        with Pipeline(makers.decoder.push, write, arm.network.device, done) as pipeline:
            if makers.given is not None:
                pipeline.push(makers.given)
            while not script.ended(makers.frame):
                prompts = script.due(makers.frame) if makers.frame else None
                if prompts is not None:
                    makers.switch(prompts)
                    for reel, prompt in zip(reels, prompts, strict=True):
                        reel.prompts.append((arm.backbone.num_frames(makers.frame), prompt))
                elif script.ended(makers.frame):
                    break
                clock.start()
                block = makers.next_latents()
                clock.stop()
                pipeline.push(block)
        if len(decoded) <= (makers.given is not None):
            raise StreamError("stream", "", "ended before its first block: nothing is written")
    marks = [began, *decoded] if makers.given is None else decoded  # the time that given frames take is not counted
    times = [end - start for start, end in pairwise(marks)]
    opened = 0 if makers.given is None else arm.backbone.num_frames(makers.given.shape[1])
    speed = makers.speed(sum(clock.seconds()), arm.backbone.num_frames(makers.frame) - opened)
    facts = facts | speed | {"batch": len(reels), "latent_frames": makers.frame, "given_frames": opened}
    return [_finish(reel, out, times, facts) for reel in reels]


class Blocks:
    """The frames of a batch, block after block; a multi-step teacher gives one block, its whole clip.

    Attributes:
        given: clean latents (B, F, C, H, W) that open the videos; they are not among the blocks.
    """

    def __init__(self, arm: Arm, videos: list[Video], latents: int | None, rule: SwitchRule) -> None:
        self.arm, self.rule, self.decoder = arm, rule, arm.decoder()
        self.prompts, self.seeds = [video.prompt for video in videos], [video.seed for video in videos]
        given = [video.given for video in videos if video.given is not None]
        self.given = torch.stack([each.latents_FCHW for each in given]) if given else None
        alone = bool(given) and given[0].first_frame_alone
        self.streamer = (
            arm.streamer(self.prompts, self.seeds, latents, self.given, first_frame_alone=alone)
            if arm.streams
            else None
        )
        if self.streamer is not None:
            self.given = self.streamer.spec.given
        self.clip, self._made = latents, 0

    @property
    def frame(self) -> int:
        """Latent frames made."""
        return self._made if self.streamer is None else self.streamer.frame

    def switch(self, prompts: list[str]) -> None:
        assert self.streamer is not None, "checked before: a teacher takes no switches"
        self.streamer.switch(self.arm.text(prompts), self.rule)

    def next_latents(self) -> torch.Tensor:
        """(B, F, C, H, W)."""
        if self.streamer is not None:
            return self.streamer.next_block()
        assert self.clip is not None, "checked before: a teacher's clip has a length"
        self._made = self.clip
        return self.arm.generate(self.prompts, self.seeds, self.clip)

    def frames(self, latents_BFCHW: torch.Tensor) -> np.ndarray:
        """The next latents as frames (B, T, H, W, C) in [0, 1]."""
        return self.decoder.push(latents_BFCHW).permute(0, 1, 3, 4, 2).cpu().numpy()

    def speed(self, loop_seconds: float, frames: int) -> dict[str, Any]:
        """How fast the loop alone was, decoding beside it, and under which conditions."""
        return {
            "loop_frames_per_second": len(self.prompts) * frames / loop_seconds,
            "window_full": False,  # timed from the first block on, before which the window is empty
            "decoder": self.arm.decoder_name,
            "device_name": device_name(self.arm.network.device),
            "warm_up_blocks": 0,
            **self.arm.acceleration.protocol(),
        }


def _finish(reel: Reel, out: Path, times: list[float], facts: dict[str, Any]) -> dict[str, Any]:
    """Contact sheet and sidecar of a finished video."""
    video, fps, tenth = reel.video, reel.file.fps, max(1, len(times) // 10)
    reel.write_sheet(out / f"{video.stem}.png")
    sidecar = {
        "video": str(reel.file.path),
        "prompt": video.prompt,
        "seed": video.seed,
        "frames": reel.file.frames,
        "fps": fps,
        "switches": [{"frame": frame, "seconds": frame / fps, "prompt": prompt} for frame, prompt in reel.prompts[1:]],
        "frames_per_second": facts["batch"] * (reel.file.frames - facts["given_frames"]) / sum(times),
        "first_block_seconds": times[0],
        "last_to_first_tenth": sum(times[-tenth:]) / sum(times[:tenth]),
        "peak_memory_bytes": peak_memory(),
        **({} if video.given is None else video.given.beside(out)),
        **facts,
    }
    write_json(out / f"{video.stem}.json", sidecar)
    return sidecar

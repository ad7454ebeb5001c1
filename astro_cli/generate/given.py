"""The frames that open a video: a picture (image to video), or a clip that is continued. From files to clean latents.

A picture is the first frame alone: a block of its own before the student's blocks. So is the last frame of a clip too
short for a block; a longer one gives whole blocks. Frames of its beginning that fill none are left out, so that it is
always its last frame that is continued.
Dimensions: B video, F latent frame, T frame, C channel, H, W rows and columns.
"""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from astro_cli.config.errors import StreamError
from astro_cli.media.decode import VideoError, frames, probe
from astro_cli.media.pictures import Fit, check_shape, fitted, read_picture
from astro_cli.media.video import Frame
from astro_cli.models import hashes

if TYPE_CHECKING:
    from astro_cli.generate.arm import Arm

LONGEST = 1024  # frames of a clip that are encoded at most: the last ones


@dataclass(frozen=True, eq=False)
class Given:
    """Clean latents that open a video.

    Attributes:
        latents_FCHW: F latent frames.
        first_frame_alone: the first of them is a block of its own.
        facts: where they are from, for a sidecar.
        frames: pixel frames that they show.
        continues: they are a clip, to which a length is added; a picture counts as the first frame of the length.
    """

    latents_FCHW: torch.Tensor
    first_frame_alone: bool
    facts: dict[str, Any]
    frames: int = 1
    continues: bool = False

    def beside(self, folder: Path) -> dict[str, Any]:
        """The facts for a sidecar in that folder: paths are relative to it."""
        paths = {key: os.path.relpath(self.facts[key], folder) for key in ("image", "continues") if key in self.facts}
        return {**self.facts, **paths}

    @property
    def latents(self) -> int:
        return self.latents_FCHW.shape[0]


def picture(arm: Arm, path: str | Path, fit: Fit = "exact") -> Given:
    """A picture as the first frame of an arm's videos.

    Raises:
        PictureFileError: no picture, or one of another aspect than the video's.
        StreamError: an arm that takes no first frame.
    """
    path = Path(path)
    refuse_teacher(arm, "--image", path)
    height, width = arm.pixels
    frame = read_picture(path)
    rows, columns, _ = frame.shape
    check_shape(path, rows, columns, height, width, fit)
    facts = {"image": str(path), "image_hash": hashes.digest(path), "fit": fit}
    return Given(_encoded(arm, [fitted(frame, height, width)]), True, facts)


def clip(arm: Arm, path: str | Path, fit: Fit = "exact") -> Given:
    """The end of a video file as the beginning of an arm's video, as much of it as the student sees at once.

    Raises:
        VideoError, PictureFileError: no video, a damaged one, or one of another frame rate or aspect.
        StreamError: an arm that continues no clip.
    """
    path = Path(path)
    refuse_teacher(arm, "--video", path)
    info, fps = probe(path), arm.backbone.fps
    if abs(info.fps - fps) > fps / 100:
        hint = f"write it again at {fps:g} frames per second"
        raise VideoError(path, "fps", f"found {info.fps:g}, the video continues it at {fps:g}", hint=hint)
    height, width = arm.pixels
    check_shape(path, info.height, info.width, height, width, fit)
    latents, alone = _whole(arm, info.frames)
    kept = deque[Frame](maxlen=arm.backbone.num_frames(latents))
    for _, frame in frames(path):
        kept.append(fitted(frame, height, width))
    if len(kept) < arm.backbone.num_frames(latents):
        what = f"damaged: {len(kept)} of {arm.backbone.num_frames(latents)} frames decode"
        raise VideoError(path, "", what)
    facts = {"continues": str(path), "continues_hash": hashes.digest(path), "fit": fit}
    return Given(_encoded(arm, list(kept)), alone, facts, len(kept), continues=True)


def _whole(arm: Arm, num_frames: int) -> tuple[int, bool]:
    """How many latents the end of a clip of so many frames gives, and whether the first of them is a block of its own:
    whole blocks if there is one, at most as many as the arm was trained on or LONGEST frames hold.
    """
    block, backbone = arm.card["video"]["block"], arm.backbone
    most = min(num_frames, LONGEST)
    fitting = backbone.num_latents(most)
    fitting -= backbone.num_frames(fitting) > most
    fitting = min(fitting, max(arm.card["video"]["frames"], block))
    if fitting >= block:
        return fitting // block * block, False
    return 1, True


def refuse_teacher(arm: Arm, option: str, path: Path) -> None:
    """Raises: StreamError: a multi-step teacher, which makes whole clips."""
    if not arm.streams:
        what = f"{arm.name} is a multi-step teacher and continues no frame"
        raise StreamError(option, str(path), what, hint="sample a student")


def _encoded(arm: Arm, pictures: list[Frame]) -> torch.Tensor:
    """(F, C, H, W) clean latents of a video of these frames from its beginning."""
    frames_THWC = torch.from_numpy(np.stack(pictures)).to(arm.network.device).float() / 255
    return arm.backbone.encode(frames_THWC.permute(0, 3, 1, 2)[None])[0].to(arm.network.device, torch.float32)

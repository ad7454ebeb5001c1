"""Batches of a user's video clips: decoded and encoded once, their latents kept on the disk.

The latents are `latents/<codec>/<form>/<video>.safetensors` below the cache folder (`astro/` in XDG_CACHE_HOME or
~/.cache): `codec` is a hash of the VAE's files, `form` what is taken of a video, `video` the sha256 of its file. So a
video that is moved or gets another prompt is not encoded again, and latents of another VAE are never taken.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from astro_cli.config.errors import CheckpointError, RecipeError
from astro_cli.media.clips import ClipForm, clip_frames, list_clips
from astro_cli.media.decode import VideoError
from astro_cli.models import hashes, weights
from astro_cli.models.backbone import Backbone
from astro_cli.models.shapes_backbone import codec_file
from astro_cli.models.tensor_files import header, open_safetensors
from astro_cli.models.vae import config_files, vae_files
from astro_cli.models.wan_backbone import wan_folder
from astro_cli.training.rendered_clips import ClipSource
from astro_cli.training.sources import SourceContext

SHOWN = 10  # videos that are left out and named
SAME = 0.004  # mean difference of pixels in [0, 1], one of 255 levels, below which two clips look alike
LATENTS = "latents"  # the tensor's name in its file
CHECKSUM = "sha256"  # in the file's header, of the tensor's bytes

T = TypeVar("T")
R = TypeVar("R")


def codec_hash(source: str | Path | None, backbone: str = "wan") -> str:
    """16 hex digits of the VAE's weights and configuration in a Wan folder, or of the embedded world's codec.

    Raises:
        CheckpointError: no such folder, or no VAE in it.
    """
    if backbone != "wan":
        return hashes.digest(codec_file(None if source is None else str(source)))
    folder = wan_folder(source)
    parts = [hashes.remembered(path) for path in (*vae_files(folder), *config_files(folder))]
    return hashlib.sha256("".join(parts).encode()).hexdigest()[: hashes.DIGEST_CHARACTERS]


@dataclass(frozen=True)
class LatentCache:
    """The files of latents made by one codec of clips taken in one form."""

    codec: str
    form: ClipForm

    def path(self, video: Path, change: str = "") -> Path:
        """Of a video as it is, or with its frames changed in the way that `change` names."""
        name = form_name(self.form)
        file = "-".join(part for part in (hashes.remembered(video), change) if part)
        return hashes.cache_file().parent / LATENTS / self.codec / name / f"{file}.safetensors"

    def encode(self, video: Path, backbone: Backbone, change: str = "", order: torch.Tensor | None = None) -> Path:
        """The file of a video's latents (F, C, H, W), made if it is not there whole.

        Args:
            change, order: the frame (T,) to show at each moment instead, and what that is called.

        Raises:
            VideoError: the video has no such frames, or shows about the same in that order.
        """
        path = self.path(video, change)
        if not whole(path):
            frames = clip_frames(video, self.form)
            pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)[None].float() / 255
            if order is not None:
                pixels = _reordered(video, pixels, order, change)
            write_checked(path, LATENTS, backbone.encode(pixels)[0])
        return path


def _reordered(video: Path, pixels_BTCHW: torch.Tensor, order: torch.Tensor, change: str) -> torch.Tensor:
    """The frames in another order. Raises: VideoError: nothing moves, so the order makes no difference."""
    changed = pixels_BTCHW[:, order]
    difference = (changed - pixels_BTCHW).abs().mean().item()
    if difference < SAME:
        what = f"nothing moves: {change.partition('-')[0]} changes pixels by {difference:.4f} of 1"
        raise VideoError(video, "", what)
    return changed


def form_name(form: ClipForm) -> str:
    """The name of a folder of what is made of clips in a form."""
    # "upright": earlier versions encoded a phone's videos as they are stored, which may be sideways
    return f"{form.frames}x{form.height}x{form.width}-{form.fps:g}fps-upright"


def whole(path: Path, name: str = LATENTS) -> bool:
    """Whether a file is there with its tensor and not cut short; only its header is read."""
    try:
        return name in open_safetensors(path)
    except CheckpointError:
        return False


def write_checked(path: Path, name: str, tensor: torch.Tensor) -> None:
    """A file with one tensor, and the sum of its bytes."""
    weights.write(path, {name: tensor}, {CHECKSUM: _sha256(tensor)})


def read_checked(path: Path, name: str = LATENTS) -> torch.Tensor:
    """The tensor of a file.

    Raises:
        CheckpointError: a damaged file.
    """
    tensor, written = weights.read(path)[name], header(path).get(CHECKSUM)
    if written is not None and written != _sha256(tensor):
        hint = "delete the file: it is made again from its video"
        raise CheckpointError(path, "", f"damaged: its {name} are not those that were written", hint=hint)
    return tensor


class CachedLatents:
    """Latents on the disk, each read when it is taken."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __getitem__(self, rows: list[int]) -> torch.Tensor:
        """(B, F, C, H, W) of these clips.

        Raises:
            CheckpointError: a damaged file.
        """
        return torch.stack([read_checked(self.paths[row]) for row in rows])


def _sha256(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.cpu().contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()


class VideoClipSource(ClipSource):
    """Encoded clips with their prompts from the user's videos; every process encodes its share.

    Args:
        source: a folder or manifest, see `astro_cli.media.clips`.
        progress: shows what is done, how many videos of how many.
        warn: prints which videos are left out, on the main process.

    Raises:
        RecipeError: no clip can be used.
    """

    def __init__(
        self,
        seed: int,
        backbone: Backbone,
        source: str,
        cache: LatentCache,
        accelerator: Accelerator,
        progress: Callable[[str, int, int], None],
        warn: Callable[[str], None],
    ) -> None:
        self.seed, self.backbone = seed, backbone
        clips = list_clips(source)
        videos = list(dict.fromkeys(clip.path for clip in clips))
        everyone = shared_work(videos, lambda video: _encoded(video, cache, backbone), accelerator, progress)
        faults = [(video, everyone[video][1]) for video in videos if everyone[video][0] is None]
        if faults and accelerator.is_main_process:
            warn(left_out(faults, len(videos)))
        kept = [(clip.prompt, latents) for clip in clips if (latents := everyone[clip.path][0]) is not None]
        if not kept:
            what = f"none of {len(videos)} videos can be used; {faults[0][0].name}: {faults[0][1]}"
            raise RecipeError(source, "clips", what)
        self.captions = [prompt for prompt, _ in kept]
        self.latents = CachedLatents([latents for _, latents in kept])
        self.moves = self.learned_PF = None

    @classmethod
    def make(cls, context: SourceContext) -> VideoClipSource:
        """The clips that a stage's `data` names, in the length, rate and size of the recipe's videos."""
        recipe, data, backbone = context.recipe, context.spec.data, context.backbone
        assert data.clips is not None, "checked with the recipe"
        frames, cell = backbone.num_frames(data.frames or recipe.video.frames), backbone.cell
        form = ClipForm(frames, recipe.video.fps, recipe.video.height * cell, recipe.video.width * cell)
        cache, callbacks = LatentCache(codec_hash(recipe.base.codec), form), (context.progress, context.warn)
        return cls(recipe.seed, backbone, data.clips, cache, context.accelerator, *callbacks).of(context)


def shared_work(
    items: Sequence[T],
    work: Callable[[T], R],
    accelerator: Accelerator,
    progress: Callable[[str, int, int], None],
) -> dict[T, R]:
    """What `work` makes of each item; every process does its share and gets all."""
    mine = items[accelerator.process_index :: accelerator.num_processes]
    done: list[tuple[T, R]] = []
    for number, item in enumerate(mine, 1):
        done.append((item, work(item)))
        progress("decoding and encoding clips", number, len(mine))
    return dict(gather_object(done))


def _encoded(video: Path, cache: LatentCache, backbone: Backbone) -> tuple[Path | None, str]:
    """A video's file of latents, or what is wrong with the video."""
    try:
        return cache.encode(video, backbone), ""
    except VideoError as error:
        return None, error.what


def left_out(faults: list[tuple[Path, str]], count: int) -> str:
    """One line that counts the videos that are left out and names the first ones."""
    named = "; ".join(f"{path.name}: {fault}" for path, fault in faults[:SHOWN])
    more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
    return f"{len(faults)} of {count} videos are left out: {named}{more}"

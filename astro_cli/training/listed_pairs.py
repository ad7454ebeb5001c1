"""Pairs of a user's videos: clips beside the same in another order of frames, or pairs that a file lists. Latents are
made once and kept on the disk (`training.video_clips`).
"""

from __future__ import annotations

from pathlib import Path

from astro_cli.config.errors import RecipeError
from astro_cli.core.frame_orders import frame_order
from astro_cli.core.rng import stream_seed
from astro_cli.media.clips import Clip, ClipForm, list_clips
from astro_cli.media.decode import VideoError
from astro_cli.media.pairs import list_pairs
from astro_cli.models import hashes
from astro_cli.spec import FormSpec, PairKind
from astro_cli.training.pair_sets import Pairs, pixels
from astro_cli.training.sources import SourceContext
from astro_cli.training.video_clips import CachedLatents, LatentCache, codec_hash, left_out, shared_work

Listed = tuple[str, Path, Path]  # prompt, and the files of both latents


class ListedPairs:
    """Pairs of each kind in a list; a row's seed says which of them it is, and the last ones may be held out.

    Args:
        source: what the pairs were read from, for errors.
    """

    def __init__(self, source: str, listed: dict[PairKind, list[Listed]]) -> None:
        self.source, self.listed, self.reserved = source, listed, 0

    def pairs(self, seeds: list[int], kinds: list[PairKind]) -> Pairs:
        lists = [self.listed[kind] for kind in kinds]
        return _read([pairs[seed % (len(pairs) - self.reserved)] for seed, pairs in zip(seeds, lists, strict=True)])

    def reserve(self, size: int) -> None:
        """Keep the last ones out of training.

        Raises:
            RecipeError: nothing would be left.
        """
        for kind, pairs in self.listed.items():
            if size >= len(pairs):
                what = f"found {size}, expected fewer than the pairs of kind {kind!r}, {len(pairs)}"
                raise RecipeError(self.source, "validation", what)
        self.reserved = size

    def validation(self, kind: PairKind, size: int) -> Pairs:
        return _read(self.listed[kind][-size:])


def _read(pairs: list[Listed]) -> Pairs:
    prompts, chosen, rejected = zip(*pairs, strict=True)
    rows = list(range(len(pairs)))
    return Pairs(list(prompts), CachedLatents(chosen)[rows], CachedLatents(rejected)[rows])


def perturbed_videos(context: SourceContext, form: FormSpec, kinds: tuple[PairKind, ...]) -> ListedPairs:
    """Every clip of `data.clips` beside the same in another order of frames, for each kind.

    Raises:
        RecipeError: no clip gives a pair of some kind.
    """
    source, seed = str(context.spec.data.clips), context.recipe.seed
    clips, cache = list_clips(source), _cache(context, form)
    wanted: list[tuple[PairKind, Clip]] = [(kind, clip) for kind in kinds for clip in clips]

    def encode(item: tuple[PairKind, Path]) -> tuple[Path, Path] | str:
        kind, video = item
        of_order = stream_seed(seed, kind, hashes.remembered(video))
        order = frame_order(kind, cache.form.frames, of_order)
        try:
            rejected = cache.encode(video, context.backbone, f"{kind}-{of_order:016x}", order)
            return cache.encode(video, context.backbone), rejected
        except VideoError as error:
            return error.what

    items: list[tuple[PairKind, Path]] = list(dict.fromkeys((kind, clip.path) for kind, clip in wanted))
    files = shared_work(items, encode, context.accelerator, context.progress)
    _warn(context, [(video, fault) for (_, video), fault in files.items() if isinstance(fault, str)], len(items))
    listed: dict[PairKind, list[Listed]] = {kind: [] for kind in kinds}
    for kind, clip in wanted:
        if not isinstance(both := files[kind, clip.path], str):
            listed[kind].append((clip.prompt, *both))
    return ListedPairs(source, _some(source, "clips", listed))


def file_pairs(context: SourceContext, form: FormSpec) -> ListedPairs:
    """The pairs of the file `data.pairs`.

    Raises:
        RecipeError: none of them can be used.
    """
    source, cache = str(context.spec.data.pairs), _cache(context, form)
    pairs = list_pairs(source)

    def encode(video: Path) -> Path | str:
        try:
            return cache.encode(video, context.backbone)
        except VideoError as error:
            return error.what

    videos = list(dict.fromkeys(video for pair in pairs for video in (pair.chosen, pair.rejected)))
    files = shared_work(videos, encode, context.accelerator, context.progress)
    _warn(context, [(video, fault) for video, fault in files.items() if isinstance(fault, str)], len(videos))
    usable: list[Listed] = []
    for pair in pairs:
        chosen, rejected = files[pair.chosen], files[pair.rejected]
        if isinstance(chosen, Path) and isinstance(rejected, Path):
            usable.append((pair.prompt, chosen, rejected))
    return ListedPairs(source, _some(source, "pairs", {"file": usable}))


def _cache(context: SourceContext, form: FormSpec) -> LatentCache:
    frames, height, width = pixels(form, context.backbone)
    codec = codec_hash(context.recipe.base.codec, context.backbone.name)
    return LatentCache(codec, ClipForm(frames, context.recipe.video.fps, height, width))


def _warn(context: SourceContext, faults: list[tuple[Path, str]], count: int) -> None:
    if faults and context.accelerator.is_main_process:
        context.warn(left_out(faults, count))


def _some(source: str, key: str, listed: dict[PairKind, list[Listed]]) -> dict[PairKind, list[Listed]]:
    for kind, pairs in listed.items():
        if not pairs:
            raise RecipeError(source, key, f"no pair of kind {kind!r} can be used; the warning above names the videos")
    return listed

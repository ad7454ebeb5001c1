"""Pairs of the embedded world: a rendered clip, and the same with its frames in another order, both then encoded."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from astro_cli.core.frame_orders import frame_order
from astro_cli.core.rng import stream_seed
from astro_cli.models.backbone import Backbone
from astro_cli.shapes.grammar import Scene, parse
from astro_cli.shapes.negatives import is_negative
from astro_cli.shapes.render import render
from astro_cli.spec import FormSpec, PairKind
from astro_cli.training.pair_sets import Pairs, pixels
from astro_cli.training.sources import draw_scene, layout_of

ENCODED_AT_ONCE = 32  # pairs


class RenderedPairs:
    """A pool of pairs of each kind, rendered and encoded once; a row's seed says which of them it is.

    Args:
        sizes: pairs of each kind.
        drop: chance that a caption leaves an attribute out; a scene whose caption then makes the changed clip no worse
            an answer is drawn again.
    """

    def __init__(
        self,
        seed: int,
        backbone: Backbone,
        form: FormSpec,
        sizes: Mapping[PairKind, int],
        drop: float,
        progress: Callable[[str, int, int], None],
    ) -> None:
        self.seed, self.backbone, self.form, self.drop = seed, backbone, form, drop
        done, total, self.pools = 0, sum(sizes.values()), dict[PairKind, Pairs]()
        for kind, size in sizes.items():
            self.pools[kind] = self._made(kind, "pair", size)
            done += size
            progress("rendering and encoding pairs", done, total)

    def pairs(self, seeds: list[int], kinds: list[PairKind]) -> Pairs:
        pools = [self.pools[kind] for kind in kinds]
        places = [seed % len(pool.prompts) for seed, pool in zip(seeds, pools, strict=True)]
        rows = list(zip(pools, places, strict=True))
        return Pairs(
            [pool.prompts[place] for pool, place in rows],
            torch.stack([pool.chosen[place] for pool, place in rows]),
            torch.stack([pool.rejected[place] for pool, place in rows]),
        )

    def reserve(self, size: int) -> None:
        """Those of validation are others anyway."""

    def validation(self, kind: PairKind, size: int) -> Pairs:
        return self._made(kind, "validation", size)

    def _made(self, kind: PairKind, use: str, size: int) -> Pairs:
        frames, height, _ = pixels(self.form, self.backbone)
        seeds = [stream_seed(self.seed, use, kind, row) for row in range(size)]
        drawn = [_scene(seed, kind, self.drop) for seed in seeds]
        scenes, parts = [scene for scene, _ in drawn], list[tuple[torch.Tensor, torch.Tensor]]()
        for start in range(0, size, ENCODED_AT_ONCE):
            rows = slice(start, start + ENCODED_AT_ONCE)
            layout = layout_of(scenes[rows], seeds[rows], self.backbone.world)
            chosen = render(scenes[rows], layout, frames, height)
            orders = torch.stack([frame_order(kind, frames, seed) for seed in seeds[rows]])
            rejected = chosen[torch.arange(len(chosen))[:, None], orders]
            parts.append((self.backbone.encode(chosen), self.backbone.encode(rejected)))
        sides = (torch.cat(side) for side in zip(*parts, strict=True))
        return Pairs([text for _, text in drawn], *sides)


def _scene(seed: int, kind: PairKind, drop: float) -> tuple[Scene, str]:
    """A scene and its caption of which the changed clip is a negative: the first of the seed's draws that is one."""
    attempt = 0
    while True:
        scene, text = draw_scene(stream_seed(seed, "attempt", attempt), drop)
        if is_negative(kind, scene, parse(text)):
            return scene, text
        attempt += 1

"""Where pairs of a preferred and a rejected clip come from: frames of clips in another order, rollouts of the policy
that rewards or a simulated rater rank, or a user's file.

A row's kind is drawn from its own seed, and the form of the clips (length and size) for the whole step. So pairs are
functions of (seed, stage, step, row) and, for rollouts, of the policy's weights.
Source: TeleBoost (arXiv 2602.07595), section 4.2; mixed forms: section 4.3.

**Deviations**: best and worst are ranked by the recipe's rewards in the place of an ensemble of language models.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import torch

from astro_cli.core.rng import stream, stream_seed
from astro_cli.objectives.base import Batch
from astro_cli.rewards.base import Reward
from astro_cli.spec import PAIR_KINDS, PERTURBED, ROLLED, FormSpec, PairKind, PairSpec, Recipe, StageSpec
from astro_cli.training.distributed import gather_rows, own_rows
from astro_cli.training.pair_sets import PairMaker, Pairs
from astro_cli.training.rendered_pairs import RenderedPairs
from astro_cli.training.rolled_pairs import RolledPairs
from astro_cli.training.scorers import load_scorers
from astro_cli.training.sources import PromptSource, SeededSource, SourceContext, refuse_samples, sample_seeds


class PairSource(SeededSource):
    """Every row of a step is a pair of one kind; all of a step have one form."""

    tables: ClassVar[tuple[str, ...]] = ("pairs",)
    metrics: dict[str, Any]

    @classmethod
    def make(cls, context: SourceContext) -> PairSource:
        return cls(context)

    def __init__(self, context: SourceContext) -> None:
        assert context.spec.pairs is not None, "checked with the recipe"
        self.of(context)
        self.spec, self.metrics = context.spec.pairs, {}
        self.forms = forms_of(context.recipe, self.spec)
        device, scorers = context.run_context.device, self.spec.scorers
        rewards = load_scorers(self.spec.scored, context.backbone, device, scorers)  # for all forms
        self.makers = [_makers(context, self.spec, form, rewards) for form in self.forms]

    @classmethod
    def check(cls, recipe: Recipe, stage: StageSpec, key: str) -> None:
        refuse_samples(stage, key)
        if stage.pairs is None:
            raise ValueError(f"{key}.pairs: missing, {stage.kind} learns from pairs of a preferred and a rejected clip")
        _check_data(recipe, stage, stage.pairs, key)
        _check_forms(recipe, stage.pairs, key)

    @classmethod
    def check_files(cls, stage: StageSpec) -> None:
        super().check_files(stage)
        if stage.data.clips is not None:
            from astro_cli.media.clips import list_clips  # with PyAV, which few runs need

            list_clips(stage.data.clips)
        if stage.data.pairs is not None:
            from astro_cli.media.pairs import check_videos  # as above

            check_videos(stage.data.pairs)

    def draw(self, use: str, size: int) -> Batch:
        """`size` pairs of each kind in the first form, and as `others` in each further one; none is trained on."""
        for makers in self.makers:
            for maker in dict.fromkeys(makers.values()):
                maker.reserve(size)
        kinds: list[PairKind] = [kind for kind in self.spec.used for _ in range(size)]
        seeds = [stream_seed(self.context.recipe.seed, self.context.stage, use, row) for row in range(len(kinds))]
        batches = list[Batch]()
        for makers in self.makers:
            parts = [makers[kind].validation(kind, size) for kind in self.spec.used]
            batches.append(self._batch(seeds, kinds, Pairs.join(parts, torch.arange(len(kinds)))))
        return replace(batches[0], others=tuple(batches[1:]))

    def batches(self, step: int, role: str) -> list[Batch]:
        context = self.context
        seeds = sample_seeds(context.recipe.seed, context.stage, step, role, context.spec.batch)
        return [self._step(step, role, seeds[own_rows(context.accelerator, context.spec.batch)])]

    def batch(self, use: str, step: int, role: str, size: int) -> Batch:
        return self._step(step, role, sample_seeds(self.context.recipe.seed, use, step, role, size))

    def _step(self, step: int, role: str, seeds: list[int]) -> Batch:
        """The pairs of these rows of a step, all in the step's form."""
        context = self.context
        shared = stream_seed(context.recipe.seed, context.stage, step, role)
        place = int(torch.randint(len(self.forms), (), generator=stream(shared, "form")))
        kinds: list[PairKind] = [self._kind(seed) for seed in seeds]
        makers = self.makers[place]
        parts, rows = list[Pairs](), list[int]()
        for maker in dict.fromkeys(makers.values()):
            own = [row for row, kind in enumerate(kinds) if makers[kind] is maker]
            if own:
                parts.append(maker.pairs([seeds[row] for row in own], [kinds[row] for row in own]))
                rows += own
        self._describe(place)
        return self._batch(seeds, kinds, Pairs.join(parts, torch.tensor(rows)), step / context.spec.steps, shared)

    def _kind(self, seed: int) -> PairKind:
        """A row's kind, by the kinds' shares."""
        used = self.spec.used
        shares = torch.tensor([self.spec.kinds[kind] for kind in used])
        return used[int(torch.multinomial(shares, 1, generator=stream(seed, "kind")))]

    def _batch(
        self, seeds: list[int], kinds: list[PairKind], pairs: Pairs, progress: float = 0.0, shared: int = 0
    ) -> Batch:
        return Batch(
            seeds,
            pairs.prompts,
            text_BMD=self.context.backbone.encode_text(pairs.prompts),
            latents_BFCHW=pairs.chosen,
            rejected_BFCHW=pairs.rejected,
            pair_kind_B=torch.tensor([PAIR_KINDS.index(kind) for kind in kinds]),
            shared=shared,
            progress=progress,
        )

    def _describe(self, place: int) -> None:
        """What the step's pairs were: their form, and for rollouts means over those of all processes."""
        form = self.forms[place]
        self.metrics = {"pairs/frames": float(form.frames), "pairs/height": float(form.height)}
        rolled = next((maker for maker in self.makers[place].values() if isinstance(maker, RolledPairs)), None)
        if rolled is None:
            return
        names = ("pairs/reward_gap", "pairs/rater_gap", "pairs/flipped")
        own = torch.tensor([[rolled.totals.get(name, (0.0, 0)) for name in names]])
        totals = gather_rows(self.context.accelerator, own).sum(0).tolist()
        rolled.totals.clear()
        self.metrics |= {name: total / pairs for name, (total, pairs) in zip(names, totals, strict=True) if pairs}


def forms_of(recipe: Recipe, spec: PairSpec) -> tuple[FormSpec, ...]:
    """The forms of a stage's clips: its own, or the recipe's video."""
    video = recipe.video
    return spec.forms or (FormSpec(frames=video.frames, height=video.height, width=video.width),)


def _makers(context: SourceContext, spec: PairSpec, form: FormSpec, rewards: list[Reward]) -> dict[PairKind, PairMaker]:
    """What makes the pairs of each kind in a form."""
    makers = dict[PairKind, PairMaker]()
    perturbed: tuple[PairKind, ...] = tuple(kind for kind in spec.used if kind in PERTURBED)
    if perturbed:
        maker = _perturbed(context, spec, form, perturbed)
        for kind in perturbed:
            makers[kind] = maker
    if any(kind in ROLLED for kind in spec.used):
        rolled = RolledPairs(context, form, rewards)
        for kind in ROLLED:
            makers[kind] = rolled
    if "file" in spec.used:
        from astro_cli.training.listed_pairs import file_pairs  # with PyAV and diffusers, which few runs need

        makers["file"] = file_pairs(context, form)
    return makers


def _perturbed(context: SourceContext, spec: PairSpec, form: FormSpec, kinds: tuple[PairKind, ...]) -> PairMaker:
    data, backbone = context.spec.data, context.backbone
    if backbone.name != "shapes":
        from astro_cli.training.listed_pairs import perturbed_videos  # as above

        return perturbed_videos(context, form, kinds)
    total = sum(spec.kinds[kind] for kind in kinds)
    sizes: dict[PairKind, int] = {kind: max(1, round(data.pool * spec.kinds[kind] / total)) for kind in kinds}
    return RenderedPairs(context.recipe.seed, backbone, form, sizes, data.drop, context.progress)


def _check_data(recipe: Recipe, stage: StageSpec, spec: PairSpec, key: str) -> None:
    """Refuse files that no kind reads, and kinds without what they are made of."""
    data, on_wan = stage.data, recipe.backbone == "wan"
    perturbed = [kind for kind in spec.used if kind in PERTURBED]
    if perturbed and on_wan and data.clips is None:
        what = "missing, a folder of videos with prompts, or a manifest.jsonl"
        raise ValueError(f"{key}.data.clips: {what}: pairs of kind {perturbed[0]!r} on Wan are made of them")
    if data.clips is not None and not (perturbed and on_wan):
        what = "expected none: no kind of pair is made of them"
        raise ValueError(f"{key}.data.clips: found {data.clips!r}, {what}")
    if "file" in spec.used and data.pairs is None:
        raise ValueError(f"{key}.data.pairs: missing, pairs of kind 'file' are read from it: JSON lines")
    if data.pairs is not None and "file" not in spec.used:
        what = f"found {data.pairs!r}, expected none: give {key}.pairs.kinds.file a share"
        raise ValueError(f"{key}.data.pairs: {what}")
    if "rater" in spec.used and on_wan:
        what = "found a share on Wan, the simulated rater knows the embedded world only: give people's verdicts"
        raise ValueError(f"{key}.pairs.kinds.rater: {what} as data.pairs")
    rolled = [kind for kind in spec.used if kind in ROLLED]
    if rolled:
        PromptSource.check(recipe, stage.model_copy(update={"data": data.model_copy(update={"clips": None})}), key)
    elif data.prompts is not None or data.captions is not None:
        name = "prompts" if data.prompts is not None else "captions"
        raise ValueError(f"{key}.data.{name}: found {getattr(data, name)!r}, expected none: no kind of pair reads it")


def _check_forms(recipe: Recipe, spec: PairSpec, key: str) -> None:
    """Refuse forms that the network or the world does not have."""
    block = 1 if recipe.bidirectional else recipe.video.block
    (rows, columns), world = recipe.model.patch, recipe.backbone == "shapes"
    for place, form in enumerate(spec.forms):
        for name, of in (("frames", block), ("height", rows), ("width", columns)):
            if (value := getattr(form, name)) % of:
                raise ValueError(f"{key}.pairs.forms.{place}.{name}: found {value}, expected a multiple of {of}")
        if world and form.height != form.width:
            what = f"found {form.width}, expected the height ({form.height}): the embedded world is square"
            raise ValueError(f"{key}.pairs.forms.{place}.width: {what}")
    for form in forms_of(recipe, spec):
        if form.frames < 2 and any(kind in PERTURBED for kind in spec.used):
            raise ValueError(f"{key}.pairs.forms: found clips of one frame, whose frames have one order")

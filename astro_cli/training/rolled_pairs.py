"""Pairs of two rollouts of the policy: the best and the worst of a group by rewards, or the two that a simulated rater
judges.

Dimensions: P prompt, G clip of a prompt.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from astro_cli.config.errors import RecipeError
from astro_cli.core.preference import best_and_worst, rated_pair
from astro_cli.core.rng import stream_seed
from astro_cli.rewards.base import Reward
from astro_cli.shapes.rater import OverallScore
from astro_cli.spec import BARE, ExperienceSpec, FormSpec, PairKind
from astro_cli.training.clips import Clips, Roller
from astro_cli.training.pair_sets import Pairs
from astro_cli.training.sources import SourceContext, draw_scene, prompt_lines


class RolledPairs:
    """A group of clips per row, from the policy as it is, of which two are taken; `rewards` rank those of a group.

    `totals` are of the last pairs, a sum by metric and the pairs it is over: gaps of their scores, and verdicts that a
    rater turned round.

    Raises:
        RecipeError: clips too short for a reward.
    """

    def __init__(self, context: SourceContext, form: FormSpec, rewards: list[Reward]) -> None:
        assert context.spec.pairs is not None, "checked with the recipe"
        self.context, self.spec, self.totals = context, context.spec.pairs, dict[str, tuple[float, int]]()
        self.lines = prompt_lines(context.spec.data)
        here, backbone, spec = context.run_context, context.backbone, self.spec
        self.shape = (form.frames, here.latent_shape[0], form.height, form.width)
        self.rewards = rewards
        raters: list[Reward] = [OverallScore(backbone.world.pace)] if "rater" in spec.used else []
        frames = backbone.num_frames(form.frames)
        for reward in self.rewards + raters:
            if frames < reward.num_frames_min:
                what = f"scores clips of {reward.num_frames_min} frames or more, found clips of {frames}"
                raise RecipeError(context.recipe.name, f"stages.{context.stage}.pairs.forms", f"{reward.key}: {what}")
        rolled = ExperienceSpec(prompts=1, group=spec.group, rewards=dict(spec.rewards), parallel=spec.parallel)
        shaped = replace(here, frames=form.frames, latent_shape=self.shape[1:])
        self.rollers = {}
        for kind, scorers in (("group", self.rewards), ("rater", raters)):
            for role in ("student", BARE):
                self.rollers[kind, role] = Roller(rolled, shaped, backbone, scorers, role=role)

    def pairs(self, seeds: list[int], kinds: list[PairKind]) -> Pairs:
        """Both kinds in turn; their rows keep their order."""
        self.totals, parts, rows = {}, list[Pairs](), list[int]()
        for kind in dict.fromkeys(kinds):
            own = [row for row, other in enumerate(kinds) if other == kind]
            parts.append(self._made(kind, [seeds[row] for row in own], "student"))
            rows += own
        return Pairs.join(parts, torch.tensor(rows))

    def reserve(self, size: int) -> None:
        """Those of validation are others anyway."""

    def validation(self, kind: PairKind, size: int) -> Pairs:
        """Of the reference, which does not change while the policy does; `totals` leave them out."""
        seeds = [stream_seed(self.context.recipe.seed, "validation", kind, row) for row in range(size)]
        pairs = self._made(kind, seeds, BARE)
        self.totals.clear()  # a process without rolled rows in its first step would else report these
        return pairs

    def _made(self, kind: PairKind, owners: list[int], role: str) -> Pairs:
        group = self.spec.group
        prompts = [self._prompt(seed) for seed in owners]
        repeated = [prompt for prompt in prompts for _ in range(group)]
        seeds = [stream_seed(seed, "member", member) for seed in owners for member in range(group)]
        text = self.context.backbone.encode_text(prompts).repeat_interleave(group, 0)
        clips = self.rollers[kind, role].sequences(repeated, seeds, text.to(self.context.run_context.device))
        chosen, rejected = self._group(clips) if kind == "group" else self._rated(clips, owners)
        latents = clips.latents.reshape(len(owners), group, *clips.latents.shape[1:])
        rows = torch.arange(len(owners))
        return Pairs(prompts, latents[rows, chosen], latents[rows, rejected])

    def _prompt(self, seed: int) -> str:
        if self.lines is None:
            return draw_scene(seed, self.context.spec.data.drop)[1]
        return self.lines[seed % len(self.lines)]

    def _group(self, clips: Clips) -> tuple[torch.Tensor, torch.Tensor]:
        spec, scores = self.spec, {key: self._grouped(value) for key, value in clips.scores.items()}
        total = torch.stack([weight * scores[key] for key, weight in spec.rewards.items()]).sum(0)
        overlap = None if spec.overlap is None else scores[spec.overlap]
        chosen, rejected = best_and_worst(total, overlap, spec.overlap_most)
        rows = torch.arange(len(total))
        self._count("pairs/reward_gap", total[rows, chosen] - total[rows, rejected])
        return chosen, rejected

    def _rated(self, clips: Clips, owners: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        rater, score = self.spec.rater, self._grouped(clips.scores[OverallScore.key])
        chosen, rejected, flipped = rated_pair(score, owners, rater.temperature, rater.flips, rater.tie)
        rows = torch.arange(len(score))
        self._count("pairs/rater_gap", score[rows, chosen] - score[rows, rejected])
        self._count("pairs/flipped", flipped.float())
        return chosen, rejected

    def _count(self, name: str, value_B: torch.Tensor) -> None:
        self.totals[name] = (value_B.sum().item(), len(value_B))

    def _grouped(self, value: torch.Tensor) -> torch.Tensor:
        return value.reshape(-1, self.spec.group).cpu()

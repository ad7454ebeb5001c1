"""What an RL step learns from: groups of clips by the old policy, their rewards, the credit each clip gets. Knows no loss."""

from __future__ import annotations

import importlib

import torch
from accelerate import Accelerator

from astro_cli.config.errors import RecipeError, RunError
from astro_cli.core.rng import stream, stream_seed
from astro_cli.models.backbone import Backbone
from astro_cli.objectives.base import Batch, Setting
from astro_cli.recipe import ExperienceSpec, resolve_kind
from astro_cli.rewards.base import Reward
from astro_cli.rewards.shapes import REWARDS
from astro_cli.rollout.streaming import StreamSpec, generate
from astro_cli.training.distributed import own_rows
from astro_cli.training.sources import PromptSource

QUANTILES = (0.1, 0.5, 0.9)
ZERO_VARIANCE = 1e-6  # a group whose rewards differ by less teaches nothing


class ExperienceSource:
    """Collects one step's batches; every process rolls out its own whole groups, rewards are gathered before they are normalised."""

    def __init__(
        self, spec: ExperienceSpec, prompts: PromptSource, setting: Setting, backbone: Backbone, accelerator: Accelerator, stage: str
    ) -> None:
        self.spec, self.prompts, self.setting, self.backbone = spec, prompts, setting, backbone
        self.accelerator, self.stage = accelerator, stage
        self.rewards: list[tuple[Reward, float]] = [(REWARDS[key](), weight) for key, weight in spec.rewards.items() if weight]
        for reward, _ in self.rewards:
            if setting.frames < reward.num_frames_min:
                what = f"scores clips of {reward.num_frames_min} frames or more, the recipe's have {setting.frames}"
                raise RecipeError("video.frames", reward.key, what)
        advantage = importlib.import_module(f"astro_cli.advantages.{spec.advantage['kind']}")
        self.advantage = advantage.Advantage(resolve_kind("advantages", spec.advantage, "advantage"))
        self.stream = StreamSpec(setting.steps, setting.block, setting.latent_shape, setting.cache)
        self.metrics: dict[str, float] = {}

    def batch(self, use: str, step: int, role: str, size: int) -> Batch:
        return self.prompts.batch(use, step, role, size)

    def collect(self, step: int) -> list[Batch]:
        """This process's batches of the step: rolled out, scored, each group's members dealt out over the step's updates."""
        group = self.spec.group
        asked = self.prompts.batch(self.stage, step, "prompts", self.spec.prompts)
        mine = own_rows(self.accelerator, self.spec.prompts)
        prompts = [prompt for prompt in asked.prompts[mine] for _ in range(group)]
        seeds = [stream_seed(seed, "member", member) for seed in asked.seeds[mine] for member in range(group)]
        text = self.backbone.encode_text(prompts).to(self.setting.device)
        latents, scores = self._roll_out(prompts, seeds, text)
        total_PG = torch.stack([scores[reward.key] * weight for reward, weight in self.rewards]).sum(0).reshape(-1, group)
        credit = self.advantage.credit(self._gather(total_PG), {})[mine].flatten()
        self.metrics = self._describe(scores, total_PG, credit)
        orders = [torch.randperm(group, generator=stream(seed, "shuffle")) + row * group for row, seed in enumerate(asked.seeds[mine])]
        batches = []
        for part in torch.stack(orders).chunk(self.spec.updates, dim=1):  # every update sees every prompt, whichever process holds it
            rows = part.flatten()
            batches.append(
                Batch([seeds[i] for i in rows], [prompts[i] for i in rows], text_BMD=text[rows], latents_BFCHW=latents[rows], credit_B=credit[rows])
            )
        return batches

    def _roll_out(self, prompts: list[str], seeds: list[int], text: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Clips of the old policy and their scores, `parallel` clips at a time."""
        size = self.spec.parallel or len(seeds)
        latents: list[torch.Tensor] = []
        scores: list[dict[str, torch.Tensor]] = []
        for start in range(0, len(seeds), size):
            rows = slice(start, start + size)
            with self.setting.section("rollout"), self.setting.roles.use("old") as policy:
                latents.append(generate(policy, text[rows], seeds[rows], self.stream, self.setting.frames))
            with self.setting.section("reward"):
                scores.append(self._score(latents[-1], prompts[rows]))
        return torch.cat(latents), {key: torch.cat([part[key] for part in scores]) for key in scores[0]}

    def _score(self, latents: torch.Tensor, prompts: list[str]) -> dict[str, torch.Tensor]:
        frames = self.backbone.decode(latents).float()
        scores = {reward.key: reward.score(frames, prompts).float() for reward, _ in self.rewards}
        for key, value in scores.items():
            if value.shape != (len(prompts),) or not bool(value.isfinite().all()):
                bad = f"shape {tuple(value.shape)}" if value.shape != (len(prompts),) else f"{int((~value.isfinite()).sum())} non-finite scores"
                raise RunError("reward", key, f"{bad} for {len(prompts)} clips", hint="the run can be resumed from its last checkpoint")
        return scores

    def _gather(self, value: torch.Tensor) -> torch.Tensor:
        gathered = self.accelerator.gather(value.to(self.accelerator.device))
        assert isinstance(gathered, torch.Tensor)
        return gathered.to(value.device)

    def _describe(self, scores: dict[str, torch.Tensor], total_PG: torch.Tensor, credit: torch.Tensor) -> dict[str, float]:
        everyone = self._gather(total_PG).flatten()
        metrics = {f"reward/{key}": self._gather(value).mean().item() for key, value in scores.items()}
        metrics["reward/total"] = everyone.mean().item()
        metrics |= {f"reward/q{int(q * 100)}": everyone.quantile(q).item() for q in QUANTILES}
        metrics["reward/zero_variance_groups"] = (total_PG.std(1) < ZERO_VARIANCE).float().mean().item()
        metrics["advantage/std"] = credit.std().item()
        return metrics

"""Group relative policy optimisation: a clipped policy gradient on the sampler's own steps, of a bidirectional policy
with an SDE sampler or of a streaming student, whose re-noise step is a Gaussian policy already.

    rho_i = exp( mean_p log pi_theta(x'_i | x_i)(p) - log pi_old(x'_i | x_i)(p) )
    L = mean_i max( -A_i rho_i, -A_i clip(rho_i, 1 - c, 1 + c) ) + beta mean |mu - mu_ref|^2 / (2 std^2)

A step is one transition of the sampler; the last one has no density and is never trained. With a map M of credit,
`ratio = "sample"` weighs log rho by it, mean_p M(p) log rho(p). `ratio = "position"` has a ratio for each latent frame
and position p, the sum of its channels' log rho, clips it there, and takes A M(p) (ViPO).

`guard` is GRPO-Guard's ratio, log rho^ = std (log rho + |mu - mu_old|^2 / (2 std^2)), without bias and of one scale at
all steps. `weights` weighs the steps' losses: "tempflow" by w_k = std_k over its mean, "guard" by GRPO-Guard's
1 / |ds|, and for `dance` (1 + eta^2 (1 - s) / (2 s)) / |ds|.

The old policy is stored with the rollout: means and deviations of its steps, so a step costs one forward. A streaming
student denoises a clip given the clean blocks before it (and the history it continues) as theta_old sees them, as in
`nft`. A bidirectional policy is guided in training as in the rollout.
Source: TeleBoost (arXiv 2602.07595) section 3.1, Eq. 1; DanceGRPO (arXiv 2505.07818); Flow-GRPO (arXiv 2505.05470);
GRPO-Guard (arXiv 2510.22319) Eq. 8 and 12; TempFlow-GRPO (arXiv 2508.04324); ViPO (arXiv 2511.18719).
Dimensions: B sample, F latent frame, C channel, H, W (h, w) latent rows and columns, S sampling step, k trained step.

**Deviations**: adapters are trained, where DanceGRPO trains all weights. Advantages are clamped, maps are not. The
clip range may be calibrated (`clip = "calibrated"`): the quantile `clip_quantile` of |log rho| in the second update of
an epoch, the first whose ratios differ from 1. Adam's first steps are much longer than those after them, so it is that
of epoch `clip_epoch`; nothing is clipped before. TempFlow's branching rollouts are not built, only its weights. ViPO's
ratio is per position; the weighted log rho of a sample is ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import Field

from astro_cli.cache.context import FrozenContext
from astro_cli.config.base import Config as BaseConfig
from astro_cli.config.errors import RunError
from astro_cli.core.credit import CreditForm, Term
from astro_cli.core.flow import per_frame, sigma_of
from astro_cli.core.rng import stream
from astro_cli.models import lora
from astro_cli.objectives.base import Batch, LossOutput, RunContext
from astro_cli.objectives.base import Objective as BaseObjective
from astro_cli.rollout.grouped import ClipContext, HistoryMemory, clean_context
from astro_cli.sampling.ode import guided
from astro_cli.sampling.trajectory import Trajectory
from astro_cli.sampling.transition import Transition
from astro_cli.spec import Recipe, StageSpec

Weights = Literal["none", "tempflow", "guard"]
CLIPPED_TOO_MUCH = 0.9  # share of clipped ratios from which a step is warned of


class Config(BaseConfig):
    """What is trained of a rollout, and how.

    Attributes:
        clip: c, or "calibrated".
        clip_quantile, clip_epoch: of |log rho|, for a calibrated clip, and the epoch (from 0) that it is taken in.
        advantage_max: bound of |A|.
        fraction: share of the random steps that are trained, at least one.
        order: trained steps are drawn, or the first ones.
        choice: drawn for each sample, or for the samples of a group in an update, which then share them.
        ratio: of a sample, or with a map of each position.
        guard: GRPO-Guard's ratio.
        weights: of the steps' losses.
        old: log-probs of the old policy as stored, or replayed in the training's own geometry at the cost of a forward,
            where the precision does not give the same numbers twice.
        kl_weight: beta; 0: no penalty.
        tolerance: largest |log rho| that a first update may show; rollouts take faster products, which round otherwise.
    """

    clip: float | Literal["calibrated"] = "calibrated"
    clip_quantile: float = Field(default=0.8, gt=0, lt=1)
    clip_epoch: int = Field(default=3, ge=0)
    advantage_max: float = Field(default=5.0, gt=0)  # DanceGRPO
    fraction: float = Field(default=1.0, gt=0, le=1)
    order: Literal["random", "first"] = "random"
    choice: Literal["sample", "group"] = "sample"
    ratio: Literal["sample", "position"] = "sample"
    guard: bool = False
    weights: Weights = "none"
    old: Literal["stored", "replayed"] = "stored"
    kl_weight: float = Field(default=0.0, ge=0)
    tolerance: float = Field(default=1e-4, gt=0)


def log_ratio(new: Transition, old: Transition, *, guard: bool) -> torch.Tensor:
    """(B, F, C, H, W) log rho of every entry; with `guard` std (log rho + (mu - mu_old)^2 / (2 std^2)) instead."""
    plain = new.log_density() - old.log_density()
    if not guard:
        return plain
    std = per_frame(old.std_BF).to(plain.dtype)
    return std * (plain + (new.mean - old.mean).pow(2) / (2 * std.pow(2)))


def reduced(log_rho: torch.Tensor, places_BFhw: torch.Tensor | None, ratio: str) -> torch.Tensor:
    """Of every entry -> of a sample (B,), weighed by its map if there is one; or of a position (B, F, h, w)."""
    if ratio == "position":
        return log_rho.sum(2)
    return (log_rho if places_BFhw is None else places_BFhw[:, :, None] * log_rho).mean((1, 2, 3, 4))


def clipped_loss(advantage: torch.Tensor, log_rho: torch.Tensor, clip: float | None) -> torch.Tensor:
    """max(-A rho, -A clip(rho, 1 - c, 1 + c)), entry by entry; without a range -A rho."""
    rho = log_rho.exp()
    plain = -advantage * rho
    return plain if clip is None else torch.maximum(plain, -advantage * rho.clamp(1 - clip, 1 + clip))


def divergence(a: Transition, b: Transition) -> torch.Tensor:
    """(B,) KL divergence of two Gaussians of the same deviation, mean (mu_a - mu_b)^2 / (2 std^2)."""
    std = per_frame(a.std_BF).to(a.mean.dtype)
    return ((a.mean - b.mean).pow(2) / (2 * std.pow(2))).mean((1, 2, 3, 4))


def step_weights(kind: Weights, trajectory: Trajectory) -> torch.Tensor:
    """(S,) weight of each step's loss; of steps without a density 0."""
    sigma, std = sigma_of(trajectory.timesteps_K.double()), trajectory.std_S.double()
    random, before, after = std > 0, sigma[:-1], sigma[1:]
    if kind == "none":
        return random.double()
    if kind == "tempflow":
        return std / std[random].mean()
    eta = trajectory.kernel.level if trajectory.kernel.kind == "dance" else 0.0
    return random * (1 + eta**2 * (1 - before) / (2 * before)) / (before - after)


def chosen_steps(trajectory: Trajectory, seeds: list[int], fraction: float, order: str) -> torch.Tensor:
    """(B, K) the steps that each sample is trained on: K of the R random ones, none twice."""
    random = torch.tensor(trajectory.random)
    count = max(1, int(len(random) * fraction))
    if order == "first":
        return random[:count].expand(len(seeds), count)
    drawn = [torch.randperm(len(random), generator=stream(seed, "steps"))[:count] for seed in seeds]
    return random[torch.stack(drawn)]


class Objective(BaseObjective):
    needs = ("old", "ref")
    source = "astro_cli.training.experience:ExperienceSource"
    credits = ("sample", "map")
    wants_trajectory = True
    excludes = ("ema",)
    shards = True
    config: Config

    def __init__(self, config: Config, run_context: RunContext) -> None:
        super().__init__(config, run_context)
        self.clip = None if isinstance(config.clip, str) else config.clip
        self.memory = HistoryMemory()  # of theta_old, which stays for a step
        self.first: list[float] = []  # largest |log rho| of this epoch's first passes
        self.moved: list[float] = []  # quantile of |log rho| of this epoch's second update
        self.shares: list[float] = []  # of clipped ratios in this epoch's later passes

    @classmethod
    def takes(cls, config: Config) -> tuple[CreditForm, ...]:
        return ("map",) if config.ratio == "position" else cls.credits

    @classmethod
    def check(cls, config: Config, recipe: Recipe, stage: StageSpec, key: str) -> None:
        experience, kernel = stage.experience, recipe.sampler.kernel()
        assert experience is not None, "its source has checked that"
        own = f"{key}.objective"
        if not kernel.random:
            raise ValueError(f"sampler.kind: found {kernel.kind!r} without noise, the steps of a policy have a density")
        if len(recipe.sampler.steps) < 2:
            raise ValueError("sampler.steps: found 1 step, expected 2 or more: the last one is never trained")
        if config.clip == "calibrated" and experience.updates < 2:
            what = "found 'calibrated' with one update per epoch, whose ratios are all 1"
            raise ValueError(f"{own}.clip: {what}: give a number, or two updates")
        if isinstance(config.clip, float) and not 0 < config.clip < 1:
            raise ValueError(f"{own}.clip: found {config.clip}, expected a number between 0 and 1, or 'calibrated'")
        allowed = {"none": None, "tempflow": ("flow",), "guard": ("flow", "dance")}[config.weights]
        if allowed is not None and kernel.kind not in allowed:
            what = (
                f"found {config.weights!r} with sampler.kind {kernel.kind!r}, it is defined for {' and '.join(allowed)}"
            )
            raise ValueError(f"{own}.weights: {what}")
        if config.ratio == "position" and config.kl_weight:
            what = f"found {config.kl_weight} with ratio 'position', expected 0: no penalty per position is defined"
            raise ValueError(f"{own}.kl_weight: {what}")

    def loss(self, role: str, batch: Batch) -> Iterator[LossOutput]:
        """A loss per trained step, so that one step's graph is held at a time."""
        assert batch.trajectory is not None
        assert batch.credit, "experience comes with credit"
        seeds = batch.group_seeds if self.config.choice == "group" else batch.seeds
        assert seeds is not None
        steps_BK = chosen_steps(batch.trajectory, seeds, self.config.fraction, self.config.order)
        weight_S, context = step_weights(self.config.weights, batch.trajectory), self._context(batch)
        for step_B in steps_BK.unbind(1):
            step = batch.trajectory.pick(step_B)
            out = self._step_loss(role, batch, step, weight_S[step_B].to(step.x), context)
            yield LossOutput(out.loss / steps_BK.shape[1], out.metrics)

    def _step_loss(
        self,
        role: str,
        batch: Batch,
        step: Transition,
        weight_B: torch.Tensor,
        context: FrozenContext | ClipContext | None,
    ) -> LossOutput:
        old = step
        if self.config.old == "replayed":
            with torch.no_grad():
                old = self._replayed("old", batch, step, context)
        new = self._replayed(role, batch, step, context)
        entries = log_ratio(new, old, guard=self.config.guard)
        losses = [self._term_loss(term, entries, weight_B) for term in batch.credit]
        loss = torch.stack([loss for loss, _ in losses]).sum()
        metrics = self._metrics(batch, torch.cat([log_rho.detach().flatten() for _, log_rho in losses]), new, old)
        if self.config.kl_weight:
            with torch.no_grad():
                reference = self._replayed("ref", batch, step, context)
            penalty = divergence(new, reference).mean()
            loss, metrics["kl"] = loss + self.config.kl_weight * penalty, penalty.item()
        return LossOutput(loss, metrics)

    def _term_loss(
        self, term: Term, entries: torch.Tensor, weight_B: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss of one term of the credit, and its log rho, (B,) or (B, F, h, w)."""
        bound, places = self.config.advantage_max, term.map
        log_rho, advantage = reduced(entries, places, self.config.ratio), term.value.clamp(-bound, bound)
        if self.config.ratio == "position":
            assert places is not None, "checked with the recipe"
            advantage = advantage[:, None, None, None] * places
        loss = clipped_loss(advantage, log_rho, self.clip)
        return term.mean(weight_B * loss.reshape(len(weight_B), -1).mean(1)), log_rho

    def _replayed(
        self, role: str, batch: Batch, step: Transition, context: FrozenContext | ClipContext | None
    ) -> Transition:
        """The step under a role's policy: guided as the rollout was, or given the clean blocks before it."""
        text_BMD, here = batch.text_BMD, self.run_context
        assert text_BMD is not None
        with here.roles.use(role) as network:
            if context is None:
                velocity = guided(network, text_BMD, here.guidance, here.empty_text(text_BMD))
                return step.replay(velocity(step.x, step.timestep_BF))
            return step.replay(context.velocity(network, step.x, step.timestep_BF, network.encode_text(text_BMD)))

    def _context(self, batch: Batch) -> FrozenContext | ClipContext | None:
        """C_n as theta_old sees it; a bidirectional policy has none."""
        here, x0, text_BMD = self.run_context, batch.latents_BFCHW, batch.text_BMD
        if here.bidirectional:
            return None
        assert x0 is not None
        assert text_BMD is not None
        with torch.no_grad(), here.roles.use("old") as old:
            past = (batch.history_PFCHW, batch.group_B)
            return clean_context(old, old.encode_text(text_BMD), here.stream_spec(), x0, *past, memory=self.memory)

    @torch.no_grad()
    def _metrics(self, batch: Batch, log_rho: torch.Tensor, new: Transition, old: Transition) -> dict[str, float]:
        """Refuses ratios other than 1 in a first update; collects what calibrates the clip range."""
        size, rho = log_rho.abs().float(), log_rho.exp()
        if batch.update == 0:
            self._check_first(size.max().item())
        elif batch.update == 1:
            rank = max(1, math.ceil(self.config.clip_quantile * len(size)))
            self.moved.append(size.kthvalue(rank).values.item())
        outside = 0.0 if self.clip is None else ((rho - 1).abs() > self.clip).float().mean().item()
        if batch.update:
            self.shares.append(outside)
        return {
            "ratio": rho.mean().item(),
            "ratio_min": rho.min().item(),
            "ratio_max": rho.max().item(),
            "log_ratio": size.mean().item(),
            "clipped": outside,
            "kl_old": divergence(new, old).mean().item(),
        }

    def _check_first(self, largest: float) -> None:
        """Raises: RunError where a first update's ratios are not 1."""
        self.first.append(largest)
        if largest <= self.config.tolerance:
            return
        what = (
            f"|log rho| is {largest:.3g} in an epoch's first update, expected at most {self.config.tolerance:g}: the "
            "training pass does not give the rollout's numbers"
        )
        raise RunError("grpo", "ratio", what, hint="set objective.old = 'replayed', or a wider objective.tolerance")

    def after_step(self, step: int) -> dict[str, float]:
        """theta_old <- theta; the clip range where it is due."""
        mean = self.run_context.mean
        if self.clip is None and self.moved and step >= self.config.clip_epoch:
            self.clip = mean(sum(self.moved) / len(self.moved)) or None  # 0: no update yet (a rate that warms up)
        share = mean(sum(self.shares) / max(1, len(self.shares)))
        much = f"{share:.0%} of the ratios were clipped: lower the rate, or widen objective.clip"
        self.warning = much if share > CLIPPED_TOO_MUCH else ""
        metrics = {"ratio/first_error": mean(max(self.first, default=0.0)), "ratio/clip": self.clip or 0.0}
        for seen in (self.first, self.moved, self.shares):
            seen.clear()
        self.memory.forget()
        lora.blend(self.run_context.roles.modules["student"], "old", lora.TRAINED, 0.0)
        return metrics

    def state(self) -> dict[str, torch.Tensor]:
        """The calibrated clip range."""
        return (
            {}
            if self.clip is None or self.config.clip == self.clip
            else {"clip": torch.tensor(self.clip, dtype=torch.float64)}
        )

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        if "clip" in state:
            self.clip = state["clip"].item()

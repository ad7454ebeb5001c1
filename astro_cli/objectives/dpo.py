"""Direct preference optimisation of a flow model: the preferred clip of a pair becomes likelier, beside a reference,
than the rejected one.

    e_k = mean || v_theta(x_t^k, t, c) - (eps - x0^k) ||^2,   k = w (chosen), l (rejected); the same t and eps for both
    A = -[ (e_w - e_w^ref) - (e_l - e_l^ref) ]
    L = -log sigmoid(beta A) + w_sft e_w
    sigma = shift u / (1 + (shift - 1) u) in [sigma_min, sigma_max],   u uniform, one per clip or per student's block
    beta = beta_0 (a + (1 - a) (1 + cos(pi p)) / 2),   p the share of the stage's steps done, a = `anneal`

The gradient is that of +eta e_w - eta e_l with eta = beta sigmoid(-beta A), which is a number (Eq. 11, 12). So it can
be computed branch by branch (`gradient`):

    joint                one graph of both branches, one backward
    decoupled            two graphs, a backward each: as released, it frees gradients in between
    decoupled_recompute  errors without gradients give eta; then forward and backward of one branch after the other, so
                         that one graph is held at a time, for one more forward of each branch

The reference is the student without its adapters. A streaming student is given the clean blocks before each block.
Source: TeleBoost (arXiv 2602.07595) Eq. 6, sections 4.3 and 6.2, Eq. 10 to 13; Diffusion-DPO (arXiv 2311.12908);
Flow-DPO (arXiv 2501.13918).
Dimensions: B pair, F latent frame, C channel, H, W latent rows and columns, K kind of pair.

**Deviations**: adapters are trained. The paper starts beta high and anneals it "slightly", without a formula: the
cosine is ours, and so is the law of t. beta multiplies means over a clip's entries; Diffusion-DPO writes beta / 2
there. The released code has no reference and bounds A by 20. The paper calls decoupling free of cost; the forwards of
`decoupled_recompute` are not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch.nn import functional

from astro_cli.config.base import Config as BaseConfig
from astro_cli.core.flow import add_noise, shift_sigma, timestep_of, unshift_sigma, velocity_target
from astro_cli.core.stats import per_sample_mse
from astro_cli.objectives.ar_diffusion import forced_velocity
from astro_cli.objectives.base import Batch, LossOutput, RunContext
from astro_cli.objectives.base import Objective as BaseObjective
from astro_cli.spec import BARE, PAIR_KINDS, Recipe, StageSpec

KEPT = 0.9  # of the running means of both rises, per step
RISE = 0.01  # of the reference's error: what both errors may rise before it is said


class Config(BaseConfig):
    """The loss, its gradient, and what is watched.

    Attributes:
        beta: beta_0, per unit of squared error.
        anneal: a, share of beta_0 at the end; 1: constant.
        sigma_min, sigma_max: range of the noise levels.
        sft_weight: w_sft; 0: no such term.
        gradient: how the gradient is computed; it is the same.
        validation: pairs of each kind that are never trained on and whose margins are logged; 0: none.
        validation_every: steps between two measurements of them.
    """

    beta: float = Field(gt=0)
    anneal: float = Field(default=1.0, gt=0, le=1)
    sigma_min: float = Field(default=0.0, ge=0, lt=1)
    sigma_max: float = Field(default=1.0, gt=0, le=1)
    sft_weight: float = Field(default=0.0, ge=0)
    gradient: Literal["joint", "decoupled", "decoupled_recompute"] = "joint"
    validation: int = Field(default=0, ge=0, le=10**6)
    validation_every: int = Field(default=10, gt=0, le=10**9)

    @model_validator(mode="after")
    def _check(self) -> Config:
        if self.sigma_min >= self.sigma_max:
            raise ValueError(f"sigma_min: found {self.sigma_min}, expected less than sigma_max ({self.sigma_max})")
        return self


def margin(e_w: torch.Tensor, e_l: torch.Tensor, ref_w: torch.Tensor, ref_l: torch.Tensor) -> torch.Tensor:
    """A, the margin of log-likelihoods by their surrogate."""
    return -((e_w - ref_w) - (e_l - ref_l))


def dpo_loss(margin_B: torch.Tensor, beta: float) -> torch.Tensor:
    """(B,) -log sigmoid(beta A); log 2 where theta is the reference."""
    return functional.softplus(-beta * margin_B)


def branch_weight(margin_B: torch.Tensor, beta: float) -> torch.Tensor:
    """(B,) eta = beta sigmoid(-beta A), without gradients (Eq. 12)."""
    return beta * torch.sigmoid(-beta * margin_B.detach())


def annealed(beta: float, share: float, progress: float) -> float:
    """beta after this share of the steps: from beta to share * beta along a half cosine."""
    return beta * (share + (1 - share) * (1 + math.cos(math.pi * progress)) / 2)


@dataclass(frozen=True)
class _Branch:
    """One clip of each pair, noised, with the velocity it should have."""

    x0: torch.Tensor
    x_t: torch.Tensor
    target: torch.Tensor
    sigma_BF: torch.Tensor


@contextmanager
def keeping_nothing() -> Iterator[None]:
    """Passes that compute as in training but keep no tensor for backward.

    Those under `no_grad` take faster products that round otherwise, and eta multiplies the difference by beta.
    """
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: None, lambda nothing: nothing):
        yield


class Objective(BaseObjective):
    needs = (BARE,)
    source = "astro_cli.training.pairs:PairSource"
    excludes = ("ema", "relative")
    shards = True
    config: Config

    def __init__(self, config: Config, run_context: RunContext) -> None:
        super().__init__(config, run_context)
        self.validation: tuple[Batch, ...] = ()  # a batch per form of the clips
        self.seen = torch.zeros(len(PAIR_KINDS), 2, dtype=torch.float64)  # of this step: margins and pairs by kind
        self.step_rises = torch.zeros(3, dtype=torch.float64)  # of this step: e_w - ref, e_l - ref, ref; then sums
        self.rises = torch.zeros(4, dtype=torch.float64)  # their running sums, and how many steps these hold

    @classmethod
    def check(cls, config: Config, recipe: Recipe, stage: StageSpec, key: str) -> None:
        if recipe.lora is not None and recipe.lora.dropout:
            what = f"found {recipe.lora.dropout}, expected 0: both clips of a pair are compared under the same network"
            raise ValueError(f"lora.dropout: {what}")

    def prepare(self, batches: Callable[[str, int], Batch]) -> None:
        if self.config.validation:
            drawn = batches("validation", self.config.validation).to(self.run_context.device)
            self.validation = (drawn, *drawn.others)

    def loss(self, role: str, batch: Batch) -> Iterator[LossOutput]:
        """One loss of both branches, or one of each; their sum is the loss, whichever way."""
        chosen, rejected = self._branches(batch)
        beta, config = annealed(self.config.beta, self.config.anneal, batch.progress), self.config
        with torch.no_grad():
            ref_w, ref_l = (self._errors(BARE, batch, branch) for branch in (chosen, rejected))
        if config.gradient == "decoupled_recompute":
            with keeping_nothing():
                e_w = self._errors(role, batch, chosen).detach()
                e_l = self._errors(role, batch, rejected).detach()
        else:
            e_w, e_l = (self._errors(role, batch, branch) for branch in (chosen, rejected))
        margin_B = margin(e_w, e_l, ref_w, ref_l)
        metrics = self._watch(batch, margin_B.detach(), e_w.detach(), e_l.detach(), ref_w, ref_l) | {"beta": beta}
        preference = dpo_loss(margin_B, beta).mean()
        loss = preference + config.sft_weight * e_w.mean()
        metrics["preference_loss"] = preference.item()
        if config.gradient == "joint":
            del e_w, e_l, margin_B, preference
            yield LossOutput(loss, metrics)
            return
        eta, value = branch_weight(margin_B, beta), loss.detach()
        del loss, margin_B, preference
        if config.gradient == "decoupled_recompute":
            e_w = self._errors(role, batch, chosen)
        first = ((eta + config.sft_weight) * (e_w - e_w.detach())).mean()
        del e_w
        yield LossOutput(value + first, metrics)
        del first
        if config.gradient == "decoupled_recompute":
            e_l = self._errors(role, batch, rejected)
        second = (-eta * (e_l - e_l.detach())).mean()
        del e_l
        yield LossOutput(second)

    def _branches(self, batch: Batch) -> tuple[_Branch, _Branch]:
        """Both clips of every pair at the same noise levels, with the same noise."""
        chosen, rejected = batch.latents_BFCHW, batch.rejected_BFCHW
        assert chosen is not None, "pairs come with both clips"
        assert rejected is not None
        assert chosen.shape == rejected.shape, "pairs of one length and size"
        sigma_BF = self._sigma(batch, chosen.shape[1]).to(chosen)
        noise = batch.noise_like(chosen, "noise")
        sides = (
            _Branch(x0, add_noise(x0, noise, sigma_BF), velocity_target(x0, noise), sigma_BF)
            for x0 in (chosen, rejected)
        )
        return next(sides), next(sides)

    def _sigma(self, batch: Batch, frames: int) -> torch.Tensor:
        """(B, F) noise levels in the range, even before the flow shift: one per clip, or per block of a student."""
        here, shift = self.run_context, self.run_context.shift
        limits = torch.tensor([self.config.sigma_min, self.config.sigma_max], dtype=torch.float64)
        low, high = unshift_sigma(limits, shift).tolist()
        size = frames if here.bidirectional else here.block
        u = batch.uniform(frames // size, "sigma").repeat_interleave(size, 1)
        return shift_sigma(low + (high - low) * u, shift)

    def _errors(self, role: str, batch: Batch, branch: _Branch) -> torch.Tensor:
        """(B,) mean squared error of a role's velocity."""
        here, text_BMD = self.run_context, batch.text_BMD
        assert text_BMD is not None
        timestep_BF = timestep_of(branch.sigma_BF)
        with here.roles.use(role) as network:
            text = network.encode_text(text_BMD)
            if here.bidirectional:
                velocity = network(branch.x_t, timestep_BF, text)
            else:
                velocity = forced_velocity(network, branch.x_t, timestep_BF, text, branch.x0, here.block, here.cache)
            return per_sample_mse(velocity, branch.target)

    def _watch(
        self,
        batch: Batch,
        margin_B: torch.Tensor,
        e_w: torch.Tensor,
        e_l: torch.Tensor,
        ref_w: torch.Tensor,
        ref_l: torch.Tensor,
    ) -> dict[str, float]:
        """Metrics of a micro-batch; collects what `after_step` says of the step."""
        assert batch.pair_kind_B is not None
        kinds = batch.pair_kind_B.cpu()
        for kind, value in zip(kinds.tolist(), margin_B.tolist(), strict=True):
            self.seen[kind] += torch.tensor([value, 1.0], dtype=torch.float64)
        rises = [(e_w - ref_w).sum(), (e_l - ref_l).sum(), ref_w.sum()]
        self.step_rises += torch.stack(rises).double().cpu()
        return {
            "margin": margin_B.mean().item(),
            "accuracy": (margin_B > 0).float().mean().item(),
            "chosen_error": e_w.mean().item(),
            "chosen_rise": (e_w - ref_w).mean().item(),
            "rejected_rise": (e_l - ref_l).mean().item(),
        }

    def after_step(self, step: int) -> dict[str, float]:
        """Margins by kind, in training and on held-out pairs; a warning where both errors rise."""
        gather = self.run_context.gather
        seen = gather(self.seen[None].float().to(self.run_context.device)).double().sum(0).cpu()
        rises = gather(self.step_rises[None].float().to(self.run_context.device)).double().sum(0).cpu()
        self.seen.zero_()
        self.step_rises.zero_()
        metrics = _by_kind("margin", seen)
        count = seen[:, 1].sum().clamp(min=1)
        self.rises = KEPT * self.rises + torch.cat((rises / count, torch.ones(1, dtype=torch.float64)))
        chosen, rejected, reference = (self.rises[:3] / self.rises[3]).tolist()
        both = min(chosen, rejected) > RISE * reference
        self.warning = (
            f"both errors rise above the reference's, the chosen clips' by {chosen / reference:.1%}: lower the rate, "
            "raise objective.beta, or give objective.sft_weight"
            if both
            else ""
        )
        if self.validation and step % self.config.validation_every == 0:
            metrics |= self._validation_margins()
        return metrics

    def _validation_margins(self) -> dict[str, float]:
        """Margins of the held-out pairs by kind, of all forms and of each where there are several."""
        forms = [self._margins(batch) for batch in self.validation]
        places = {"validation/margin": 0, "validation/accuracy": 1}
        metrics = dict[str, float]()
        for name, place in places.items():
            metrics |= _by_kind(name, torch.stack([sums[place] for sums in forms]).sum(0))
            for batch, sums in zip(self.validation, forms, strict=True):
                if len(forms) > 1:
                    metrics |= {f"{key}/{_form(batch)}": value for key, value in _by_kind(name, sums[place]).items()}
        return metrics

    @torch.no_grad()
    def _margins(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Sums and counts (K, 2) of the margins of held-out pairs, and of those above 0; the same noise in every
        step.
        """
        assert batch.pair_kind_B is not None
        seen, right = (torch.zeros(len(PAIR_KINDS), 2, dtype=torch.float64) for _ in range(2))
        with self.run_context.autocast():
            for row in range(0, len(batch), self.config.validation):
                part = batch.rows(row, min(row + self.config.validation, len(batch)))
                branches = self._branches(part)
                errors = [self._errors(role, part, branch) for role in ("student", BARE) for branch in branches]
                margin_B = margin(*errors).double().cpu()
                assert part.pair_kind_B is not None
                kinds = part.pair_kind_B.cpu()
                for table, values in ((seen, margin_B), (right, (margin_B > 0).double())):
                    table.index_add_(0, kinds, torch.stack((values, torch.ones_like(values)), 1))
        return seen, right

    def state(self) -> dict[str, torch.Tensor]:
        """What the warning has seen."""
        return {"rises": self.rises}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        self.rises = state["rises"]


def _form(batch: Batch) -> str:
    """Latent frames, rows and columns of a batch's clips: "5x8x8"."""
    assert batch.latents_BFCHW is not None
    frames, _, height, width = batch.latents_BFCHW.shape[1:]
    return f"{frames}x{height}x{width}"


def _by_kind(name: str, sums_K2: torch.Tensor) -> dict[str, float]:
    """Means of the kinds that were seen, of sums and counts."""
    rows = zip(PAIR_KINDS, sums_K2.tolist(), strict=True)
    return {f"{name}/{kind}": total / count for kind, (total, count) in rows if count}

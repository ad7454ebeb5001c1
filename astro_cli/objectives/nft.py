"""Forward-process RL: negative-aware fine-tuning on scored clips. Astrolabe's loss; needs no likelihood and no
trajectory.

    r = clip(A / A_max, -1, 1) / 2 + 1/2
    v+ = (1 - beta) v_old + beta v_theta,   v- = (1 + beta) v_old - beta v_theta          (Eq. 1)
    L_policy = r || v+ - v_target ||^2 + (1 - r) || v- - v_target ||^2,   v_target = eps - x0     (Eq. 2)
    L = L_policy + lambda_KL 1/|M| sum_{i in M} || v_theta - v_ref ||^2                    (section 3.4)

M is all samples, or those at risk.

With `space = "x0"` all three squared norms are of x0 predictions, whose differences are sigma times those of
velocities.

t is drawn from the student's warped steps, per block. Every block is conditioned on the clean blocks before it (and on
the history a clip continues), through keys and values that theta_old computed once and all policies share: the cache
C_n, detached. With `context = "full"` theta computes its own, with gradients ("full back-propagation" of Table 4a);
`context = "released"` is the released code's pass without a cache.
Source: Astrolabe (arXiv 2603.17051) Eq. 1, 2, 4, Algorithms 1 and 2, Table S1; DiffusionNFT (arXiv 2509.16117);
Astrolabe's released code.

**Deviations** from the paper: Algorithm 1 line 27 writes x0 where Eq. 2 has v_target; Eq. 2 is followed. From the
released code: velocities (`space = "x0"` is the released one, which weights by sigma^2); warped timesteps (`warped =
false`), drawn per block (`draws = "released"`: one for a micro-batch); clean context and the student's own block size
(`context = "released"`: all frames noised, masked per single frame); theta_old by moving average with a fixed rate
(`old_rule = "released"`: a ramp). `adaptive` is DiffusionNFT's weighting without its constant factors 1 / beta and
A_max, only for Figure 8b: the paper argues against it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field, model_validator

from astro_cli.cache.context import FrozenContext, NoisedContext
from astro_cli.config.base import Config as BaseConfig
from astro_cli.config.errors import did_you_mean
from astro_cli.core.flow import (
    add_noise,
    per_frame,
    sigma_of,
    timestep_of,
    unshift_sigma,
    velocity_target,
    x0_from_velocity,
)
from astro_cli.core.reset import ResetRule
from astro_cli.core.stats import per_sample_mse
from astro_cli.models import lora
from astro_cli.models.wan.transformer import CausalWan, TextStates
from astro_cli.objectives.base import Batch, LossOutput, RunContext
from astro_cli.objectives.base import Objective as BaseObjective
from astro_cli.rollout.branches import check_sink
from astro_cli.rollout.grouped import ClipContext, HistoryMemory, clean_context
from astro_cli.spec import Recipe, StageSpec

ERROR_FLOOR = 1e-5  # DiffusionNFT: smallest mean |x0 error| the adaptive weighting divides by
SAME = (
    "the policy's velocities equal the old policy's in every pass of this epoch: the contrast of NFT vanishes "
    "(old_difference 0)"
)
ROUNDING = 1e-6  # mean difference of velocities of order 1 that passes with and without gradients have by rounding
RAMP, RAMP_MAX = 0.001, 0.5  # released: share of theta_old kept after the n-th step, min(.001 n, .5)


class Config(BaseConfig):
    """Interpolation strength beta, advantage bound A_max, share of theta_old kept per step (gamma), and the options of
    the ablations.

    Attributes:
        space: what the squared errors and the penalty are of; "x0" is the released one.
        adaptive: divide each squared x0 error by its own mean absolute error (Figure 8b).
        warped: draw t from the flow-shifted steps the student samples at; false is released.
        old_rule: theta_old's share after a step is `old_decay`, or the released ramp.
        draws: t and eps drawn per sample, or once for the samples of a group in an update; or, as released, eps per
        sample and one t for all blocks of all samples in a pass. The mean gradient is the same. Credits
            of a group sum to about zero, so the part of the gradient that a common eps causes cancels (ours; the paper
            does not say).
        context: whether gradients reach the context ("full") or stop at the clip ("detach"), Table 4a; or no clean
            context at all ("released").
        kl: no penalty, on all samples, or on those the rewards disagree on.
        kl_weight: lambda_KL.
        reference: theta_ref stays, is reset by Algorithm 1's rule, or by the released rule with its moving threshold.
        kl_threshold: tau_KL; the released rule's first threshold.
        kl_patience: K_max, epochs.
    """

    beta: float = Field(default=1.0, gt=0)
    advantage_max: float = Field(default=5.0, gt=0)
    old_decay: float = Field(default=0.9, ge=0, le=1)
    old_rule: Literal["average", "released"] = "average"
    space: Literal["velocity", "x0"] = "velocity"
    adaptive: bool = False
    warped: bool = True
    draws: Literal["sample", "group", "released"] = "sample"
    context: Literal["detach", "full", "released"] = "detach"
    kl: Literal["none", "uniform", "selective"] = "none"
    kl_weight: float = Field(default=1e-4, gt=0)  # Table S1
    reference: Literal["fixed", "reset", "released"] = "fixed"
    kl_threshold: float = Field(default=0.15, gt=0)  # released start; the paper gives none
    kl_patience: int = Field(default=15, gt=0)  # released

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        if self.adaptive and self.space != "x0":
            raise ValueError(
                f"adaptive: found true with space {self.space!r}, it weights errors of x0: expected space = 'x0'"
            )
        if self.reference != "fixed" and self.kl == "none":
            raise ValueError(
                f"reference: found {self.reference!r} with kl = 'none', nothing reads the reference: expected 'fixed'"
            )
        return self


def optimality(credit_B: torch.Tensor, advantage_max: float) -> torch.Tensor:
    """r = clip(A / A_max, -1, 1) / 2 + 1/2, in [0, 1]."""
    return (credit_B / advantage_max).clamp(-1, 1) / 2 + 0.5


def implicit_velocities(v_theta: torch.Tensor, v_old: torch.Tensor, beta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(v+, v-) of Eq. 1."""
    return (1 - beta) * v_old + beta * v_theta, (1 + beta) * v_old - beta * v_theta


def branch_error(
    v: torch.Tensor, v_target: torch.Tensor, sigma_BF: torch.Tensor | None = None, adaptive: bool = False
) -> torch.Tensor:
    """(B,) mean squared error of one branch: of velocities, or with `sigma_BF` of x0, whose error is
    sigma (v - v_target).

    `adaptive` divides it by the detached mean absolute error of the sample (DiffusionNFT).
    """
    if sigma_BF is None:
        return per_sample_mse(v, v_target)
    error = per_frame(sigma_BF) * (v - v_target)
    squared = per_sample_mse(error, torch.zeros_like(error))
    if not adaptive:
        return squared
    return squared / error.detach().double().abs().flatten(1).mean(1).clamp_min(ERROR_FLOOR).to(squared.dtype)


def policy_loss(
    v_theta: torch.Tensor,
    v_old: torch.Tensor,
    v_target: torch.Tensor,
    r_B: torch.Tensor,
    beta: float,
    sigma_BF: torch.Tensor | None = None,
    adaptive: bool = False,
) -> torch.Tensor:
    """(B,) loss of Eq. 2; squared norms are means over a sample's entries."""
    positive, negative = implicit_velocities(v_theta, v_old, beta)
    return r_B * branch_error(positive, v_target, sigma_BF, adaptive) + (1 - r_B) * branch_error(
        negative, v_target, sigma_BF, adaptive
    )


class Objective(BaseObjective):
    needs = ("old", "ref")
    source = "astro_cli.training.experience:ExperienceSource"
    excludes = ("ema",)
    shards = True
    config: Config

    def __init__(self, config: Config, run_context: RunContext) -> None:
        super().__init__(config, run_context)
        self.spec = run_context.stream_spec()
        plain = timestep_of(unshift_sigma(sigma_of(run_context.steps), run_context.shift))
        self.steps = run_context.steps if config.warped else plain
        self.reset = ResetRule(config.kl_threshold, config.kl_patience, released=config.reference == "released")
        self.penalties: list[float] = []  # of this step's passes
        self.differences: list[float] = []  # mean |v_theta - v_old| of this step's passes
        self.memory = HistoryMemory()  # of theta_old, which stays for a step
        if config.context == "full":
            check_sink(run_context.cache)

    @classmethod
    def check(cls, config: Config, recipe: Recipe, stage: StageSpec, key: str) -> None:
        experience = stage.experience
        assert experience is not None, "its source has checked that"
        if config.kl == "selective" and experience.primary is None:
            what = (
                "missing, a selective penalty needs the reward that is optimised, "
                f"{did_you_mean('', experience.rewards)}"
            )
            raise ValueError(f"{key}.experience.primary: {what}")
        if config.context == "released" and experience.clip:
            what = f"found {experience.clip}, expected 0: context = 'released' has no history"
            raise ValueError(f"{key}.experience.clip: {what}")

    def loss(self, role: str, batch: Batch) -> LossOutput:
        x0, config = batch.latents_BFCHW, self.config
        assert x0 is not None
        assert batch.credit, "experience comes with credit"
        drawn = self._drawn(batch)
        timestep_BF = self._timesteps(drawn, x0.shape[1]).to(x0.device)
        sigma_BF = sigma_of(timestep_BF)
        noise = drawn.noise_like(x0, "noise")
        x_t = add_noise(x0, noise, sigma_BF)
        v_theta, v_old, v_ref = self._velocities(role, batch, x0, x_t, timestep_BF)
        errors_of = None if config.space == "velocity" else sigma_BF
        target, r = velocity_target(x0, noise), [optimality(term.value, config.advantage_max) for term in batch.credit]
        losses = [policy_loss(v_theta, v_old, target, r_B, config.beta, errors_of, config.adaptive) for r_B in r]
        loss = torch.stack([term.mean(loss_B) for term, loss_B in zip(batch.credit, losses, strict=True)]).sum()
        metrics = self._metrics(v_theta.detach(), v_old, x_t, sigma_BF, torch.cat(r))
        if v_ref is not None:
            rows = self._penalised(batch)
            of_rows = None if errors_of is None else errors_of[rows]
            penalty = self._penalty(branch_error(v_theta[rows], v_ref, of_rows), batch, rows)
            loss = loss + config.kl_weight * penalty
            metrics["kl"] = penalty.item()
            self.penalties.append(metrics["kl"])
        self.differences.append(metrics["old_difference"])
        return LossOutput(loss, metrics)

    def _velocities(
        self, role: str, batch: Batch, x0: torch.Tensor, x_t: torch.Tensor, timestep_BF: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """v_theta, v_old and, where a penalty needs it, v_ref of the samples it weighs, all given C_n; gradients reach
        v_theta only.
        """
        roles, text_BMD = self.run_context.roles, batch.text_BMD
        assert text_BMD is not None
        v_ref = None
        with torch.no_grad(), roles.use("old") as old:
            text = old.encode_text(text_BMD)
            context = self.context(old, text, batch, x0)
            v_old = context.velocity(old, x_t, timestep_BF, text)
        if self.config.kl != "none":
            rows = self._penalised(batch)
            with torch.no_grad(), roles.use("ref") as ref:
                past = context.select(rows)
                v_ref = past.velocity(ref, x_t[rows], timestep_BF[rows], ref.encode_text(text_BMD[rows]))
        with roles.use(role) as network:
            text = network.encode_text(text_BMD)
            if self.config.context == "full":
                context = self.context(network, text, batch, x0, gradient=True)
            return context.velocity(network, x_t, timestep_BF, text), v_old, v_ref

    def _penalised(self, batch: Batch) -> torch.Tensor:
        """(N,) the samples that the penalty weighs: all, or those at risk; never none, so that every process computes
        the same passes.
        """
        if self.config.kl == "uniform":
            return torch.arange(len(batch))
        assert batch.risk_B is not None
        return batch.risk_B.nonzero().flatten() if bool(batch.risk_B.any()) else torch.zeros(1, dtype=torch.long)

    def context(
        self, network: CausalWan, text: TextStates, batch: Batch, x0: torch.Tensor, gradient: bool = False
    ) -> FrozenContext | ClipContext | NoisedContext:
        """The clean frames before every block as `network` sees them: a whole clip in one pass where that is enough,
        else block by block.
        """
        if self.config.context == "released":
            return NoisedContext(network, x0, self.run_context.cache.window)
        past = (batch.history_PFCHW, batch.group_B)
        return clean_context(network, text, self.spec, x0, *past, gradient=gradient, memory=self.memory)

    def _drawn(self, batch: Batch) -> Batch:
        """The batch as t and eps are drawn for it: from each sample's own stream, or from its group's."""
        if self.config.draws != "group":
            return batch
        assert batch.group_seeds is not None
        return replace(batch, seeds=batch.group_seeds)

    def _timesteps(self, batch: Batch, frames: int) -> torch.Tensor:
        """(B, F) distillation steps, one draw per block, or the first sample's for all."""
        if self.config.draws == "released":
            return (
                self.steps[int(batch.uniform(1, "timestep")[0, 0] * len(self.steps))].float().expand(len(batch), frames)
            )
        index = (batch.uniform(frames // self.run_context.block, "timestep") * len(self.steps)).long()
        return self.steps[index].float().repeat_interleave(self.run_context.block, 1)

    def _penalty(self, divergence_N: torch.Tensor, batch: Batch, rows: torch.Tensor) -> torch.Tensor:
        """1/|M| sum over M of the divergence from the reference, of the samples `rows` that the penalty weighs.

        The batch's weights hold 1/|M| of the whole update, so parts and processes add up to it.
        """
        if self.config.kl == "uniform":
            return divergence_N.mean()
        assert batch.risk_B is not None
        return (batch.risk_B[rows] * divergence_N).sum() / len(batch)

    @torch.no_grad()
    def _metrics(
        self, v_theta: torch.Tensor, v_old: torch.Tensor, x_t: torch.Tensor, sigma_BF: torch.Tensor, r: torch.Tensor
    ) -> dict[str, float]:
        x0 = x0_from_velocity(x_t, v_theta, sigma_BF)  # its norm: a mean over samples, so that parts add up
        return {
            "old_deviation": per_sample_mse(v_theta, v_old).mean().item(),
            "old_difference": (v_theta - v_old).abs().mean().item(),
            "x0_norm": per_sample_mse(x0, torch.zeros_like(x0)).sqrt().mean().item(),
            "r_clipped": ((r <= 0) | (r >= 1)).float().mean().item(),
        }

    def after_step(self, step: int) -> dict[str, float]:
        """theta_ref <- theta where it is due (Alg. 1, lines 34-37); theta_old <- gamma theta_old + (1 - gamma) theta
        (line 38).
        """
        student, metrics = self.run_context.roles.modules["student"], dict[str, float]()
        self._watch_contrast(step)
        if self.config.kl != "none":
            kl = self.run_context.mean(sum(self.penalties) / len(self.penalties))
            self.penalties.clear()
            reset = self.config.reference != "fixed" and self.reset.due(step, kl)
            if reset:
                lora.blend(student, "ref", lora.TRAINED, 0.0)
            metrics = {"kl/reset": float(reset), "kl/reset_threshold": self.reset.threshold}
        self.memory.forget()
        kept = self.config.old_decay if self.config.old_rule == "average" else min(RAMP * (step + 1), RAMP_MAX)
        lora.blend(student, "old", lora.TRAINED, kept)
        return metrics

    def _watch_contrast(self, step: int) -> None:
        """Warn where theta and theta_old gave the same velocities, up to rounding, in all passes of a step after the
        first: then v+ = v-.
        """
        passes = len(self.differences)
        same = passes > 0 and self.run_context.mean(sum(self.differences)) / passes < ROUNDING
        self.differences.clear()
        self.warning = SAME if same and step else ""

    def state(self) -> dict[str, torch.Tensor]:
        """When the reference was last reset, and its threshold."""
        return {} if self.config.reference == "fixed" else {"reset": self.reset.state()}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        if self.config.reference != "fixed":
            self.reset.load(state["reset"])

"""Distribution matching distillation on self-rollouts: Self-Forcing's objective. Critic and student take turns, at the
recipe's cadence.

    student   x = rollout of theta, random exit step, gradient on the exit step only
              g = (f - r) / mean|x - r|,   f, r = x0 of critic and teacher at x_t;   L = 1/2 || x - stopgrad(x - g) ||^2
    critic    L = || v_critic(x_t, t) - (eps - x) ||^2 on rollouts without gradient

Source: Self-Forcing (arXiv 2506.08009), section 3.3 and Algorithm 1; DMD (arXiv 2311.18828) Eq. 7-8; Self-Forcing's
released code.
Dimensions: B sample, F latent frame, C channel, H, W.

Deviations: cached keys and values are detached, as the paper says; in the released code the loss of a block reaches
earlier blocks' exit steps through the in-place cache. One exit step is drawn per global batch and shared by all blocks,
as released. sigma = t / 1000 exactly for both scores. The context pass sees x0 at t = 0 without noise. `guidance` is
the usual scale u + g (c - u): the released value 3.0 is 4 here; u is of the empty prompt, not of a negative one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from pydantic import Field

from astro_cli.config.base import Config as BaseConfig
from astro_cli.core.flow import add_noise, guide, shift_sigma, timestep_of, velocity_target, x0_from_velocity
from astro_cli.core.rng import stream as rng_stream
from astro_cli.models.wan.transformer import CausalWan, TextStates
from astro_cli.objectives.base import Batch, LossOutput, RunContext
from astro_cli.objectives.base import Objective as BaseObjective
from astro_cli.rollout.streaming import stream
from astro_cli.spec import Recipe, StageSpec
from astro_cli.spec.parts import Frames

NORMALIZER_FLOOR = 1e-6  # a student equal to the teacher would divide by zero


class Config(BaseConfig):
    """Range of sigma the scores are compared at, and the teacher's guidance.

    Attributes:
        rollout_frames: latent frames of a self-rollout; absent: `video.frames`. A student learns to leave frames behind
            where this is more than its window.
        sink_gradient: let gradients through the EMA of the sink (Reward Forcing, arXiv 2512.04678, section 3.4); for
            `cache.policy = "ema"`.
    """

    guidance: float = Field(default=4.0, ge=0)
    sigma_min: float = Field(default=0.02, gt=0, lt=1)  # Self-Forcing clamps t to [20, 980]
    sigma_max: float = Field(default=0.98, gt=0, lt=1)
    rollout_frames: Frames | None = None
    sink_gradient: bool = False


def dmd_gradient(x: torch.Tensor, real_x0: torch.Tensor, fake_x0: torch.Tensor) -> tuple[torch.Tensor, int]:
    """g = (f - r) / mean|x - r|, the mean per sample, and how many of its entries were not finite.

    Those entries are 0. All tensors are (B, F, C, H, W).

    **Deviations**: the released code calls `nan_to_num`, which makes an infinite entry the largest float instead of 0.
    """
    normalizer = (x - real_x0).abs().mean(dim=(1, 2, 3, 4), keepdim=True).clamp_min(NORMALIZER_FLOOR)
    gradient = (fake_x0 - real_x0) / normalizer
    finite = gradient.isfinite()
    return gradient.where(finite, 0.0), int((~finite).sum())


def dmd_loss(x: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """(B,) loss 1/2 mean || x - stopgrad(x - g) ||^2; its gradient with respect to x is g / (numel per sample)."""
    x, target = x.double(), (x - gradient).detach().double()
    return 0.5 * (x - target).pow(2).flatten(1).mean(1)


class FrozenText:
    """Text states of a network that does not change, kept while they are asked for again: of the empty prompt, and of a
    video that goes on.
    """

    def __init__(self) -> None:
        self._of: torch.Tensor | None = None
        self._states: TextStates | None = None

    @torch.no_grad()
    def of(self, network: CausalWan, text_BMD: torch.Tensor) -> TextStates:
        if self._states is None or self._of is None or not torch.equal(self._of, text_BMD):
            self._of, self._states = text_BMD, network.encode_text(text_BMD)
        return self._states


class Objective(BaseObjective):
    trains = ("student", "critic")
    needs = ("teacher",)
    source = "astro_cli.training.sources:PromptSource"
    shards = True
    config: Config

    def __init__(self, config: Config, run_context: RunContext) -> None:
        super().__init__(config, run_context)
        self.prompted, self.unprompted = FrozenText(), FrozenText()  # the teacher's text states

    @classmethod
    def check(cls, config: Any, recipe: Recipe, stage: StageSpec, key: str) -> None:
        if config.sink_gradient and (recipe.cache.policy != "ema" or recipe.cache.sink == 0):
            what = 'found true, expected false: only the sink of cache.policy = "ema" has an average to pass'
            raise ValueError(f"{key}.objective.sink_gradient: {what}")
        if (config.rollout_frames or 0) % recipe.video.block:
            what = f"found {config.rollout_frames}, expected a multiple of video.block ({recipe.video.block})"
            raise ValueError(f"{key}.objective.rollout_frames: {what}")

    @classmethod
    def rolled(cls, config: Any) -> int | None:
        return config.rollout_frames

    def loss(self, role: str, batch: Batch) -> LossOutput:
        return self._student(batch) if role == "student" else self._critic(batch)

    def exit_step(self, batch: Batch) -> int:
        """The step at which all blocks of this batch stop, uniform over the student's."""
        return int(torch.randint(len(self.run_context.steps), (), generator=rng_stream(batch.shared, "exit")))

    def rollout(self, batch: Batch, *, gradient: bool) -> torch.Tensor:
        """Videos (B, F, C, H, W) on the student's own history, every block stopped at one random exit step."""
        run_context = self.run_context
        spec = replace(run_context.stream_spec(), sink_gradient=gradient and self.config.sink_gradient)
        exit_step = self.exit_step(batch)
        assert batch.text_BMD is not None
        with (
            run_context.section("rollout"),
            run_context.roles.use("student") as student,
            torch.set_grad_enabled(gradient),
        ):
            text = student.encode_text(batch.text_BMD)
            frames = self.config.rollout_frames or run_context.frames
            blocks = stream(student, text, batch.seeds, spec, frames, exit_step=exit_step, gradient=gradient)
            return torch.cat(list(blocks), 1)

    def level(self, batch: Batch) -> torch.Tensor:
        """(B, 1) noise level at which the scores are compared."""
        sigma_B1 = shift_sigma(batch.uniform(1, "sigma"), self.run_context.shift)
        return sigma_B1.clamp(self.config.sigma_min, self.config.sigma_max)

    def _noised(self, batch: Batch, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(x_t, noise, sigma (B, F)): one shifted-uniform sigma per sample, clamped to the configured range."""
        sigma_BF = self.level(batch).to(x.device).expand(-1, x.shape[1])
        noise = batch.noise_like(x, "noise")
        return add_noise(x, noise, sigma_BF), noise, sigma_BF

    def _student(self, batch: Batch) -> LossOutput:
        loss_B, metrics = self.matched(batch, self.rollout(batch, gradient=True))
        return LossOutput(loss_B.mean(), metrics)

    def matched(self, batch: Batch, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
        """(B,) loss of each rollout, and metrics."""
        gradient, non_finite = self.score_difference(batch, x.detach())
        metrics = {"dmd_gradient": gradient.abs().mean().item(), "dmd_non_finite": float(non_finite)}
        new = self.trained(batch)
        return dmd_loss(x[:, new], gradient[:, new]), metrics

    def trained(self, batch: Batch) -> slice:
        """The frames of the rollout that both losses are means over."""
        return slice(None)

    @torch.no_grad()
    def score_difference(self, batch: Batch, x: torch.Tensor) -> tuple[torch.Tensor, int]:
        """The DMD gradient at x, and how many of its entries were not finite and are 0."""
        return dmd_gradient(x, *self.scores(batch, x))

    def scores(self, batch: Batch, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """x0 of teacher and critic at x_t, (B, F, C, H, W) each."""
        x_t, _, sigma_BF = self._noised(batch, x)
        timestep, text_BMD = timestep_of(sigma_BF), batch.text_BMD
        assert text_BMD is not None
        with self.run_context.section("teacher"):
            with self.run_context.roles.use("critic") as critic:
                fake = critic(x_t, timestep, critic.encode_text(text_BMD))
            real = self.teacher_velocity(x_t, timestep, text_BMD)
        return x0_from_velocity(x_t, real, sigma_BF), x0_from_velocity(x_t, fake, sigma_BF)

    def teacher_velocity(self, x_t: torch.Tensor, timestep: torch.Tensor, text_BMD: torch.Tensor) -> torch.Tensor:
        """The teacher's velocity with guidance."""
        with self.run_context.roles.use("teacher") as teacher:
            conditional = teacher(x_t, timestep, self.prompted.of(teacher, text_BMD))
            unconditional = teacher(x_t, timestep, self.unprompted.of(teacher, self.run_context.empty_text(text_BMD)))
        return guide(conditional, unconditional, self.config.guidance)

    def _critic(self, batch: Batch) -> LossOutput:
        with torch.no_grad():
            x = self.rollout(batch, gradient=False)
        x_t, noise, sigma_BF = self._noised(batch, x)
        assert batch.text_BMD is not None
        with self.run_context.roles.use("critic") as critic:
            v = critic(x_t, timestep_of(sigma_BF), critic.encode_text(batch.text_BMD))
        return LossOutput((v - velocity_target(x, noise))[:, self.trained(batch)].float().pow(2).mean())

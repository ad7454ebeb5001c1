"""Delta Forcing: long tuning whose teacher is trusted as far as it moves with the student from chunk to chunk.

    f_k = Phi(chunk k),  d = f_k - f_(k-1),  for the student's chunk ("fake") and the teacher's x0 of it ("real")
    rho = || d_real - d_fake ||_2        w = sigmoid(-s (rho - mu)), no gradient        C = || f_k - f_(k-1) ||^2, fake
    L = w L_DMD + (1 - w) C              critic as in long tuning

A chunk's C reaches the chunk alone: the chunk before is of an earlier step and carries no gradient. It goes into
checkpoints, and its features are made when the student's next step wants them. The first chunk of a video has no delta:
w = 1, C = 0. Phi is the L2-normalised mean of features over the new frames, so |f| = 1 and rho is in [0, 4].
Source: Delta Forcing (arXiv 2605.14382), Eq. 6-11 and Algorithm 1.
Dimensions: B sample, F latent frame, C channel, H, W; D feature.

**Deviations**: the paper prints neither mu nor s. They are numbers of the recipe, or set once from the chunks without a
switch of the first `warmup` student steps, which train with w = 1: mu is the 90 % quantile of rho, and s gives w = .05
at the 99 % quantile. The paper does not say at which noise level the teacher's x0 is taken, and rho depends on it: the
gate has a level of its own, `gate_sigma`, with noise that belongs to the frames; without it the level of the loss is
taken. It does not say what Phi sees either: `phi` names it. Without the trust region (section 5.4) the text takes the
weight off L_DMD alone; C keeps 1 - w.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch.nn import functional

from astro_cli.core.flow import add_noise, timestep_of, x0_from_velocity
from astro_cli.objectives import long_tuning
from astro_cli.objectives.base import Batch, LossOutput, RunContext
from astro_cli.rollout.engine import frame_noise
from astro_cli.rollout.long_sequence import Chunk, LongSequence
from astro_cli.spec import Recipe, StageSpec

TRUSTED, DOUBTED = 0.9, 0.99  # quantiles of rho at which w is .5 and .05
ODDS = math.log(19)  # of .95 to .05
PIXELS: tuple[str, ...] = ("codec", "dinov2", "dinov3")  # Phi that see decoded frames


class Config(long_tuning.Config):
    """Long tuning's keys, and those of the gate and of the continuity loss.

    Attributes:
        phi: the codec's encoder or a DINO on decoded frames, or the teacher's middle block on clean latents.
        gate_sigma: noise level of the gate's teacher pass; absent: that of the loss.
        mu, s: where w is .5, and how steep it is; absent: calibrated.
        warmup: student steps of the calibration.
        trust: weigh L_DMD by w.
        continuity: add (1 - w) C.
        cont_weight: factor of C.
    """

    phi: Literal["codec", "teacher", "dinov2", "dinov3"]
    gate_sigma: float | None = Field(default=0.5, gt=0, lt=1)
    mu: float | None = None
    s: float | None = Field(default=None, gt=0)
    warmup: int = Field(default=20, gt=0)
    trust: bool = True
    continuity: bool = True
    cont_weight: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _check(self) -> Config:
        if (self.mu is None) != (self.s is None):
            missing, given = ("mu", "s") if self.mu is None else ("s", "mu")
            raise ValueError(f"{missing}: missing, give it beside {given}, or neither: both are calibrated then")
        if not self.trust and not self.continuity:
            raise ValueError('trust: found false, expected true without continuity; kind = "long_tuning" has neither')
        return self


def discrepancy(
    real_BD: torch.Tensor, real_before_BD: torch.Tensor, fake_BD: torch.Tensor, fake_before_BD: torch.Tensor
) -> torch.Tensor:
    """rho (B,): how far the teacher's step from chunk to chunk is from the student's (Eq. 9-11)."""
    return ((real_BD - real_before_BD) - (fake_BD - fake_before_BD)).norm(dim=1)


def gate(rho_B: torch.Tensor, mu: float, s: float) -> torch.Tensor:
    """w (B,) in [0, 1], without gradient (Eq. 11)."""
    return torch.sigmoid(-s * (rho_B.detach().double() - mu))


def continuity(fake_BD: torch.Tensor, before_BD: torch.Tensor) -> torch.Tensor:
    """C (B,): squared distance to the chunk before, which carries no gradient (Eq. 8)."""
    return (fake_BD - before_BD.detach()).square().sum(1)


def calibrated(rho_N: torch.Tensor) -> tuple[float, float]:
    """mu and s that trust nine chunks of ten: w is .5 at the 90 % quantile of rho, .05 at the 99 % quantile."""
    mu, doubted = rho_N.double().quantile(torch.tensor([TRUSTED, DOUBTED], dtype=torch.float64)).tolist()
    return mu, ODDS / max(doubted - mu, torch.finfo(torch.float32).eps)


class Objective(long_tuning.Objective):
    config: Config

    def __init__(self, config: Config, run_context: RunContext) -> None:
        super().__init__(config, run_context)
        self.see = run_context.features(config.phi) if config.phi in PIXELS else None
        self.threshold = None if config.mu is None or config.s is None else (config.mu, config.s)
        self.updates = 0  # of the student, until the threshold is set
        self.seen: list[torch.Tensor] = []  # rho of chunks without a switch, until then
        self._new: list[torch.Tensor] = []  # this process's of this step
        self._stepped = False  # whether this step updates the student

    @classmethod
    def check(cls, config: Any, recipe: Recipe, stage: StageSpec, key: str) -> None:
        super().check(config, recipe, stage, key)
        if config.phi == "codec" and recipe.backbone != "shapes":
            what = "found 'codec', expected 'dinov2', 'dinov3' or 'teacher': Wan's VAE gives no features of frames"
            raise ValueError(f"{key}.objective.phi: {what}")

    @classmethod
    def features(cls, config: Any) -> tuple[str, ...]:
        return (config.phi,) if config.phi in PIXELS else ()

    def _student(self, batch: Batch) -> LossOutput:
        (sequence,) = batch.sequences
        before, self._stepped = sequence.chunk, True
        x = self.rollout(batch, gradient=True)
        chunk = sequence.chunk
        assert chunk is not None
        dmd_B, metrics = self.matched(batch, x)
        metrics["chunk_start"] = float(chunk.start)
        if before is None or not chunk.start:
            return LossOutput(dmd_B.mean(), metrics)
        rho_B, cont_B = self.deltas(batch, sequence, before, chunk, x)
        if self.threshold is None and chunk.start != sequence.script.switch:
            self._new.append(rho_B)
        weight_B = torch.ones_like(dmd_B) if self.threshold is None else gate(rho_B, *self.threshold)
        metrics |= {"rho": rho_B.mean().item(), "gate": weight_B.mean().item(), "continuity": cont_B.mean().item()}
        return LossOutput(self.balanced(weight_B, dmd_B, cont_B).mean(), metrics)

    def balanced(self, weight_B: torch.Tensor, dmd_B: torch.Tensor, cont_B: torch.Tensor) -> torch.Tensor:
        """L (B,) of Eq. 6, or of a row without one of its parts."""
        loss_B = weight_B * dmd_B if self.config.trust else dmd_B
        if self.config.continuity:
            loss_B = loss_B + (1 - weight_B) * self.config.cont_weight * cont_B
        return loss_B

    def deltas(
        self, batch: Batch, sequence: LongSequence, before: Chunk, chunk: Chunk, x: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """rho without gradient, and C with the gradient to x, (B,) each, of a chunk and the one before it."""
        level = self.config.gate_sigma
        sigma_B = self.level(batch)[:, 0] if level is None else torch.full((len(batch),), level)
        with torch.no_grad():
            fake_before_BD = self.phi(before, before.window_BFCHW, batch)
            real_before_BD, real_BD = (
                self.phi(each, self.teacher_x0(sequence, each, sigma_B), batch) for each in (before, chunk)
            )
        with torch.set_grad_enabled(self.config.continuity and self.threshold is not None):  # else C has weight 0
            fake_BD = self.phi(chunk, x, batch)
        rho_B = discrepancy(real_BD, real_before_BD, fake_BD.detach(), fake_before_BD)
        return rho_B, continuity(fake_BD, fake_before_BD)

    def teacher_x0(self, sequence: LongSequence, chunk: Chunk, sigma_B: torch.Tensor) -> torch.Tensor:
        """The teacher's estimate of a chunk under its own prompt, from noise that belongs to the frames."""
        x = chunk.window_BFCHW.detach()
        first = chunk.start + chunk.new - x.shape[1]
        frames, spec = range(first, first + x.shape[1]), self.run_context.stream_spec()
        noise = frame_noise(spec, sequence.script.seeds, frames, "gate", x.device)
        sigma_BF = sigma_B.to(x)[:, None].expand(-1, x.shape[1])
        x_t = add_noise(x, noise, sigma_BF)
        with self.run_context.section("teacher"):
            velocity = self.teacher_velocity(x_t, timestep_of(sigma_BF), sequence.text_at(chunk.start))
        return x0_from_velocity(x_t, velocity, sigma_BF)

    def phi(self, chunk: Chunk, window_BFCHW: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Features (B, D) of length 1 of a window in a chunk's place: of its new frames, decoded after the video's own
        history.
        """
        with self.run_context.section("features"):
            if self.see is None:
                features_BD = self._block_features(window_BFCHW, batch)[:, chunk.fresh].mean((1, 2))
            else:
                decoder = self.run_context.decoder().skip(chunk.history_BFCHW)
                frames = decoder.push(window_BFCHW[:, chunk.fresh], gradient=torch.is_grad_enabled())
                features_BD = self.see(frames)
        return functional.normalize(features_BD.float(), dim=1)

    def _block_features(self, window_BFCHW: torch.Tensor, batch: Batch) -> torch.Tensor:
        """(B, F, P, D): what the teacher's middle block makes of clean latents without a prompt."""
        timestep = torch.zeros(window_BFCHW.shape[:2], device=window_BFCHW.device)
        assert batch.text_BMD is not None
        with self.run_context.roles.use("teacher") as teacher:
            empty = self.unprompted.of(teacher, self.run_context.empty_text(batch.text_BMD))
            tokens_BFPD = teacher(window_BFCHW, timestep, empty, depth=len(teacher.blocks) // 2)
        assert tokens_BFPD is not None
        return tokens_BFPD

    def after_step(self, step: int) -> dict[str, float]:
        """Set the threshold once the warm-up has seen enough, on all processes alike; tell it from then on."""
        self.updates += self._stepped
        self._stepped = False
        if self._new:
            self.seen.append(self.run_context.gather(torch.cat(self._new)).cpu())
            self._new.clear()
        if self.threshold is None and self.updates >= self.config.warmup and self.seen:
            self.threshold = calibrated(torch.cat(self.seen))
            self.seen.clear()
        return {} if self.threshold is None else dict(zip(("gate/mu", "gate/s"), self.threshold, strict=True))

    def state(self) -> dict[str, torch.Tensor]:
        """Where the calibration stands."""
        kept = {"updates": torch.tensor(self.updates)}
        if self.seen:
            kept["seen"] = torch.cat(self.seen)
        if self.threshold is not None:
            kept["threshold"] = torch.tensor(self.threshold, dtype=torch.float64)
        return kept

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        self.updates = int(state["updates"])
        self.seen = [state["seen"]] if "seen" in state else []
        if "threshold" in state:
            mu, s = state["threshold"].tolist()
            self.threshold = mu, s

"""A policy gradient on the sampler's own steps, from outside the package: what GRPO needs of a run.

    L = - mean_i A_i r_i,   r = exp(mean_F log p_theta(x' | x) - log p_old(x' | x)),   one random step per block

Dimensions: B sample, F latent frame.
"""

from __future__ import annotations

from typing import ClassVar

import torch

from astro_cli.config.base import Config as BaseConfig
from astro_cli.objectives.base import Batch, LossOutput
from astro_cli.objectives.base import Objective as BaseObjective
from astro_cli.rollout.grouped import ClipContext
from astro_cli.sampling.transition import Transition


class Config(BaseConfig):
    """No keys."""


class Objective(BaseObjective):
    """Keeps what it was given and the ratios (B,) it found, for the test."""

    needs = ("old",)
    source = "astro_cli.training.experience:ExperienceSource"
    wants_trajectory: ClassVar[bool] = True
    seen: ClassVar[list[tuple[Batch, torch.Tensor]]] = []

    def loss(self, role: str, batch: Batch) -> LossOutput:
        step_BF = self.steps(batch)
        old_BF = self.recorded(batch, step_BF)
        ratio_B = (self.replayed(role, batch, step_BF).log_prob() - old_BF).mean(1).exp()
        with torch.no_grad():
            error = (self.replayed("old", batch, step_BF).log_prob() - old_BF).abs().max().item()
        loss = -torch.stack([term.mean(term.value * ratio_B) for term in batch.credit]).sum()
        self.seen.append((batch, ratio_B.detach()))
        return LossOutput(loss, {"old_error": error})

    def steps(self, batch: Batch) -> torch.Tensor:
        """(B, F) long, a draw per block."""
        assert batch.trajectory is not None
        block = self.run_context.block
        drawn = batch.uniform(batch.trajectory.latents.shape[1] // block, "step") * len(batch.trajectory.random)
        return drawn.long().repeat_interleave(block, 1)

    def recorded(self, batch: Batch, step_BF: torch.Tensor) -> torch.Tensor:
        """(B, F) log-probs under the policy that sampled."""
        assert batch.trajectory is not None
        return batch.trajectory.log_prob_RBF.gather(0, step_BF[None].to(batch.trajectory.log_prob_RBF.device))[0]

    def replayed(self, role: str, batch: Batch, step_BF: torch.Tensor) -> Transition:
        """The drawn steps under a policy, given the clean blocks before them as the old policy sees them."""
        x0, text_BMD, groups, trajectory = batch.latents_BFCHW, batch.text_BMD, batch.group_B, batch.trajectory
        assert x0 is not None
        assert text_BMD is not None
        assert groups is not None
        assert trajectory is not None
        step, history = trajectory.pick(step_BF), batch.history_PFCHW
        if history is None:
            history = x0.new_empty(int(groups.max()) + 1, 0, *x0.shape[2:])
        with torch.no_grad(), self.run_context.roles.use("old") as old:
            spec, text = self.run_context.stream_spec(), old.encode_text(text_BMD)
            context = ClipContext(old, text, history, x0, groups, spec, gradient=False)
        with self.run_context.roles.use(role) as network:
            return step.replay(context.velocity(network, step.x, step.timestep_BF, network.encode_text(text_BMD)))

"""Supervised fine-tuning on clips: flow matching, where clips of an unstable structure may weigh more.

    L = mean_i w_i || v_theta(x_t^i, t, c_i) - (eps - x0^i) ||^2
    w_i = (1 + lambda (1 - s_i)) / mean_j (1 + lambda (1 - s_j)),   j over the global batch, so that the mean of w is 1

s in [0, 1] is the structural stability of a clip, and no gradient passes through it:

    structure = "prediction"    of the model's own prediction x0(x_t, v_theta), decoded; one noise level for all clips
    structure = "data"          of the training clip itself, decoded from its latents
    structure = "none"          w = 1: flow matching

With lambda = 0, or clips of one stability, w is 1 and the loss that of flow matching, bit for bit.
Source: TeleBoost (arXiv 2602.07595), section 2.3: "samples exhibiting geometric distortion or spatial collapse receive
stronger corrective gradients, while structurally stable samples are deemphasized".

**Deviations**: the paper gives neither w nor s; w and lambda are ours, s is the scorer's named "structural_stability".
Whose distortion counts is not said either: what the model predicts of a clip says where it fails, while a distorted
training clip would be learnt the more. One noise level for all, since predictions at high noise are blurred whatever
the clip. Predictions take a pass of their own, as the mean needs all of them before the first gradient.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic import Field

from astro_cli.core.flow import add_noise, timestep_of, x0_from_velocity
from astro_cli.objectives import flow_matching
from astro_cli.objectives.base import Batch, LossOutput, RunContext
from astro_cli.spec import STRUCTURE, Recipe, StageSpec


class Config(flow_matching.Config):
    """Flow matching's keys, and the weights'.

    Attributes:
        structure: whose structural stability weighs a clip.
        strength: lambda.
        sigma: noise level at which the model predicts the clips that are judged.
    """

    structure: Literal["none", "prediction", "data"] = "none"
    strength: float = Field(default=1.0, ge=0)
    sigma: float = Field(default=0.7, gt=0, le=1)


def structure_weights(stability_B: torch.Tensor, mean: torch.Tensor | float, strength: float) -> torch.Tensor:
    """(B,) float32 weights of clips.

    Args:
        mean: of the stability of all clips whose weights shall have mean 1.
    """
    raw_B = 1 + strength * (1 - stability_B.double())
    return (raw_B / (1 + strength * (1 - mean))).float()


class Objective(flow_matching.Objective):
    config: Config

    def __init__(self, config: Config, run_context: RunContext) -> None:
        super().__init__(config, run_context)
        self.metrics: dict[str, float] = {}
        self.score = None if config.structure == "none" else run_context.reward(STRUCTURE)

    @classmethod
    def check(cls, config: Config, recipe: Recipe, stage: StageSpec, key: str) -> None:
        if not recipe.bidirectional:
            what = f"found {recipe.policy!r}, expected 'bidirectional': {stage.kind} trains a multi-step model"
            raise ValueError(f"policy: {what}; ar_diffusion trains a causal one on clips")

    @classmethod
    def rewards(cls, config: Any) -> tuple[str, ...]:
        return () if config.structure == "none" else (STRUCTURE,)

    @torch.no_grad()
    def weigh(self, role: str, batch: Batch, size: int) -> Batch:
        if self.score is None:
            return batch
        here, parts = self.run_context, list[torch.Tensor]()
        for row in range(0, len(batch), size):
            part = batch.rows(row, row + size).to(here.device)
            assert part.latents_BFCHW is not None
            clips = part.latents_BFCHW if self.config.structure == "data" else self._predicted(role, part)
            parts.append(self.score(here.decoder().push(clips), part.prompts))
        stability_B = torch.cat(parts)
        every_B = here.gather(stability_B).double()
        weight_B = structure_weights(stability_B, every_B.mean(), self.config.strength)
        weights = structure_weights(every_B, every_B.mean(), self.config.strength)
        self.metrics = {
            "structure/stability": every_B.mean().item(),
            "structure/weight_least": weights.min().item(),
            "structure/weight_most": weights.max().item(),
        }
        return replace(batch, weight_B=weight_B.cpu())

    def _predicted(self, role: str, batch: Batch) -> torch.Tensor:
        """The clean clips that a role predicts from noised ones, given their captions."""
        x0, text_BMD = batch.latents_BFCHW, batch.text_BMD
        assert x0 is not None
        assert text_BMD is not None
        sigma_BF = torch.full(x0.shape[:2], self.config.sigma, dtype=torch.float64, device=x0.device)
        x_t = add_noise(x0, batch.noise_like(x0, "structure_noise"), sigma_BF)
        with self.run_context.roles.use(role) as network, self.run_context.autocast():
            v = network(x_t, timestep_of(sigma_BF), network.encode_text(text_BMD))
        return x0_from_velocity(x_t, v, sigma_BF)

    def loss(self, role: str, batch: Batch) -> LossOutput:
        square = self.squared_error(role, batch)
        if batch.weight_B is None:
            return LossOutput(square.mean())
        plain = square.detach().mean().item()
        return LossOutput((square * batch.weight_B[:, None, None, None, None]).mean(), {"flow_matching_loss": plain})

    def after_step(self, step: int) -> dict[str, float]:
        return self.metrics

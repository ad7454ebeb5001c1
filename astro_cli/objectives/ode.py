"""Regression on the bidirectional teacher's ODE trajectories: the student's first causal step. Self-Forcing's
initialisation (CausVid).

    L = mean_{t > 0} || x0_theta(x_t, t) - x_end ||^2

Each block is at its own step of the student's schedule, under a block-causal mask.

Source: Self-Forcing (arXiv 2506.08009), appendix; CausVid (arXiv 2412.07772); Self-Forcing's released code.

Deviations: trajectories are integrated at the student's own shift and stored at its exact warped steps; the released
script stores shift-8 states that its trainer labels with shift-5 steps.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import Field

from astro_cli.config.base import Config as BaseConfig
from astro_cli.core.flow import sigma_of, x0_from_velocity
from astro_cli.models.wan.masks import block_causal_mask
from astro_cli.objectives.base import Batch, LossOutput
from astro_cli.objectives.base import Objective as BaseObjective
from astro_cli.sampling.ode import euler, grid_through, guided

PAIR_BATCH = 64  # trajectories integrated at once


class Config(BaseConfig):
    """`pairs` trajectories are integrated before the first step, in about `steps` Euler steps with the teacher's
    `guidance`.

    `steps` and `guidance` have no default: they depend on the teacher. Released for Wan 1.3B: 48 steps,
    guidance 6.
    """

    pairs: int = Field(default=512, gt=0)
    steps: int = Field(gt=0)
    guidance: float = Field(ge=0)


class Objective(BaseObjective):
    needs = ("teacher",)
    source = "astro_cli.training.sources:PromptSource"
    excludes = ("ema", "relative")
    config: Config

    def prepare(self, batches: Callable[[str, int], Batch]) -> None:
        """Integrate the teacher on `pairs` prompts; (P, S + 1, F, C, H, W) states, the last one the end point."""
        run_context, config = self.run_context, self.config
        pairs = batches("ode_pairs", config.pairs)
        sigmas, kept = grid_through(run_context.steps, config.steps, run_context.shift)
        parts = []
        for start in range(0, len(pairs), PAIR_BATCH):
            part = pairs.rows(start, start + PAIR_BATCH).to(run_context.device)
            assert part.text_BMD is not None
            empty_BMD = run_context.empty_text(part.text_BMD)
            noise = part.noise_like(
                torch.empty(len(part), run_context.frames, *run_context.latent_shape, device=run_context.device), "x_T"
            )
            with run_context.section("teacher"), torch.no_grad(), run_context.roles.use("teacher") as teacher:
                end, states = euler(guided(teacher, part.text_BMD, config.guidance, empty_BMD), noise, sigmas, kept)
            parts.append(torch.stack((*states, end), 1))
        self.states, self.text = torch.cat(parts), pairs.text_BMD
        tokens = run_context.roles.modules["student"].tokens_per_frame(*run_context.latent_shape[1:])  # type: ignore[operator]
        cache = run_context.cache
        self.mask = block_causal_mask(run_context.frames, tokens, run_context.block, cache.window, cache.sink).to(
            run_context.device
        )

    def loss(self, role: str, batch: Batch) -> LossOutput:
        run_context = self.run_context
        assert self.text is not None
        row = (batch.uniform(1, "pair")[:, 0] * len(self.states)).long()
        step = (
            (batch.uniform(run_context.frames // run_context.block, "step") * len(run_context.steps))
            .long()
            .repeat_interleave(run_context.block, 1)
        )
        frame = torch.arange(run_context.frames)
        x_t, target = self.states[row[:, None], step, frame], self.states[row, -1]
        timestep = run_context.steps[step].float().to(x_t.device)
        with run_context.roles.use(role) as network:
            v = network(x_t, timestep, network.encode_text(self.text[row].to(x_t.device)), mask=self.mask)
        return LossOutput((x0_from_velocity(x_t, v, sigma_of(timestep)) - target).float().pow(2).mean())

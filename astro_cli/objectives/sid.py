"""Score identity distillation on self-rollouts: Self-Forcing's second loss. Rollouts and critic are those of DMD.

    L_student = mean (r - f) ((r - x) - alpha (r - f)) / mean |x - r|,   gradient through x, f and r;  f, r at x_t

Source: Self-Forcing (arXiv 2506.08009), section 3.3; SiD (arXiv 2404.04057), its loss with alpha; Self-Forcing's
released code.
Dimensions: B sample, F latent frame, C channel, H, W.

**Deviations**: none in the formula. The released trainer lacks two attributes that this loss reads and cannot run it,
and its recipe of that name runs DMD. As in the released code the normaliser carries no gradient. What DMD clamps and
guides (`sigma_min`, `sigma_max`, `guidance`) is as in `dmd`.
"""

from __future__ import annotations

import torch
from pydantic import Field

from astro_cli.objectives import dmd
from astro_cli.objectives.base import Batch


class Config(dmd.Config):
    """DMD's keys and SiD's alpha (1 as released)."""

    alpha: float = Field(default=1.0)


def sid_loss(x: torch.Tensor, real_x0: torch.Tensor, fake_x0: torch.Tensor, alpha: float) -> torch.Tensor:
    """(B,) float64 loss of (B, F, C, H, W) tensors; gradients pass through all three, not through the normaliser."""
    x, real_x0, fake_x0 = x.double(), real_x0.double(), fake_x0.double()
    normalizer = (x - real_x0).detach().abs().mean((1, 2, 3, 4), keepdim=True).clamp_min(dmd.NORMALIZER_FLOOR)
    difference = real_x0 - fake_x0
    return (difference * ((real_x0 - x) - alpha * difference) / normalizer).flatten(1).mean(1)


class Objective(dmd.Objective):
    shards = False  # not tried divided
    config: Config

    def matched(self, batch: Batch, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
        """The loss with its gradient to x alone: critic and teacher keep theirs as they are.

        It is computed here for rollouts cut from the student, and handed to them by a linear term.
        """
        with torch.enable_grad():
            cut = x.detach().requires_grad_()
            loss_B = sid_loss(cut, *self.scores(batch, cut), self.config.alpha)
            (slope,) = torch.autograd.grad(loss_B.sum(), cut)
        finite = slope.isfinite()
        slope = slope.where(finite, 0.0).double()
        handed_B = ((x - x.detach()).double() * slope).flatten(1).sum(1)
        metrics = {"sid_gradient": slope.abs().mean().item(), "sid_non_finite": float((~finite).sum())}
        return loss_B.detach() + handed_B, metrics

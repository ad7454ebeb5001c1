"""The contract of a credit rule: scores of all samples of an epoch, per reward -> the credit of their losses.

Dimensions: P prompt, G sample of a prompt, B clip, F latent frame, C channel, H, W latent rows and columns, T picture.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from astro_cli.core.credit import Credit, CreditForm
from astro_cli.models.backbone import Backbone


@dataclass(frozen=True)
class Scored:
    """What a credit rule may know of an epoch's samples, those of all processes.

    Attributes:
        scores: (P, G) by reward, in the recipe's order, unweighted; a prompt's samples in its row.
        weights: of the rewards, as in the recipe; 0 where a reward only helps to judge the others.
        prompts: P of them.
        observed: (P, G, ...) by name, what the rule's `observe` returned.
    """

    scores: Mapping[str, torch.Tensor]
    weights: Mapping[str, float]
    prompts: list[str]
    observed: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def total(self) -> torch.Tensor:
        """R = sum_k w_k R_k, (P, G)."""
        return torch.stack([self.scores[key] * weight for key, weight in self.weights.items()]).sum(0)


class Advantage(ABC):
    """A credit rule. Subclasses are modules' `Advantage` classes beside their `Config`.

    Class attributes:
        gives: credit per "sample", (P, G), or as a "map" per latent frame and position, (P, G, F, H, W).
    """

    gives: ClassVar[CreditForm] = "sample"

    def __init__(self, config: Any) -> None:
        self.config = config

    def observe(
        self, latents_BFCHW: torch.Tensor, frames_BTCHW: torch.Tensor, backbone: Backbone
    ) -> dict[str, torch.Tensor]:
        """What the rule needs of clips besides their scores, e.g. a map of salience; by name, a row per clip.

        Called once for each clip, where it is scored, in a thread and without gradients. Frames are in [0, 1].
        """
        return {}

    @abstractmethod
    def credit(self, scored: Scored, state: dict[str, torch.Tensor]) -> Credit:
        """Credit of all processes' samples; every process computes the same.

        Args:
            state: what the rule remembers from one epoch to the next; it sets and replaces entries here. Empty at
                first, saved with checkpoints and restored with the same bits.
        """

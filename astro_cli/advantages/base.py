"""The contract of a credit rule: scores of all samples of an epoch, per reward -> the credit of their losses.

Dimensions: P prompt, G sample of a prompt, B clip, F latent frame, C channel, H, W latent rows and columns, T picture.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

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
        base: (Q, N) by reward, of N clips of the untuned base on each of Q prompts; where the rule wants them.
        prior: (P, N) by reward, the base's on this epoch's prompts; where the rule wants them.
    """

    scores: Mapping[str, torch.Tensor]
    weights: Mapping[str, float]
    prompts: list[str]
    observed: Mapping[str, torch.Tensor] = field(default_factory=dict)
    base: Mapping[str, torch.Tensor] | None = None
    prior: Mapping[str, torch.Tensor] | None = None

    def total(self) -> torch.Tensor:
        """R = sum_k w_k R_k, (P, G)."""
        return self.weighted(self.scores)

    def weighted(self, scores: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """sum_k w_k R_k of these scores, of one shape."""
        return torch.stack([scores[key] * weight for key, weight in self.weights.items()]).sum(0)


class Advantage(ABC):
    """A credit rule. Subclasses are modules' `Advantage` classes beside their `Config`.

    Class attributes:
        wants_base: scores of the untuned base, as `Scored.base`, on "some" prompts, or as `Scored.prior` too on all the
            "prompts" of the run, which then has a list of them; how many clips of each says `base_clips`.
        gives: credit per "sample", (P, G), or with a "map" of where it goes, (P, G, F, H, W).
    """

    gives: ClassVar[CreditForm] = "sample"
    wants_base: ClassVar[Literal["none", "some", "prompts"]] = "none"

    def __init__(self, config: Any) -> None:
        self.config = config

    def base_clips(self, rewards: Iterable[str]) -> int:
        """Clips of the base per prompt that it wants the scores of, with these rewards; 0: none."""
        return 0 if self.wants_base == "none" else self.config.base_samples

    def misnamed(self, rewards: Iterable[str]) -> str:
        """Which of its keys names a reward that is not optimised, or lacks one that is: "key: what", "" for none."""
        return ""

    def lacks(self, backbone: str) -> str:
        """What it cannot run without and where to put it, "" where nothing is missing; asked before a run."""
        return ""

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

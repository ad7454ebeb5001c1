"""What makes the pairs of some kinds in one form, and what a pair is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from astro_cli.models.backbone import Backbone
from astro_cli.spec import FormSpec, PairKind


@dataclass(frozen=True)
class Pairs:
    """Prompts, and latents (B, F, C, H, W) of the preferred and of the rejected clips."""

    prompts: list[str]
    chosen: torch.Tensor
    rejected: torch.Tensor

    @staticmethod
    def join(parts: Sequence[Pairs], rows: torch.Tensor) -> Pairs:
        """The pairs of all parts in the order of their rows."""
        order = rows.argsort()
        prompts = [prompt for part in parts for prompt in part.prompts]
        chosen = torch.cat([part.chosen for part in parts])[order]
        rejected = torch.cat([part.rejected for part in parts])[order]
        return Pairs([prompts[place] for place in order.tolist()], chosen, rejected)


class PairMaker(Protocol):
    """Makes pairs of its kinds."""

    def pairs(self, seeds: list[int], kinds: list[PairKind]) -> Pairs:
        """A pair for each seed, of the kind beside it."""
        ...

    def reserve(self, size: int) -> None:
        """Keep so many pairs of each kind out of training, where they are a list."""
        ...

    def validation(self, kind: PairKind, size: int) -> Pairs:
        """Pairs that are never trained on, the same in every run of a seed."""
        ...


def pixels(form: FormSpec, backbone: Backbone) -> tuple[int, int, int]:
    """Frames, height and width of a form's videos."""
    return backbone.num_frames(form.frames), form.height * backbone.cell, form.width * backbone.cell

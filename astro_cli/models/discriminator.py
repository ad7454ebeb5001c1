"""AAPT's discriminator: the generator's transformer on clean frames, with a logit after every frame.

Query tokens attend to the tokens of a frame after about 44, 72 and 100 % of the depth; what they gather is put side by
side, normalised and projected to a logit. With causal attention the tokens of a frame know the frames before it, so the
logit of frame i judges frames 1 .. i.
Source: AAPT (arXiv 2506.09350), supplement C and D; the heads are those of APT (arXiv 2501.08316): layers 16, 26 and 36
of 36, one learnt query each.
Dimensions: B sample, F latent frame, P token per frame, C width.

**Deviations**: the supplement does not print which tokens a query sees; here those of its own frame. "bidirectional" is
not AAPT's: every frame sees all, and one logit judges the whole clip.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Literal

import torch
from torch import nn

from astro_cli.models.wan.attention import Attention
from astro_cli.models.wan.hidden import hidden_state
from astro_cli.models.wan.transformer import CausalWan, TextStates

View = Literal["causal", "bidirectional"]
DEPTHS = (0.44, 0.72, 1.0)  # of the layers: APT's 16, 26 and 36 of 36


def head_layers(num_layers: int) -> tuple[int, ...]:
    """The layers, from 1, after which there is a query: (16, 26, 36) of 36."""
    return tuple(max(1, round(depth * num_layers)) for depth in DEPTHS)


class QueryHead(nn.Module):
    """A learnt query token that attends to tokens."""

    def __init__(self, dim: int, num_heads: int, eps: float) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.ones(1, 1, dim))
        self.norm = nn.LayerNorm(dim, eps)
        self.attention = Attention(dim, num_heads, eps)

    def forward(self, tokens_NPC: torch.Tensor) -> torch.Tensor:
        """(N, C): what each row's query gathers."""
        keys_values = self.attention.keys_values(self.norm(tokens_NPC))
        return self.attention.cross_attention(self.query.expand(len(tokens_NPC), -1, -1), keys_values)[:, 0]


class Discriminator(nn.Module):
    """Args: trunk: the transformer, whose own head is not used."""

    def __init__(self, trunk: CausalWan) -> None:
        super().__init__()
        config = trunk.config
        self.trunk = trunk
        self.layers = head_layers(config.num_layers)
        self.heads = nn.ModuleList(QueryHead(config.dim, config.num_heads, config.eps) for _ in self.layers)
        width = len(self.layers) * config.dim
        self.norm = nn.LayerNorm(width, config.eps)
        self.logit = nn.Linear(width, 1)

    def encode_text(self, text_BMD: torch.Tensor) -> TextStates:
        return self.trunk.encode_text(text_BMD)

    def forward(
        self,
        x_BFCHW: torch.Tensor,
        timestep_BF: torch.Tensor,
        text: TextStates,
        *,
        positions: list[int] | range | None = None,
        mask: torch.Tensor | None = None,
        whole: bool = False,
    ) -> torch.Tensor:
        """Logits (B, F), or (B, 1) of whole clips.

        Args:
            x_BFCHW: clean frames and the channels of conditions behind theirs.
            positions, mask: as `CausalWan.forward`.
            whole: one logit, whose queries see the tokens of all frames.
        """
        with ExitStack() as hooks:
            blocks = [self.trunk.blocks[layer - 1] for layer in self.layers]
            seen = [hooks.enter_context(hidden_state(block)) for block in blocks]
            self.trunk(x_BFCHW, timestep_BF, text, positions=positions, mask=mask, depth=self.layers[-1])
        gathered = []
        for head, states in zip(self.heads, seen, strict=True):
            tokens_BFPC = states[-1]
            rows = tokens_BFPC.flatten(1, 2) if whole else tokens_BFPC.flatten(0, 1)
            gathered.append(head(rows).unflatten(0, (len(x_BFCHW), -1)))
        return self.logit(self.norm(torch.cat(gathered, -1)))[..., 0].float()

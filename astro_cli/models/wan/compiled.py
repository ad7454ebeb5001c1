"""`torch.compile` for a streaming transformer: each block as a graph, without its cache.

Weights and results stay the same.
"""

from __future__ import annotations

from typing import Any, cast

import torch

from astro_cli.models.wan.transformer import CausalWan, WanBlock


def compile_blocks(network: CausalWan) -> None:
    """Compile the blocks in place; they are compiled when first called.

    The cache's exchange stays out of the graphs: a block's slots are python ints, and new ones would compile the graph
    again.
    """
    for block in cast(list[WanBlock], list(network.blocks)):
        uncompiled: Any = torch.compiler.disable(block.attn1.exchange)
        block.attn1.exchange = uncompiled
        block.compile()

"""Attention of several clips to one history and to keys of their own, the history read once for all of them.

    o = (e^l1 o1 + e^l2 o2) / (e^l1 + e^l2)        l = log sum exp of a query's scores over one of the two sets of keys

Queries of the clips that share a history attend to it as one long row of queries, so its keys are neither repeated nor
joined with each clip's own.
Source: the combination is exact; FlashAttention (arXiv 2205.14135), section 3.1.
Dimensions: B clip, P history, G clip of a history (B = P G, clips of a history side by side), H head, L query, S shared
key, K own key, D head width.

**Deviations**: none; the same attention up to rounding.
"""

from __future__ import annotations

import torch

KeysValues = tuple[torch.Tensor, torch.Tensor]


def can_share(x: torch.Tensor) -> bool:
    """Whether attention here returns the logarithms that combining needs: float32 on a CPU, without gradients
    and autocast, which gives values another type than queries.
    """
    plain = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return plain and not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def attend_shared(q_BHLD: torch.Tensor, shared_PHSD: KeysValues, own_BHKD: KeysValues) -> torch.Tensor:
    """(B, H, L, D): attention over the keys of a clip's history and its own, without a mask; scale 1 / sqrt(D)."""
    batch, heads, length, width = q_BHLD.shape
    histories = len(shared_PHSD[0])
    group = batch // histories
    rows = q_BHLD.unflatten(0, (histories, group)).transpose(1, 2).reshape(histories, heads, group * length, width)
    shared, shared_log = _attend(rows, *shared_PHSD)
    shared = shared.view(histories, heads, group, length, width).transpose(1, 2)  # P G H L D
    shared_log = shared_log.view(histories, heads, group, length).transpose(1, 2)
    own, own_log = _attend(q_BHLD, *own_BHKD)
    own, own_log = own.unflatten(0, (histories, group)), own_log.unflatten(0, (histories, group))
    share = torch.sigmoid(shared_log - own_log)[..., None]  # e^l1 / (e^l1 + e^l2)
    return torch.lerp(own, shared, share).flatten(0, 1)


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention and the logarithm of each query's sum of exponentials (B, H, L)."""
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)

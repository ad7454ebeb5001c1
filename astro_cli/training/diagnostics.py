"""What metrics.jsonl says of an epoch's rewards and credit. For the log only.

Dimensions: P prompt, G sample of a prompt, N all samples of the epoch.
"""

from __future__ import annotations

from typing import Any

import torch

from astro_cli.core.disagreement import rank_disagreement

QUANTILES = (0.1, 0.5, 0.9)
ZERO_VARIANCE = 1e-6  # a group whose rewards differ by less teaches nothing
HISTOGRAM = (-3.0, 3.0, 12)  # range and bins of the advantage histogram; what lies outside counts in the outermost bin


def describe_rewards(
    scores_N: dict[str, torch.Tensor], total_PG: torch.Tensor, credit_PG: torch.Tensor
) -> dict[str, float]:
    """Means per reward, quantiles of the weighted sum, the share of dead groups and the spread of the credit, over all
    processes' clips.
    """
    metrics = {f"reward/{key}": value.mean().item() for key, value in scores_N.items()}
    metrics["reward/total"] = total_PG.mean().item()
    metrics |= {f"reward/q{int(q * 100)}": total_PG.flatten().quantile(q).item() for q in QUANTILES}
    metrics["reward/zero_variance_groups"] = (total_PG.std(1) < ZERO_VARIANCE).float().mean().item()
    metrics["advantage/std"] = credit_PG.std().item()
    return metrics


def describe_credit(credit_N: torch.Tensor) -> dict[str, Any]:
    """Shares of the samples per bin of the advantage, from low to high."""
    low, high, bins = HISTOGRAM
    counts = torch.histc(credit_N.float().clamp(low, high).cpu(), bins, low, high)
    return {"advantage/histogram": (counts / credit_N.numel()).tolist()}


def describe_disagreement(scores_N: dict[str, torch.Tensor], primary: str) -> dict[str, float]:
    """Mean absolute rank disagreement of the primary with the other rewards, as a share of the largest possible
    rank.
    """
    if len(scores_N) < 2:
        return {}
    ordered = torch.stack([scores_N[primary], *(value for key, value in scores_N.items() if key != primary)])
    return {"reward/disagreement": (rank_disagreement(ordered).abs().mean() / (ordered.shape[1] - 1)).item()}

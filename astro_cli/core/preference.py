"""Which two of a group of clips make a pair: the best and the worst, or the two that a simulated rater judges.

Dimensions: P prompt, G clip of a prompt.
"""

from __future__ import annotations

import torch

from astro_cli.core.rng import stream


def best_and_worst(
    total_PG: torch.Tensor, overlap_PG: torch.Tensor | None = None, most: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """(P,) index of the preferred and of the rejected clip: two different ones, highest and lowest in the total.

    Args:
        overlap_PG: another score in which the two must be alike: of the pairs that differ in it by at most `most` the
            one that differs most in the total; where none does, the pair most alike in it.
    """
    prompts, group = total_PG.shape
    if overlap_PG is None:
        order = total_PG.argsort(dim=1, descending=True, stable=True)
        return order[:, 0], order[:, -1]
    gain = total_PG[:, :, None] - total_PG[:, None]
    apart = (overlap_PG[:, :, None] - overlap_PG[:, None]).abs()
    near = apart.masked_fill(torch.eye(group, dtype=torch.bool), torch.inf).masked_fill(gain < 0, torch.inf)
    least = near.flatten(1).amin(1)[:, None, None]
    allowed = near <= least.clamp(min=most)
    place = gain.masked_fill(~allowed, -torch.inf).reshape(prompts, -1).argmax(1)
    return place // group, place % group


def rated_pair(
    score_PG: torch.Tensor, seeds: list[int], temperature: float, flips: float, tie: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(P,) index of the clip that a simulated rater prefers and of the other, and whether the verdict was turned round.

    Two clips are drawn until they are no tie, of the group's pairs; a group of ties gives the pair that is least one.
    a is preferred to b with chance sigmoid((O_a - O_b) / temperature), and the share `flips` of verdicts turns round.
    """
    rows = [_rated(scores, seed, temperature, flips, tie) for scores, seed in zip(score_PG, seeds, strict=True)]
    chosen, rejected, flipped = zip(*rows, strict=True)
    return torch.tensor(chosen), torch.tensor(rejected), torch.tensor(flipped)


def _rated(score_G: torch.Tensor, seed: int, temperature: float, flips: float, tie: float) -> tuple[int, int, bool]:
    rng = stream(seed, "rater")
    pairs = torch.combinations(torch.arange(len(score_G)))
    pairs = pairs[torch.randperm(len(pairs), generator=rng)]
    gaps = (score_G[pairs[:, 0]] - score_G[pairs[:, 1]]).abs()
    decided = (gaps > tie).nonzero().flatten()
    a, b = pairs[int(decided[0]) if len(decided) else int(gaps.argmax())].tolist()
    chance, turn = torch.rand(2, generator=rng).tolist()
    first = chance < torch.sigmoid((score_G[a] - score_G[b]) / temperature).item()
    flipped = turn < flips
    return (a, b, flipped) if first != flipped else (b, a, flipped)

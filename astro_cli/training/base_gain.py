"""What training has gained so far: the old policy's rewards minus the base's, on the same prompts and noise.

For the log only. An epoch has few prompts, and they differ more than the policies do; a curve of rewards shows the
prompts, a curve of differences the policy.
Dimensions: P prompt, G clip of a prompt in the epoch, N clip of a prompt that the base makes too.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from astro_cli.models.backbone import Backbone
from astro_cli.objectives.base import RunContext
from astro_cli.rewards.base import Reward
from astro_cli.spec import BARE, ExperienceSpec
from astro_cli.training.executors import ClipMaker, Executor


def base_roller(
    executor: Executor,
    spec: ExperienceSpec,
    run_context: RunContext,
    backbone: Backbone,
    rewards: list[Reward],
    stage: str,
) -> ClipMaker | None:
    """Rolls out `base_clips` clips of a prompt by the base, the student without adapters; None where a recipe asks for
    none.
    """
    if not spec.base_clips:
        return None
    some = spec.model_copy(update={"group": spec.base_clips})
    return executor.roller(some, run_context, backbone, rewards, None, stage=stage, role=BARE)


def first_members(count: int, group: int, samples: int) -> list[int]:
    """Places of the first `samples` of every `group` among the clips of `count` prompts, in order."""
    return [row * group + member for row in range(count) for member in range(samples)]


def describe_gain(
    policy: Mapping[str, torch.Tensor], base: Mapping[str, torch.Tensor], weights: Mapping[str, float]
) -> dict[str, float]:
    """`gain/<reward>`: mean of policy minus base over the same clips, (P N,) each; `gain/total`: their weighted sum."""
    means = {key: (policy[key] - base[key]).mean().item() for key in base}
    total = sum(weight * means[key] for key, weight in weights.items())
    return {**{f"gain/{key}": mean for key, mean in means.items()}, "gain/total": total}

"""Generates the page's clips: held-out prompts of the embedded world by every arm, from the same noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from astro_cli.config.errors import RecordError
from astro_cli.generate.arm import Arm, load_arm
from eval.records.store import Backbone
from eval.report.clips import Take
from eval.world import shapes
from eval.world.oracle_scores import noise_seeds

NOISE_SEED = 0
MAX_ARMS = 6  # more are too narrow beside each other on a phone


def load_arms(names: Sequence[str], backbone: Backbone) -> list[Arm]:
    """The arms, in the order given.

    Raises:
        RecordError: too many arms, an arm of another backbone, or one that cannot stand beside the first.
        CheckpointError: weights or card missing or damaged.
    """
    if len(names) > MAX_ARMS:
        raise RecordError(
            "--arm", "", f"found {len(names)} arms, at most {MAX_ARMS} stand side by side", hint="write several pages"
        )
    arms = [load_arm(name) for name in names]
    for name, arm in zip(names, arms, strict=True):
        if arm.backbone.name != backbone:
            hint = f"leave it out, or ask for the page of the other backbone with --backbone {arm.backbone.name}"
            raise RecordError(
                "--arm", name, f"weights of {arm.backbone.name!r}, this page shows {backbone!r}", hint=hint
            )
        for what, own, first in (
            ("resolution", arm.latent_shape[1:], arms[0].latent_shape[1:]),
            ("fps", arm.backbone.fps, arms[0].backbone.fps),
        ):
            if own != first:
                raise RecordError(
                    "--arm", name, f"{what} {own}, the first arm has {first}: they cannot be shown side by side"
                )
    return arms


def generate(arms: Sequence[Arm], count: int, progress: Callable[[str], None]) -> list[Take]:
    """`count` held-out prompts by every arm, at the shortest of their trained lengths; `progress` is called with an
    arm's label when it is done.
    """
    prompts, seeds = shapes.prompt_set(count), noise_seeds(NOISE_SEED, count)
    frames = min(arm.card["video"]["frames"] for arm in arms)
    clips: dict[str, np.ndarray] = {}
    for label, arm in zip(labels(arms), arms, strict=True):
        clips[label] = arm.backbone.decode(arm.generate(prompts, seeds, frames)).permute(0, 1, 3, 4, 2).numpy()
        progress(label)
    fps = arms[0].backbone.fps
    takes = []
    for index, prompt in enumerate(prompts):
        by_arm = {label: arm_clips[index] for label, arm_clips in clips.items()}
        takes.append(Take(prompt, NOISE_SEED, fps, by_arm))
    return takes


def labels(arms: Sequence[Arm]) -> list[str]:
    """An arm's name and training seed; numbered where two would be alike."""
    names = [arm.name if arm.seed is None else f"{arm.name}, seed {arm.seed}" for arm in arms]
    return [
        name if names.count(name) == 1 else f"{name} ({names[: index + 1].count(name)})"
        for index, name in enumerate(names)
    ]

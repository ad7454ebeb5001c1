"""The training rewards of the embedded world, by the names of `rewards.base.EMBEDDED_KEYS`."""

from __future__ import annotations

from astro_cli.rewards.ambiguous import AmbiguousAlignment
from astro_cli.rewards.base import Reward
from astro_cli.rewards.shapes import REWARDS, TextAlignment
from astro_cli.rewards.structure import StructuralStability
from astro_cli.spec import STRUCTURE


def embedded_reward(key: str, pace: float = 1.0) -> Reward:
    """A reward by its key, in a world of this pace (`shapes.render.World`)."""
    if key == STRUCTURE:
        return StructuralStability()
    paced = {reward.key: reward for reward in (TextAlignment, AmbiguousAlignment)}
    return paced[key](pace) if key in paced else REWARDS[key]()

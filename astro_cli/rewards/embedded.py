"""The training rewards of the embedded world, by the names of `rewards.base.EMBEDDED_KEYS`."""

from __future__ import annotations

from astro_cli.rewards.ambiguous import AmbiguousAlignment
from astro_cli.rewards.base import Reward
from astro_cli.rewards.shapes import REWARDS


def embedded_reward(key: str) -> Reward:
    """A reward by its key."""
    return ({**REWARDS, AmbiguousAlignment.key: AmbiguousAlignment})[key]()

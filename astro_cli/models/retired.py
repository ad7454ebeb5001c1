"""Bases of the embedded world that are no longer shipped, by the hash of their weights.

Their codec took every frame alone, their objects moved at another pace, or all clips looked alike: weights and
records of theirs do not belong to the world of today.
"""

from __future__ import annotations

from pathlib import Path

from astro_cli.config.errors import CheckpointError
from astro_cli.models import hashes

LARGEST = 8 * 2**20  # bytes; every base of the embedded world is smaller, so a large file is not hashed
BY_HASH = {
    "96cd119f8c7cb8d1": "the codec of single frames",
    "917da67a9768d08e": "the teacher on single frames",
    "208135ec075b2239": "the Self-Forcing student on single frames",
    "fe287112660f4851": "the Causal-Forcing student on single frames",
    "7efa002c5dafa630": "the LongLive student on single frames",
    "50ed5108570649ff": "a codec of another pace",
    "309ae34de292e024": "a codec of another pace",
    "3ef1b594ada98e62": "a codec of another pace",
    "fc2a1ef73b86f9aa": "a teacher of another pace",
    "b671d218cc4b5b65": "a teacher of another pace",
    "6f53f1f711ed0a40": "a Causal-Forcing student of another pace",
    "ab091a5fdfc52784": "a Causal-Forcing student of another pace",
    "bca738e196a33c37": "a Self-Forcing student of another pace",
    "adccb171e1090e67": "a codec of clips that all look alike",
    "884f00fd27756c9f": "a codec of clips that all look alike",
    "478e0ac95a1e9c4b": "a teacher of clips that all look alike",
    "cd41f6721dd8cb04": "a Causal-Forcing student of clips that all look alike",
    "d3c276be5ff4f322": "a Self-Forcing student of clips that all look alike",
}


def refuse(path: Path) -> None:
    """Refuse weights of an earlier embedded world.

    Raises:
        CheckpointError: with what to take instead.
    """
    if path.is_file() and path.stat().st_size <= LARGEST and (name := BY_HASH.get(hashes.digest(path))):
        raise CheckpointError(
            path,
            "weights",
            f"found {name}, which an earlier version shipped; its clips are not those of today's embedded world",
            hint="take a packaged base (`astro doctor` lists them) or train again, "
            "e.g. `astro distill --recipe self_forcing_shapes`",
        )

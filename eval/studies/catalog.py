"""The studies of the embedded world, one per paper: which tables they fill, from which bases, recipes and grids."""

from __future__ import annotations

from typing import NamedTuple


class Study(NamedTuple):
    """What a study fills and runs.

    Attributes:
        tables: the paper's, of the full study; --quick fills the first.
        pairs: (base, RL recipe) on the embedded world; --quick runs the first.
        grids: of the full study, the pairs' among them.
    """

    tables: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]
    grids: tuple[str, ...]


STUDIES = {
    "astrolabe": Study(
        tables=(
            "astrolabe-1",
            "astrolabe-2",
            "astrolabe-3",
            "astrolabe-4a",
            "astrolabe-4b",
            "astrolabe-4c",
            "astrolabe-beta",
            "astrolabe-adaptive",
        ),
        pairs=(
            ("shapes/self_forcing", "astrolabe_self_forcing_shapes"),
            ("shapes/longlive", "astrolabe_longlive_shapes"),
            ("shapes/causal_forcing", "astrolabe_causal_shapes"),
        ),
        grids=(
            "astrolabe-bases",
            "astrolabe-4a",
            "astrolabe-4b",
            "astrolabe-4c",
            "astrolabe-beta",
            "astrolabe-adaptive",
        ),
    ),
}

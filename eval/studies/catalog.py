"""The studies of the embedded world, one per paper: which tables they fill, from which bases, recipes and grids."""

from __future__ import annotations

from typing import NamedTuple


class Study(NamedTuple):
    """What a study fills and runs.

    Attributes:
        tables: the paper's, of the full study; --quick fills the first.
        pairs: (base, recipe that trains it) on the embedded world; --quick runs the first.
        grids: of the full study, the pairs' among them.
        timed: recipes whose frames per second are measured beside those of the pairs and their bases.
        timed_bases: further bases whose frames per second are.
        quick: the suite that --quick scores, and on how many prompts at most.
        lead: what the page's clips are.
        is_timed: whether frames per second are measured at all.
        staged: (table, grid, recipe of the last row) of the pipeline that `--stages` runs instead, each row from the
            one before.
    """

    tables: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]
    grids: tuple[str, ...]
    timed: tuple[str, ...] = ()
    timed_bases: tuple[str, ...] = ()
    quick: tuple[str, int] = ("shapes", 96)
    lead: str = "Streaming students of the embedded world before and after forward-process reinforcement learning."
    is_timed: bool = True
    staged: tuple[str, str, str] | None = None

    def stages(self) -> Study:
        """The study of the pipeline."""
        assert self.staged is not None
        table, grid, last = self.staged
        return self._replace(tables=(table,), pairs=((self.pairs[0][0], last),), grids=(grid,), is_timed=False)


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
            ("shapes/causal_forcing", "astrolabe_causal_shapes"),
            ("shapes/self_forcing", "astrolabe_self_forcing_shapes"),
            ("shapes/longlive", "astrolabe_longlive_shapes"),
        ),
        grids=(
            "astrolabe-bases",
            "astrolabe-4c",
            "astrolabe-4b",
            "astrolabe-beta",
            "astrolabe-adaptive",
            "astrolabe-4a",
        ),
    ),
    "reward-forcing": Study(
        tables=tuple(f"reward-forcing-{number}" for number in range(1, 8)),
        pairs=(("shapes/longlive", "reward_forcing_shapes"),),
        grids=("reward-forcing-1", "reward-forcing-3"),
        timed=("reward_forcing_window_15_shapes", "reward_forcing_window_21_shapes"),
        timed_bases=("shapes/self_forcing",),
        lead="A streaming student of the embedded world before and after Re-DMD with an EMA sink.",
    ),
    "delta-forcing": Study(
        tables=("delta-forcing-1", "delta-forcing-2", "delta-forcing-3"),
        pairs=(("shapes/longlive", "delta_forcing_shapes"),),
        grids=("delta-forcing",),
        quick=("shapes-multi", 8),
        lead="A streaming student of the embedded world before and after long tuning with Delta Forcing.",
        is_timed=False,
    ),
    "teleboost": Study(
        tables=tuple(f"teleboost-{number}" for number in range(1, 10)),
        pairs=(("shapes/teacher", "bpgo_shapes"),),
        grids=("teleboost-4", "teleboost-7", "teleboost-9", "teleboost-i2v", "teleboost-clips", "teleboost-2"),
        quick=("shapes", 32),
        lead="The bidirectional teacher of the embedded world before and after GRPO with a prior of the reward.",
        is_timed=False,
        staged=("teleboost-stages", "teleboost-stages", "staged_dpo_shapes"),
    ),
    "aapt": Study(
        tables=("aapt-1",),
        pairs=(("shapes/teacher", "aapt_shapes"),),
        grids=("aapt",),
        quick=("shapes", 32),
        lead="The teacher of the embedded world, and the student that makes a frame in one step.",
    ),
}

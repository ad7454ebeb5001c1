"""The one way to write records: `RecordWriter` builds them with their provenance and appends them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.records import store


@dataclass(frozen=True)
class RecordWriter:
    """Writes the records of one arm under one seed into the file of a benchmark, and knows those already there.

    Attributes:
        results: the results folder.
        benchmark: name of the benchmark, and of its file.
        recipe_hash, weights_hash: of the arm.
    """

    results: Path
    benchmark: str
    backbone: store.Backbone
    arm: str
    seed: int
    recipe_hash: str
    weights_hash: str
    prompt_set_hash: str

    @property
    def path(self) -> Path:
        return store.record_path(self.results, self.benchmark)

    def existing(self, *, limited: bool = False) -> list[store.Record]:
        """The newest records in the file, of every arm and seed: of whole evaluations, or of those cut to a limit."""
        records = store.load([self.path]) if self.path.is_file() else []
        return store.latest(record for record in records if (record.limit is not None) == limited)

    def own(self) -> dict[str, store.Record]:
        """This arm's newest records under this seed, by metric, of whole evaluations."""
        key = (self.backbone, self.arm, self.seed)
        return {
            record.metric: record for record in self.existing() if (record.backbone, record.arm, record.seed) == key
        }

    def record(
        self,
        metric: str,
        direction: store.Direction,
        scores: Sequence[float | None],
        protocol: Mapping[str, Any],
        environment: Mapping[str, Any],
    ) -> store.Record:
        """A record that is not written yet.

        Args:
            scores: one per prompt; None: the metric does not apply to it.
            environment: from `training.environment.environment`; says which source tree measured.
        """
        return store.Record(
            benchmark=self.benchmark,
            backbone=self.backbone,
            arm=self.arm,
            seed=self.seed,
            metric=metric,
            direction=direction,
            scores=list(scores),
            recipe_hash=self.recipe_hash,
            weights_hash=self.weights_hash,
            prompt_set_hash=self.prompt_set_hash,
            protocol=dict(protocol),
            commit=environment["commit"] or store.UNKNOWN,
            dirty=bool(environment["dirty"]),
        )

    def append(self, record: store.Record) -> None:
        """Add a record to the file.

        Raises:
            RecordError: it cannot be stored, e.g. a score that is not finite.
            OutputError: the disk is full, or the file cannot be written.
        """
        store.append(self.path, record)

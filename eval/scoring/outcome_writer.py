"""Writes a suite's results as records with their protocol. Refuses to continue an arm under another protocol."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from astro_cli.config.errors import IntegrityError, RecordError
from eval.contract import MetricInfo, Sample
from eval.inputs.check import differing
from eval.inputs.requirements import Requirements
from eval.records import store
from eval.records.writer import RecordWriter
from eval.scoring.outcomes import Order, Outcome
from eval.scoring.scorers import ConfiguredScorer
from eval.scoring.worker import contents
from eval.suites.suite import Suite
from eval.watchers.sidecar import sidecar

BACKBONE: store.Backbone = "wan"  # videos that are scored from files are natural ones, whoever made them
PACKAGES = ("av", "decord", "opencv-python-headless", "open-clip-torch", "torchvision", "transformers", "vbench")
CONFIG_CONDITIONS = ("grayscale", "positions")  # of a scorer's configuration, by themselves among a record's conditions


class OutcomeWriter:
    """Writes the outcomes of one folder as records.

    Args:
        common: the protocol all its records share.
        samples: those that count, of one seed where seeds are kept apart.
    """

    def __init__(
        self,
        results: Path,
        name: str,
        arm: str,
        seed: int,
        order: Order,
        common: Mapping[str, Any],
        samples: Sequence[Sample] = (),
    ) -> None:
        hashes = _provenance(samples)
        self.records = RecordWriter(
            checked_results(results), name, BACKBONE, checked_arm(arm), seed, **hashes, prompt_set_hash=order.hash
        )
        self.seed, self.order, self.common, self.samples = seed, order, common, samples

    @classmethod
    def of_videos(
        cls,
        results: Path,
        suite: Suite,
        needs: Requirements,
        arm: str,
        seed: int,
        samples: Sequence[Sample],
        order: Order,
        decoder: str,
    ) -> OutcomeWriter:
        """With the protocol of these videos, and in what they are not as the suite's published run has them."""
        unlike = sorted({finding.key for finding in differing(samples, needs) if finding.severity == "error"})
        common = _of_videos(suite, samples, order) | {"decoder": decoder, "unlike_published": unlike}
        if needs.published is not None and "prompts" not in unlike:
            common["prompt_set"] = needs.published.name
        return cls(results, needs.suite, arm, seed, order, common, samples)

    def check(self, scorers: Iterable[ConfiguredScorer]) -> None:
        """Refuse to continue an arm whose records were made under another protocol. A limited evaluation is not
        compared.

        Raises:
            IntegrityError: naming what differs.
        """
        if self.order.limit is not None:
            return
        existing = self.records.own()
        for configured in scorers:
            for key, info in configured.metrics.items():
                if key in existing and (wrong := self._differences(existing[key], _scorer_protocol(configured, info))):
                    what = f"{key} of {self.records.arm} was recorded under another protocol: {wrong}"
                    raise IntegrityError(
                        self.records.path,
                        f"seed {self.seed}",
                        what,
                        hint="give these videos another --name, or use another --results",
                    )

    def check_scores(self, outcomes: Iterable[Outcome]) -> None:
        """Refuse to replace this arm's scores by others that come from a file: no protocol tells the two apart.

        Raises:
            IntegrityError: naming what differs.
        """
        existing = self.records.own()
        for outcome in outcomes:
            old = existing.get(outcome.key)
            if old is None or outcome.scores is None:
                continue
            wrong = self._differences(old, {})
            if not wrong and old.scores != outcome.scores:
                wrong = f"other scores, from {old.protocol.get('source_file')}, now {self.common.get('source_file')}"
            if wrong:
                what, hint = (
                    f"{outcome.key} of {self.records.arm} is recorded already: {wrong}",
                    "use another --name, --seed or --results",
                )
                raise IntegrityError(self.records.path, f"seed {self.seed}", what, hint=hint)

    def recorded(self, metrics: Collection[str]) -> list[store.Record]:
        """This arm's newest records of these metrics, of the same videos under the protocol that all share. Results
        from files are each of a file of their own.
        """
        own = self.records.own()
        same = [key for key in ("benchmark_version", *store.CONDITION_KEYS) if key in self.common]
        same += ["videos"] if self.samples else []
        records = []
        for name in sorted(own.keys() & metrics):
            agrees = [own[name].protocol.get(key) == _json(self.common[key]) for key in same]
            if own[name].prompt_set_hash == self.order.hash and all(agrees):
                records.append(own[name])
        return records

    def write(
        self,
        outcomes: Iterable[Outcome],
        totals: Iterable[Outcome],
        *,
        earlier: Sequence[store.Record] = (),
        readers: Iterable[ConfiguredScorer] | None = None,
        of_totals: Mapping[str, Any] | None = None,
    ) -> list[str]:
        """Append a record per complete metric that is not recorded already; returns their names.

        Args:
            earlier: records that the totals rest on, beside the outcomes.
            readers: the scorers whose files beside the videos the totals rest on; default: those of the outcomes.
            of_totals: what the protocol of the totals says instead of the common one.
        """
        existing = {record.key: record for record in self.records.existing(limited=self.order.limit is not None)}
        environment, of_metrics, written = _environment(self.seed), list(outcomes), list[str]()
        own = {_scorer(outcome.configured) for outcome in of_metrics if outcome.configured}
        parts = self.common.get("scorer") or sorted(own | {record.protocol["scorer"] for record in earlier})
        if readers is None:
            readers = [part.configured for part in of_metrics if part.configured]
        for outcome in (*of_metrics, *totals):
            if outcome.scores is None or all(score is None for score in outcome.scores):
                continue
            scorer = (
                _scorer_protocol(outcome.configured, outcome.info)
                if outcome.configured
                else {"scorer": parts, "linearised": outcome.parts == "metrics"}
            )
            if outcome.parts == "metrics":
                scorer |= of_totals or {}
            scorer |= self._files_read([outcome.configured] if outcome.configured else readers)
            record = self._record(outcome, scorer, environment)
            old = existing.get(record.key)
            others = old is not None and old.protocol.get("videos") != record.protocol["videos"]
            if old is not None and others and not written and old.scores != record.scores:
                store.warn_replaced(
                    self.records.path, old, "videos", old.protocol.get("videos"), record.protocol["videos"]
                )
            if old is None or _content(old) != _content(record):
                self.records.append(record)
                written.append(outcome.key)
        return written

    def _files_read(self, scorers: Iterable[ConfiguredScorer]) -> dict[str, str]:
        """Hash of what these scorers read beside the videos, by prompt; empty where they read nothing."""
        used = {configured.name: configured for configured in scorers}.values()
        rows = sorted(
            {
                (sample.prompt_id, *read)
                for configured in used
                for sample in self.samples
                if (read := contents(sample, configured))
            }
        )
        return {store.FILES_READ: hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]} if rows else {}

    def _differences(self, existing: store.Record, scorer: Mapping[str, Any]) -> str:
        ours = {**self.common, **scorer}
        pairs = {key: (existing.protocol.get(key), _json(ours.get(key))) for key in store.CONDITION_KEYS}
        wrong = [f"{key} {old}, now {new}" for key, (old, new) in pairs.items() if old != new]
        if existing.prompt_set_hash != self.order.hash:
            wrong.append(f"prompt set {existing.prompt_set_hash}, now {self.order.hash}")
        return "; ".join(wrong)

    def _record(self, outcome: Outcome, scorer: Mapping[str, Any], environment: Mapping[str, Any]) -> store.Record:
        protocol = {
            **self.common,
            **scorer,
            "unit": outcome.info.unit,
            "scale": outcome.scale,
            **{key: environment[key] for key in ("versions", "device", "threads", "python")},
        }
        assert outcome.scores is not None
        return self.records.record(outcome.key, outcome.info.direction, outcome.scores, _json(protocol), environment)


def checked_arm(name: str) -> str:
    """The name of an arm.

    Raises:
        RecordError: it is empty.
    """
    if not name.strip():
        raise RecordError("--name", name, "empty", hint="the arm's name in the tables' TOML, e.g. astrolabe_causal")
    return name


def checked_results(results: Path) -> Path:
    """The folder of records, which need not be there yet.

    Raises:
        RecordError: it cannot be made or written: there is a file in its place, or no permission.
    """
    hint = "name a folder; it is made where it is not there"
    for wanted in (results / "records", results / "samples"):
        there = next(folder for folder in (wanted, *wanted.parents) if folder.exists())
        if not there.is_dir():
            raise RecordError("--results", str(results), f"{there} is a file", hint=hint)
        if not os.access(there, os.W_OK):
            raise RecordError("--results", str(results), f"{there} cannot be written", hint=hint)
    return results


def _of_videos(suite: Suite, samples: Sequence[Sample], order: Order) -> dict[str, Any]:
    infos, hashes = [sample.info for sample in samples], sorted(sample.video_hash for sample in samples)
    return {
        "benchmark_version": suite.version,
        "prompt_set": order.name or None,
        "prompts": len(order.needed),
        "samples_per_prompt": _one(order.needed.values()),
        "seeds": sorted({sample.seed for sample in samples if sample.seed is not None}),
        "num_frames": _one(info.frames for info in infos),
        "fps": _one(round(info.fps, 3) for info in infos),
        "resolution": _one((info.width, info.height) for info in infos),
        "videos": hashlib.sha256("".join(hashes).encode()).hexdigest()[:16],
        "limit": order.limit,
        "published_protocol": suite.protocol.model_dump(exclude_none=True),
    }


def _content(record: store.Record) -> tuple[Any, ...]:
    """What makes a second record of one key worth writing."""
    return record.scores, record.conditions, record.protocol.get("videos"), record.protocol.get(store.FILES_READ)


def _scorer(configured: ConfiguredScorer) -> str:
    return f"{configured.spec.scorer}-{configured.config_hash}-{configured.weights_hash}"


def _scorer_protocol(configured: ConfiguredScorer, info: MetricInfo) -> dict[str, Any]:
    config = configured.config.model_dump(mode="json")
    conditions = {key: config[key] for key in CONFIG_CONDITIONS if key in config}
    return {"scorer": _scorer(configured), "config": config, **conditions} | ({"norm": info.norm} if info.norm else {})


def _one(values: Iterable[Any]) -> Any:
    """The value all share, else all distinct ones, sorted."""
    distinct = sorted(set(values))
    return distinct[0] if len(distinct) == 1 else distinct


def _json(value: Any) -> Any:
    """As it comes back from a file: tuples are lists."""
    return json.loads(json.dumps(value))


def _provenance(samples: Sequence[Sample]) -> dict[str, str]:
    """Recipe and weights hash that all sidecars of `astro sample` agree on."""
    hashes: dict[str, set[str]] = {"recipe_hash": set(), "weights_hash": set()}
    for sample in samples:
        facts = sidecar(sample)
        for key, values in hashes.items():
            values.add(str(facts.get(key) or store.UNKNOWN))
    return {key: next(iter(values)) if len(values) == 1 else store.UNKNOWN for key, values in hashes.items()}


def _environment(seed: int) -> dict[str, Any]:
    """Source tree, versions, those of the scorers' packages too, and device."""
    from astro_cli.training.environment import environment  # imports torch

    torch = sys.modules["torch"]
    here = environment("cuda" if torch.cuda.is_available() else "cpu", seed)
    return here | {"versions": here["versions"] | {package: _version(package) for package in PACKAGES}}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None

"""The record store: what was measured, on what, with which weights, kept as append-only JSON lines."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import ConfigDict, Field, ValidationError, field_validator

from astro_cli.config.base import Config
from astro_cli.config.errors import RecordError, warn
from astro_cli.config.problems import first_problem
from astro_cli.models import retired
from eval.records import jsonl

SCHEMA_VERSION = 1
Backbone = Literal["shapes", "wan"]
Direction = Literal["up", "down"]
BACKBONES: tuple[Backbone, ...] = get_args(Backbone)
# What makes two records of one metric comparable. Package versions stay out: they differ between the seeds of a long
# study.
# The last four are a learned scorer's: normalisation, gray frames, position ids, and which weights.
CONDITION_KEYS = (
    "num_frames",
    "fps",
    "resolution",
    "prompts",
    "samples_per_prompt",
    "norm",
    "grayscale",
    "positions",
    "scorer",
)
# Numbers of these metrics depend on the machine, so the device is one of their conditions; what was measured lies
# beside each video.
HARDWARE_METRICS = frozenset({"throughput", "throughput_streaming", "loop_throughput", "latency", "peak_memory"})
UNKNOWN = "unknown"  # a hash or commit of videos that come without one
CLOCKS_DIFFER = timedelta(minutes=10)  # between machines; a record dated further ahead has a wrong date
_warned: set[tuple[Path, int]] = set()
DEVICE, FILES_READ = "device", "files_read"  # of the protocol; the second: hash of references and start images

# What is read of a protocol by its key, and not only compared and printed.
PROTOCOL_KINDS: dict[str, tuple[type, ...]] = {
    "versions": (dict,),
    "official_aggregates": (dict,),
    "videos": (str,),
    "source_file": (str,),
    "limit": (int, type(None)),
}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


class Record(Config):
    """One metric of one arm under one seed, with a score per sample in the order of the prompt set."""

    # A NaN score is refused by `append` with a message that says where, not here with a traceback.
    model_config = ConfigDict(allow_inf_nan=True)

    schema_version: Literal[1] = SCHEMA_VERSION
    benchmark: str = Field(pattern=r"^[A-Za-z0-9_\-]+$")  # also the file's name
    backbone: Backbone
    arm: str = Field(min_length=1)
    seed: int
    metric: str = Field(min_length=1)
    direction: Direction
    scores: list[jsonl.Score] = Field(min_length=1)  # None: the metric does not apply to that sample
    recipe_hash: str
    weights_hash: str
    prompt_set_hash: str
    protocol: dict[str, Any]  # num_frames, fps, resolution, prompts (count), versions, device
    commit: str
    dirty: bool
    created: str = Field(default_factory=_now)  # ISO 8601, in UTC

    @field_validator("created")
    @classmethod
    def _utc(cls, value: str) -> str:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError("needs a time zone, e.g. 2026-01-31T12:00:00+00:00")
        try:
            return moment.astimezone(UTC).isoformat(timespec="microseconds")
        except OverflowError as error:
            raise ValueError(f"{value} is no date of the calendar in UTC") from error

    @field_validator("protocol")
    @classmethod
    def _kinds(cls, value: dict[str, Any]) -> dict[str, Any]:
        for key in PROTOCOL_KINDS.keys() & value.keys():
            if not isinstance(value[key], PROTOCOL_KINDS[key]) or isinstance(value[key], bool):
                expected = " or ".join(kind.__name__ for kind in PROTOCOL_KINDS[key])
                raise ValueError(f"{key}: found {str(value[key])[:40]!r}, expected {expected}")
        return value

    @property
    def key(self) -> tuple[str, str, str, int, str]:
        """What a newer record replaces an older one of."""
        return (self.benchmark, self.backbone, self.arm, self.seed, self.metric)

    @property
    def mean(self) -> float:
        """Of the scores of samples to which the metric applies."""
        return mean(self.scores)

    @property
    def limit(self) -> int | None:
        """How many prompts an evaluation was cut to; None for a whole one. Tables leave cut ones out."""
        return self.protocol.get("limit")

    @property
    def condition_keys(self) -> tuple[str, ...]:
        """The entries of the protocol that decide whether records of this metric are comparable."""
        return (*CONDITION_KEYS, DEVICE if self.metric in HARDWARE_METRICS else FILES_READ)

    @property
    def conditions(self) -> tuple[str, ...]:
        """Records may be averaged, or subtracted sample by sample, only where these agree."""
        return self.conditions_but(())

    def conditions_but(self, varies: Collection[str]) -> tuple[str, ...]:
        """The conditions without these entries of the protocol."""
        keys = [key for key in self.condition_keys if key not in varies]
        values = (json.dumps(self.protocol.get(key), sort_keys=True, default=str) for key in keys)
        return (self.prompt_set_hash, *values)


def mean(scores: Iterable[float | None]) -> float:
    """Mean of the scores that there are; NaN without any."""
    present = [score for score in scores if score is not None]
    return sum(present) / len(present) if present else float("nan")


def record_path(results: Path, benchmark: str) -> Path:
    """Where the records of one benchmark are kept."""
    return Path(results) / "records" / f"{benchmark}.jsonl"


def append(path: Path, record: Record) -> None:
    """Add one record and return once it is on the disk, as `jsonl.append` does."""
    jsonl.append(Path(path), [_encode(path, record)])


def load(paths: Iterable[Path]) -> list[Record]:
    """All records of these files, in file order. An unfinished last line is skipped; any other damage is a
    RecordError. A date in the future is warned about: what is newest is decided by the place in the file.
    """
    return [record for path in paths for record in _load_file(Path(path))]


def load_results(results: Path) -> list[Record]:
    """All records below a results folder; none is not an error, the tables then say so.

    Raises:
        RecordError: the folder or a file of it cannot be read, or a file is damaged.
    """
    folder = Path(results) / "records"
    try:
        return load(sorted(path for path in folder.iterdir() if path.suffix == ".jsonl"))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RecordError(
            folder,
            "",
            f"cannot be read: {error.strerror or error}",
            hint="expected a folder of records, as `astro eval` writes it",
        ) from error


def latest(records: Iterable[Record]) -> list[Record]:
    """The last record per (benchmark, backbone, arm, seed, metric): files are only appended to, and clocks may be
    wrong.
    """
    return list({record.key: record for record in records}.values())


def warn_replaced(path: Path, record: Record, what: str, old: object, new: object) -> None:
    """Say on stderr that newer records take the place of those of other weights or videos under one name."""
    warn(
        f"{path}: {record.arm}, seed {record.seed}: was recorded of {what} {old}, is recorded of {new} now; "
        "tables show the newest"
    )


def _encode(path: Path, record: Record) -> bytes:
    try:
        return jsonl.encode(record.model_dump())
    except (TypeError, ValueError) as error:
        bad = [i for i, score in enumerate(record.scores) if score is not None and not abs(score) < float("inf")]
        key = f"scores[{bad[0]}]" if bad else "protocol"
        what = f"{record.metric} of {record.arm}, seed {record.seed}, cannot be stored: {error}"
        raise RecordError(
            path, key, what, hint="use null where a metric does not apply to a sample" if bad else ""
        ) from error


def _load_file(path: Path) -> Iterator[Record]:
    ahead = (datetime.now(UTC) + CLOCKS_DIFFER).isoformat(timespec="microseconds")
    for number, fields in jsonl.read(path):
        record = _checked(path, number, fields)
        if record.created > ahead and (path, number) not in _warned:
            _warned.add((path, number))
            what = f"dated {record.created}, in the future; its place in the file decides which record is the newest"
            warn(f"{path}: line {number}: {what}")
        yield record


def _checked(path: Path, number: int, fields: Any) -> Record:
    try:
        record = Record.model_validate(fields, strict=True)
    except ValidationError as error:
        wrong = first_problem(error)
        raise RecordError(
            path, f"line {number}", f"{wrong.key or 'record'}: {wrong.what}, found {wrong.shown}"
        ) from error
    if record.weights_hash in retired.BY_HASH:
        raise RecordError(
            path,
            f"line {number}: weights_hash",
            f"found {record.weights_hash}, {retired.BY_HASH[record.weights_hash]} of an earlier version, whose scores "
            "do not compare with today's",
            hint="move the file away and measure again, e.g. `astro reproduce astrolabe`",
        )
    return record

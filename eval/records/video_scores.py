"""The per-sample store: one JSON line per video and scorer. A killed evaluation continues from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from astro_cli.config.base import Config
from astro_cli.config.errors import RecordError
from astro_cli.config.problems import first_problem
from eval.contract import Sample
from eval.records import jsonl

SCHEMA_VERSION = 1
FILE_LABELS = frozenset({"image", "reference"})  # labels that name files
# Video, prompt with what the prompt set says of it and the files it names, scorer, its configuration, its weights: what
# has a line with this key
# need not be scored again.
Key = tuple[str, str, str, str, str]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class ScoreLine(Config):
    """All scores of one scorer for one video. `scores` and `details` go by metric id; null: the metric does not
    apply.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    video: str  # file name, to be read by people
    video_hash: str
    prompt_id: str
    prompt_hash: str
    seed: int | None
    scorer: str
    config_hash: str
    weights_hash: str
    decoder: str
    scores: dict[str, jsonl.Score]
    details: dict[str, Any] = Field(default_factory=dict)
    created: str = Field(default_factory=_now)

    @property
    def key(self) -> Key:
        return (self.video_hash, self.prompt_hash, self.scorer, self.config_hash, self.weights_hash)


def prompt_hash(sample: Sample, contents: Sequence[str] = ()) -> str:
    """16 hex digits over everything but the video that a score may depend on: id, prompt, segments, labels and the
    content of files.

    Args:
        contents: hashes of the files the scorer reads beside the video; what they are called is left out.
    """
    segments = [(segment.start, segment.end, segment.prompt) for segment in sample.segments]
    labels = {key: value for key, value in sample.labels.items() if key not in FILE_LABELS}
    parts = [sample.prompt_id, sample.prompt, segments, labels, *([list(contents)] if contents else [])]
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class SampleStore:
    """`<results>/samples/<suite>/<scorer>.jsonl`; holds the newest line per key in memory, without details."""

    def __init__(self, results: Path, suite: str) -> None:
        self.folder = Path(results) / "samples" / suite
        self._lines: dict[Key, ScoreLine] = {}

    def load(self, names: Iterable[str]) -> None:
        """Read the files of these scorers.

        Raises:
            RecordError: a line other than an unfinished last one is damaged.
        """
        for path in map(self.path, names):
            for number, fields in jsonl.read(path) if path.exists() else ():
                self._keep(_checked(path, number, fields))

    def find(self, key: Key) -> ScoreLine | None:
        return self._lines.get(key)

    def add(self, name: str, line: ScoreLine) -> None:
        """Append one line and return once it is on the disk."""
        jsonl.append(self.path(name), [jsonl.encode(line.model_dump())], "score")
        self._keep(line)

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.jsonl"

    def _keep(self, line: ScoreLine) -> None:
        self._lines[line.key] = line.model_copy(update={"details": {}})


def _checked(path: Path, number: int, fields: Any) -> ScoreLine:
    try:
        return ScoreLine.model_validate(fields, strict=True)
    except ValidationError as error:
        raise RecordError(path, f"line {number}", first_problem(error).text) from error

"""Suites as data: the classes of `eval/suites/*.toml`, how they are found and read."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from astro_cli.config.base import Config
from astro_cli.config.errors import RecordError, did_you_mean
from eval.records import data_file

if TYPE_CHECKING:
    from eval.contract import MetricInfo  # imports numpy, which the command line does without


class Protocol(Config):
    """What the videos of a published run of this suite are like. Recorded, and checked before scoring; None: any.

    Attributes:
        prompts: prompt set of the published run, where the suite takes any prompts; looked up only where its list is
            here.
    """

    fps: float | None = None
    frames: int | None = None
    resolution: tuple[int, int] | None = None  # width, height
    seconds: float | None = None
    prompts: str | None = None


class ScorerSpec(Config):
    """A scorer as a suite uses it.

    Attributes:
        name: of its file of per-sample scores; the scorer's own where a suite uses it once.
        config: differences from the scorer's defaults.
        only: metric ids that are recorded; none named: all.
        keys: metric id -> name in records and tables; by default the id's part after the dot.
        candidates: how many videos of a prompt are looked at for the first `samples` to which the metric applies; 0: it
            must apply to the first.
        scale: factor from the scorer's unit to the one tables print, e.g. 100 for VBench's fractions.
    """

    scorer: str
    name: str = ""
    config: dict[str, Any] = Field(default_factory=dict)
    only: tuple[str, ...] = ()
    keys: dict[str, str] = Field(default_factory=dict)
    candidates: int = Field(default=0, ge=0)
    scale: float = 1.0

    @property
    def label(self) -> str:
        return self.name or self.scorer

    def names(self, metrics: Iterable[MetricInfo]) -> dict[str, MetricInfo]:
        """The recorded ones of a scorer's metrics, by their names in records."""
        return {self.key(info): info for info in metrics if not self.only or info.id in self.only}

    def key(self, info: MetricInfo) -> str:
        return self.keys.get(info.id, info.id.rpartition(".")[2])


class Suite(Config):
    """One benchmark of video folders; its name is the file's stem.

    Attributes:
        version: goes up when records made before can no longer be compared.
        prompts: prompt set, "" for whatever the folder's manifest says.
        select: label of a prompt that lists the metrics it is meant for (VBench's `dimension`); "" for all prompts, all
            metrics.
        samples: videos per prompt.
        totals: name in records -> name in `eval/scoring/totals.py`; computed once every metric they need is complete.
    """

    title: str
    version: int
    source: str
    prompts: str = ""
    select: str = ""
    samples: int = Field(1, ge=1)
    protocol: Protocol = Protocol()
    totals: dict[str, str] = Field(default_factory=dict)
    scorers: tuple[ScorerSpec, ...] = Field(min_length=1)

    @field_validator("scorers")
    @classmethod
    def _distinct(cls, value: tuple[ScorerSpec, ...]) -> tuple[ScorerSpec, ...]:
        names = [spec.label for spec in value]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{repeated[0]!r} is used twice: give one a `name`")
        return value


def list_suites() -> list[str]:
    """The names of all suites of video folders, sorted."""
    return sorted(file.name.removesuffix(".toml") for file in _folder().iterdir() if file.name.endswith(".toml"))


def load_suite(name: str) -> Suite:
    """The suite of this name, checked.

    Raises:
        RecordError: no such suite, with the nearest name; or its file is wrong.
    """
    if name not in (known := list_suites()):
        raise RecordError("eval", name, "no such suite", hint=did_you_mean(name, known))
    return parse_suite((_folder() / f"{name}.toml").read_text(encoding="utf-8"), f"{name}.toml")


def parse_suite(text: str, where: str) -> Suite:
    """A suite from TOML text; `where` names it in errors."""
    return data_file.parse(Suite, text, where)


def _folder() -> Traversable:
    return resources.files("eval.suites")

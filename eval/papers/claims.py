"""The papers' claims as predicates: the classes of `eval/papers/claims/*.toml` and how they are read.

A side of a comparison is a recipe's stem or a released checkpoint's name; its arm is `<stem>` on Wan and
`<stem>_shapes` on the embedded world. A claim's `arms` replace stems on a backbone, a paper's `planned` names stems
that no recipe has yet.
"""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from astro_cli.config.base import Config
from astro_cli.config.errors import RecordError, did_you_mean
from eval.papers.published import list_tables
from eval.records import data_file
from eval.records.store import Backbone

Relation = Literal[">", ">=", "=", "<=", "<"]
VerdictWord = Literal["holds", "fails", "undecided", "not run"]
# What an effect is: a paired difference, a ratio of means, a mean by itself, or a share of metrics.
EffectKind = Literal["difference", "ratio", "value", "share"]


class _Measured(Config):
    metrics: list[str] = Field(min_length=1)
    exact: bool = False  # bytes, an identity: not a sample, so that one value decides
    ours: bool = False  # margin, factor or bound are not the paper's


class Compare(_Measured):
    """metric(a) relation metric(b), for every metric and every b; paired over prompts and seeds.

    `margin` (or `margin_share` of |metric(b)|) widens >=, <= and =, and is what > and < must exceed. With a `factor`
    the ratio metric(a) / metric(b) is compared with it.
    """

    kind: Literal["compare"] = "compare"
    a: str
    relation: Relation
    b: list[str] = Field(min_length=1)
    factor: float | None = Field(default=None, gt=0)
    margin: float = Field(default=0.0, ge=0)
    margin_share: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _one_allowance(self) -> Self:
        if self.factor is not None and (self.margin or self.margin_share):
            raise ValueError("factor: takes no margin beside it, the factor is the margin")
        return self


class Trend(_Measured):
    """The metric rises, or falls, from each recipe of the order to the next."""

    kind: Literal["trend"]
    order: list[str] = Field(min_length=2)
    direction: Literal["rises", "falls"]


class Bound(_Measured):
    """metric(a) relation value, on average over prompts and seeds."""

    kind: Literal["bound"]
    a: str
    relation: Relation
    value: float
    margin: float = Field(default=0.0, ge=0)


class Most(_Measured):
    """a has the highest mean of a and every b in more than half of the metrics, all better when higher.

    `absent` lists metrics that have no counterpart on a backbone: they do not count there.
    """

    kind: Literal["most"]
    a: str
    b: list[str] = Field(min_length=1)
    absent: dict[Backbone, list[str]] = Field(default_factory=dict)


class Published(Config):
    """All checks of these tables come out (`eval.papers.verify`)."""

    kind: Literal["published"]
    verify: list[str] = Field(min_length=1)


Part = Annotated[Compare | Trend | Bound | Most | Published, Field(discriminator="kind")]


class Measure(Config):
    """What plays a metric on a backbone: a name in records, of this benchmark or, where none is named, of the
    claim's.
    """

    name: str
    benchmark: str | None = None


def _named(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


Measures = dict[Backbone, dict[str, Annotated[Measure, BeforeValidator(_named)]]]  # a name alone will do


class Claim(Config):
    """One statement of a paper: it holds where all its parts do."""

    id: str
    source: str
    text: str
    tables: list[str] = Field(default_factory=list)  # printed below the first of them; none: below the paper's last
    benchmark: dict[Backbone, str] = Field(default_factory=dict)  # none named: any, but only one
    metrics: Measures = Field(default_factory=dict)  # before the paper's
    arms: dict[Backbone, dict[str, str]] = Field(default_factory=dict)  # sides that are another recipe on a backbone
    parts: list[Part] = Field(min_length=1)

    def stem(self, side: str, backbone: Backbone) -> str:
        """The recipe that is this side on a backbone."""
        return self.arms.get(backbone, {}).get(side, side)


class PaperClaims(Config):
    """The claims of one paper. `metrics` says what plays a metric on a backbone (VQ is HPSv3 on Wan)."""

    title: str
    planned: list[str] = Field(default_factory=list)  # sides and rows of tables whose recipes are still to come
    metrics: Measures = Field(default_factory=dict)
    claims: list[Claim] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        ids, tables = [claim.id for claim in self.claims], list_tables()
        if repeated := sorted({name for name in ids if ids.count(name) > 1}):
            raise ValueError(f"claim {repeated[0]!r} is there twice")
        for claim in self.claims:
            verified = [name for part in claim.parts if isinstance(part, Published) for name in part.verify]
            if unknown := [name for name in [*claim.tables, *verified] if name not in tables]:
                raise ValueError(f"claim {claim.id!r}: no table {unknown[0]!r}; {did_you_mean(unknown[0], tables)}")
        return self

    def measure(self, metric: str, claim: Claim, backbone: Backbone) -> Measure:
        """What plays the metric in this claim: by the claim, else by the paper, else the metric itself."""
        measure = (
            claim.metrics.get(backbone, {}).get(metric)
            or self.metrics.get(backbone, {}).get(metric)
            or Measure(name=metric)
        )
        return Measure(name=measure.name, benchmark=measure.benchmark or claim.benchmark.get(backbone))


class Open(Config):
    """An undecided part: the arms it compares, the seeds all of them have, and how many would decide it with the
    prompts there are (None: no number would). Of one seed it is 2, since one says nothing about others.
    """

    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    needed: int | None


class PartVerdict(Config):
    """One comparison of a claim: of which metric, between which stems, with means, effect and interval.

    Numbers are empty where nothing was measured. A value or a ratio is judged by its `reference`; a value has no `b`.
    """

    text: str
    verdict: VerdictWord
    metric: str = ""
    a: str = ""
    b: str = ""
    a_mean: float | None = None
    b_mean: float | None = None
    effect: float | None = None
    effect_kind: EffectKind | None = None
    low: float | None = None  # none of one prompt under one seed
    high: float | None = None
    n: int = 0
    relation: Relation | None = None  # none: a count of metrics, or checks of published numbers
    reference: float | None = None
    allowance: str = ""  # the margin and whose it is, in words
    advice: str = ""  # what would decide it, where it is undecided


class Verdict(Config):
    """A claim's verdict. `model_dump()` is the stable JSON form; excluded fields only help to print.

    Effect and interval are those of the first part with the claim's verdict. n counts the seeds that the verdict rests
    on: where the claim fails, those of the failed part with the most; else the fewest of any part. All are empty where
    nothing was measured, and the backbone is where the claim is about published numbers. `metric` is the effect's,
    empty where it is of several.
    """

    id: str
    source: str
    verdict: VerdictWord
    effect: float | None
    effect_kind: EffectKind | None
    low: float | None
    high: float | None
    n: int
    backbone: Backbone | None
    text: str = Field(exclude=True)
    metric: str = Field("", exclude=True)
    tables: list[str] = Field(exclude=True)
    parts: list[PartVerdict]
    open: list[Open] = Field([], exclude=True)


def list_papers() -> list[str]:
    """Papers that have claims, by name."""
    return sorted(file.name.removesuffix(".toml") for file in _folder().iterdir() if file.name.endswith(".toml"))


def load_claims(paper: str) -> PaperClaims:
    """The claims of one paper, checked.

    Raises:
        RecordError: no such paper, or its TOML is wrong.
    """
    known = list_papers()
    if paper not in known:
        raise RecordError("claims", paper, "no such paper", hint=did_you_mean(paper, known))
    return parse_claims((_folder() / f"{paper}.toml").read_text(encoding="utf-8"), f"{paper}.toml")


def parse_claims(text: str, where: str) -> PaperClaims:
    """Claims from TOML text; `where` names it in errors. A part's `kind` is `compare` where it is left out."""
    return data_file.parse(PaperClaims, text, where, prepare=_name_kinds)


def _name_kinds(fields: dict[str, Any]) -> None:
    for part in (part for claim in fields.get("claims", []) for part in claim.get("parts", [])):
        part.setdefault("kind", "compare")


def _folder() -> Traversable:
    return resources.files("eval.papers") / "claims"

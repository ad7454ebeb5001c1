"""The model card of a finished run: base and its licence, what was measured, how to use it, recipe.

As the Hugging Face hub reads it: YAML between rules, then Markdown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from huggingface_hub import ModelCardData

from astro_cli.config import toml_text
from astro_cli.config.errors import AstroError, CheckpointError, IntegrityError, RecordError
from astro_cli.config.files import Reader
from astro_cli.models import hashes, weights
from astro_cli.spec import Recipe
from astro_cli.training.rundir import RunDir
from astro_cli.zoo.entries import WAN_APACHE
from astro_cli.zoo.places import MANIFEST, locate, release_of
from eval.records.compare import Comparison, compare
from eval.records.store import Record, latest

STUDENT = "student"
APACHE, OTHER = "apache-2.0", "other"  # as the hub names licences
UNKNOWN = "unknown to astro: see the base"
NO_BASE = "none: trained from fresh weights"


class Base(NamedTuple):
    """What a run started from: as its recipe names it, its arm in records, its hub repository, its licence."""

    source: str
    arm: str | None
    repo: str | None
    licence: str


def base_of(recipe: Recipe) -> Base:
    """The base of a recipe's student; Apache-2.0 for packaged ones, which come with astro."""
    source = recipe.base.student
    if source is None:
        return Base(NO_BASE, None, None, WAN_APACHE)
    if recipe.backbone == "shapes":
        return Base(source, _arm(source), None, WAN_APACHE if source in weights.packaged() else UNKNOWN)
    try:
        place = locate(source)
        entry = release_of(source, place if place.is_file() else place / MANIFEST)
    except AstroError:
        return Base(source, None, None, UNKNOWN)
    return Base(source, None, None, UNKNOWN) if entry is None else Base(source, entry.name, entry.repo, entry.licence)


def _arm(source: str) -> str | None:
    """The name in records of a base of the embedded world: its recipe's."""
    try:
        card = Reader(CheckpointError).table(weights.find(source, STUDENT).with_suffix(".json"))
    except CheckpointError:
        return None
    return str(card.get("recipe", "")) or None


def model_card(run: RunDir, repo: str, records: Iterable[Record]) -> str:
    """The card of a finished run as `README.md` of a hub repository.

    Args:
        repo: `OWNER/NAME` it is pushed to.
        records: of any arms; those of this run's weights and of its base are shown.
    """
    recipe = run.recipe()
    base, origin = base_of(recipe), run.origin()
    data = ModelCardData(
        license=APACHE if base.licence == WAN_APACHE else OTHER,
        library_name="astro-cli",
        pipeline_tag="text-to-video",
        base_model=base.repo,
        tags=[recipe.command, recipe.backbone, *([recipe.paper] if recipe.paper else [])],
    )
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {repo.split('/')[1]}",
        f"Trained with `astro {recipe.command} --recipe {recipe.name}`, seed {recipe.seed}.",
        "| | |\n|---|---|\n" + "\n".join(f"| {key} | {value} |" for key, value in _facts(recipe, base, origin)),
        "## Measured\n\n" + _measured(run, recipe, base, latest(records)),
        *_use(run, repo),
        "## Recipe\n\n```toml\n" + recipe_text(recipe) + "```",
    ]
    return "\n\n".join(parts) + "\n"


def recipe_text(recipe: Recipe) -> str:
    """The resolved recipe as TOML."""
    return toml_text.dumps(recipe.model_dump(mode="json", exclude_none=True))


def _facts(recipe: Recipe, base: Base, origin: dict[str, object]) -> list[tuple[str, str]]:
    repo = f", [{base.repo}](https://huggingface.co/{base.repo})" if base.repo else ""
    commit = f"{origin['commit']}{' with changes' if origin['dirty'] else ''}"
    return [
        ("base", f"`{base.source}`{repo}" if base.source != NO_BASE else NO_BASE),
        ("licence of the base", base.licence),
        ("recipe", f"`{recipe.name}`, hash `{recipe.hash()}`"),
        ("source tree", commit if origin["commit"] else "not recorded"),
    ]


def _measured(run: RunDir, recipe: Recipe, base: Base, records: Sequence[Record]) -> str:
    """A row per metric that the records hold of these very weights, with the base's where both were scored alike."""
    file = run.final / f"{STUDENT}.safetensors"
    digest = hashes.digest(file) if file.is_file() else ""
    own = [record for record in records if record.weights_hash == digest and record.limit is None]
    if not own:
        return "Not evaluated: no record of these weights."
    of_base = [record for record in records if record.arm == base.arm and record.limit is None]
    try:
        rows = compare(base.arm or "", of_base, own[0].arm, own)
    except (RecordError, IntegrityError):
        rows = []
    compared = {(row.benchmark, row.metric): row for row in rows if not row.note}
    lines = ["| suite | metric | base | this model | difference, 95 % interval |", "|---|---|---|---|---|"]
    for record in own:
        row = compared.get((record.benchmark, record.metric))
        cells = ("", "") if row is None else (_number(row.mean_a), _difference(row))
        lines.append(f"| {record.benchmark} | {record.metric} | {cells[0]} | {_number(record.mean)} | {cells[1]} |")
    prompts = sorted({len(record.scores) for record in own})
    note = (
        f"Mean over {', '.join(map(str, prompts))} prompts of one training seed; differences are paired by prompt, and "
        "their interval covers prompts only."
    )
    if recipe.backbone == "shapes":
        note += " Scores on `shapes` are not comparable with published ones."
    return "\n".join([*lines, "", note])


def _difference(row: Comparison) -> str:
    interval = "" if row.low is None else f" [{_number(row.low, '+')}, {_number(row.high, '+')}]"
    return f"{_number(row.difference, '+')}{interval}"


def _number(value: float | None, sign: str = "") -> str:
    """Three decimals; never -0.000."""
    return "" if value is None else f"{round(value, 3) + 0.0:{sign}.3f}"


def _use(run: RunDir, repo: str) -> list[str]:
    if not (run.final / f"{STUDENT}.safetensors").is_file():
        return []
    lines = [f"hf download {repo}", f'astro sample "PROMPT" --weights {repo}']
    return ["## Use\n\n```\n" + "\n".join(lines) + "\n```"]

"""Grids of ablation runs: a published ablation's rows as recipes, crossed with seeds, and which of them are done."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from astro_cli.config.base import Config
from astro_cli.config.errors import AstroError, OutputError, RecipeError, did_you_mean
from astro_cli.config.files import Reader
from astro_cli.recipe import load_recipe
from astro_cli.spec import Recipe
from astro_cli.training.rundir import RunDir

GRIDS = Path(__file__).resolve().parent / "ablations"


class AblationRow(Config):
    """A row of the published table: a recipe that is trained, or an arm that is only evaluated.

    `after` names the recipe of an earlier row, whose student this row starts from.
    """

    label: str
    recipe: str | None = None
    arm: str | None = None
    after: str | None = None


class Grid(Config):
    """`suites` score every row; "shapes@48x48" at another size than the trained one."""

    title: str
    suites: tuple[str, ...] = ("shapes",)
    rows: tuple[AblationRow, ...]


@dataclass(frozen=True)
class Job:
    """One row at one seed, scored by `suites`. `state` is "finished", "started", "changed" (begun with other inputs
    than there are now), "new" or "damaged"; without a recipe `arm` is evaluated as it is.

    Attributes:
        given: the recipe as the grid names it.
        after: the name of the job whose student it starts from; `sets` says so to the command.
    """

    label: str
    seed: int
    given: str | None
    recipe: Recipe | None
    arm: str
    state: str
    suites: tuple[str, ...]
    after: str | None = None
    sets: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.recipe.name if self.recipe else self.arm} seed {self.seed}"

    @property
    def log(self) -> str:
        """The stem of its log's name."""
        return self.name.replace("/", "-").replace(" ", "-")


def list_grids() -> list[str]:
    return sorted(path.stem for path in GRIDS.glob("*.toml"))


def load_grid(name: str) -> Grid:
    """A grid by its id.

    Raises:
        RecipeError: no such grid, with the nearest name.
    """
    if name not in list_grids():
        raise RecipeError("ablate", name, "no such ablation", hint=did_you_mean(name, list_grids()))
    return Grid(**Reader(RecipeError).toml(GRIDS / f"{name}.toml"))


def plan(grid: Grid, seeds: list[int], runs: Path, overrides: list[str], steps: int | None) -> list[Job]:
    """Every row at every seed, seed by seed, so that an interrupted study has whole pairs.

    Raises:
        RecipeError: a recipe or an override that is wrong.
    """
    jobs = []
    for seed in seeds:
        own: dict[str, Job] = {}  # of this seed, by the recipe's name in the grid
        for row in grid.rows:
            if row.recipe is None:
                assert row.arm is not None
                jobs.append(Job(row.label, seed, None, None, row.arm, "finished", grid.suites))
                continue
            before = own[row.after] if row.after is not None else None
            sets = () if before is None else (f"base.student={before.arm}",)
            recipe = load_recipe(row.recipe, [*overrides, *sets, f"seed={seed}"])
            if steps is not None:
                last = f"stages.{recipe.order[-1]}.steps={steps}"
                recipe = load_recipe(row.recipe, [*overrides, *sets, f"seed={seed}", last])
            folder = runs / f"{recipe.name}-seed{seed}"
            state, name = _state(folder, recipe), None if before is None else before.name
            job = Job(row.label, seed, row.recipe, recipe, str(folder), state, grid.suites, name, sets)
            own[row.recipe] = job
            jobs.append(job)
    return jobs


def merge(plans: list[list[Job]]) -> list[Job]:
    """The jobs of several grids, each once, with the suites of all grids it is in; seed by seed."""
    merged: dict[str, Job] = {}
    for job in (job for jobs in plans for job in jobs):
        known = merged.get(job.name)
        merged[job.name] = replace(job, suites=tuple(dict.fromkeys([*known.suites, *job.suites]))) if known else job
    return sorted(merged.values(), key=lambda job: job.seed)


def _state(folder: Path, recipe: Recipe) -> str:
    """A folder with another recipe's run counts as new; training then refuses it with a message, and a changed one."""
    run = RunDir(folder)
    try:
        identity = run.identity()
        if identity is None or identity[1] != recipe.hash():
            return "new"
        if run.changed(recipe):
            return "changed"
    except OutputError:
        return "damaged"
    except AstroError:  # an input is not here: nothing says that it changed
        pass
    return "finished" if run.finished else "started"

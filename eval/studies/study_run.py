"""The order of a paper's study: base -> training -> evaluation -> tables, figures and page.

How a step is done, and what a user sees of it, is the caller's.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from astro_cli.recipe import load_recipe
from astro_cli.spec import Recipe
from eval.papers.ablation import Job, load_grid, merge, plan
from eval.papers.claims import Verdict, load_claims
from eval.papers.verdicts import evaluate
from eval.report.paper_figures import Made, PaperFigure, pictures
from eval.report.study import WrittenStudy, study_records, write_study
from eval.studies.catalog import Study
from eval.studies.grid_run import GridRun, core_seconds
from eval.studies.raters import RATER_STUDIES, rate
from eval.studies.until_decided import Planner, Round, costs, run_until_decided
from eval.world.suites import WORLD_SUITES

TIMED = "shapes"  # the suite that measures frames per second


class Steps(Protocol):
    """What a study asks its caller to do."""

    def say(self, line: str) -> None:
        """Tell the user."""
        ...

    def train(self, recipe: Recipe, name: str, overrides: list[str], run: Path) -> None:
        """Train a resolved recipe in a run folder, or go on there."""
        ...

    def evaluate(
        self, arms: list[str], seeds: list[int], prompts: int, results: Path, suite: str, *, brief: bool = False
    ) -> None:
        """Score arms under a suite; under `TIMED` their frames per second too, briefly or with all turns."""
        ...

    def run_grid(self, grid: GridRun, planned: list[Job], jobs: int) -> None:
        """Run a grid's jobs, so many at a time; a failure ends the study."""
        ...


@dataclass(frozen=True)
class StudyRun:
    """One study in one folder.

    Attributes:
        steps: of every training's last stage, instead of its recipe's.
    """

    paper: str
    study: Study
    folder: Path
    do: Steps
    steps: int | None = None

    def quick(self, prompts: int) -> WrittenStudy:
        """The first pair at one seed, trained with a process per core, scored on so many held-out prompts."""
        base, name = self.study.pairs[0]
        overrides = ["seed=0"]
        recipe = load_recipe(name, overrides)
        if self.steps is not None:
            overrides.append(f"stages.{recipe.order[-1]}.steps={self.steps}")
            recipe = load_recipe(name, overrides)
        run = self.folder / "runs" / f"{recipe.name}-seed0"
        suite, most = self.study.quick
        prompts = min(prompts, most)
        self.do.say(f"{recipe.name}, seed 0: training from {base}")
        self.do.train(recipe, name, overrides, run)
        self.do.say(f"evaluating {base} and its tuned student on {prompts} held-out prompts of {suite}")
        self.do.evaluate([base, str(run)], [0], prompts, self.folder, suite, brief=True)
        tables, lead = self.study.tables[:1], self.study.lead
        return write_study(self.paper, tables, {base: [run]}, {suite: prompts}, self.folder, lead)

    def full(self, seeds: list[int], jobs: int, hours: float | None = None) -> WrittenStudy:
        """Every grid, one process per run; then frames per second on the machine that is idle again, tables, figures,
        page.

        Args:
            hours: how long seeds are added for undecided claims; None: not at all.
        """
        self.do.run_grid(self._grid, self._planned(seeds), jobs)
        if hours is not None:
            self._add_seeds(seeds, jobs, hours)
        tuned: dict[str, list[Path]] = {}
        for base, recipe in self.study.pairs:
            tuned[base] = [self._runs / f"{recipe}-seed{seed}" for seed in seeds]
        if self.study.is_timed:
            runs = [run for paths in tuned.values() for run in paths]
            runs += [self._runs / f"{recipe}-seed{seed}" for recipe in self.study.timed for seed in seeds]
            bases = [*tuned, *self.study.timed_bases]
            self.do.evaluate([*bases, *map(str, runs)], seeds, self._prompts[TIMED], self.folder, TIMED)
        if self.paper in RATER_STUDIES:
            self.do.say(f"simulated raters judged the arms of {rate(self.paper, self.folder)} seeds")
        drawn = self._figures()
        spent = core_seconds(self.folder / "logs").items()
        self.do.say("time of one core: " + ", ".join(f"{what} {seconds / 60:.0f} min" for what, seconds in spent))
        return write_study(self.paper, self.study.tables, tuned, self._prompts, self.folder, self.study.lead, drawn)

    @property
    def _runs(self) -> Path:
        return self.folder / "runs"

    @property
    def _grid(self) -> GridRun:
        return GridRun(self.folder, self.folder / "logs", steps=self.steps)

    @property
    def _prompts(self) -> Mapping[str, int]:
        return {name: suite.prompts for name, suite in WORLD_SUITES.items()}

    def _planned(self, seeds: list[int]) -> list[Job]:
        return merge([plan(load_grid(name), seeds, self._runs, [], self.steps) for name in self.study.grids])

    def _figures(self) -> list[Path]:
        """Draw the paper's figures but for the short sheets, which are written with their clips."""
        made = Made(self._runs, study_records(self.folder, self._prompts), self.folder)
        drawn = []
        for picture in pictures(self.paper, self.study.pairs, made):
            path = self.folder / "figures" / picture.name
            if not picture.name.startswith("sheet_short") and picture.draw(path).written:
                self.do.say(f"wrote {picture.name}")
                drawn.append(_for_page(picture, path))
        return drawn

    def _add_seeds(self, seeds: list[int], jobs: int, hours: float) -> None:
        """Seeds for undecided claims, for so many hours."""
        ends, claims = time.monotonic() + hours * 3600, load_claims(self.paper)

        def verdicts() -> list[Verdict]:
            return evaluate(claims, study_records(self.folder, self._prompts))

        def run(chosen: Round) -> None:
            self.do.say(
                f"{chosen.claim}: seed {chosen.jobs[0].seed} of {len(chosen.jobs)} arms; about {chosen.further} more "
                "seeds would decide it"
            )
            self.do.run_grid(self._grid, chosen.jobs, jobs)

        def planner() -> Planner:
            return Planner(seeds, lambda seed: self._planned([seed]), costs(self.folder / "logs"))

        why = run_until_decided(verdicts, planner, jobs, lambda: ends - time.monotonic(), run)
        self.do.say(f"no more seeds: {why}")


def _for_page(picture: PaperFigure, path: Path) -> Path:
    """A chart once more as SVG, whose colours follow the page's; a contact sheet as it is."""
    if picture.name.startswith("sheet"):
        return path
    vector = path.with_suffix(".svg")
    picture.draw(vector)
    return vector

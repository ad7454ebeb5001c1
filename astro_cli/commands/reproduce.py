"""`astro reproduce`: a paper's study from end to end, base -> RL -> evaluation -> table, figures and page. Owns the order, not the parts."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from astro_cli.commands.console import plain_console
from astro_cli.commands.evaluate import evaluate_arms, parse_seeds
from astro_cli.commands.training_run import train
from astro_cli.config.errors import RecipeError, did_you_mean
from astro_cli.recipe import load_recipe


class Study(NamedTuple):
    """Tables a study fills, and the (base, RL recipe) pairs on the embedded world that fill them; --quick runs the first pair."""

    tables: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]


STUDIES = {
    "astrolabe": Study(
        tables=("astrolabe-1",),
        pairs=(
            ("shapes/self_forcing", "astrolabe_self_forcing_shapes"),
            ("shapes/longlive", "astrolabe_longlive_shapes"),
            ("shapes/causal_forcing", "astrolabe_causal_shapes"),
        ),
    ),
}
QUICK_PROMPTS = 96
FULL_PROMPTS = 256


def reproduce(
    paper: Annotated[str, typer.Argument(help="Paper: astrolabe.")],
    quick: Annotated[bool, typer.Option("--quick", help="One base, one seed, fewer prompts: minutes instead of an hour.")] = False,
    seeds: Annotated[str, typer.Option(help="Comma-separated training seeds of the full study.")] = "0,1,2",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the results. Default: results/<paper>.")] = None,
) -> None:
    """Train, evaluate and render a paper's study on the embedded world; what is finished already is kept, so it resumes.

    Example: astro reproduce astrolabe --quick
    """
    if paper not in STUDIES:
        raise RecipeError("reproduce", paper, "no such study", hint=did_you_mean(paper, STUDIES))
    from astro_cli.training.rundir import RunDir
    from eval.study import write_study

    console = plain_console(stderr=True)
    folder, began = out or Path("results") / paper, time.monotonic()
    study = STUDIES[paper]
    pairs = study.pairs[:1] if quick else study.pairs
    chosen, prompts = ([0], QUICK_PROMPTS) if quick else (parse_seeds(seeds), FULL_PROMPTS)
    runs: dict[str, list[Path]] = {}
    for base, recipe_name in pairs:
        for seed in chosen:
            recipe = load_recipe(recipe_name, [f"seed={seed}"], "rl")
            run = folder / "runs" / f"{recipe.name}-seed{seed}"
            console.print(f"{recipe.name}, seed {seed}: reinforcement learning on {base}")
            train(recipe, recipe_name, [f"seed={seed}"], run, resume=(run / "resolved.json").is_file())
            runs.setdefault(base, []).append(RunDir(run).path)
        console.print(f"evaluating {base} and its tuned students on {prompts} held-out prompts")
        evaluate_arms([base, *map(str, runs[base])], chosen, prompts, folder)
    page = write_study(paper, study.tables, runs, prompts, folder)
    console.print(f"finished in {(time.monotonic() - began) / 60:.1f} min. Results: {folder}/ (start with {page})", soft_wrap=True)

"""One training run: a recipe and a folder -> trained, with its final weights. What the commands and the API call."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator

from astro_cli.config.errors import RecipeError
from astro_cli.core import threads
from astro_cli.models.backbone import Backbone
from astro_cli.objectives.base import RunContext
from astro_cli.spec import Recipe
from astro_cli.training import sharded
from astro_cli.training.build import build, make_accelerator, pick_device, wanted_roles
from astro_cli.training.executors import INLINE, Executor
from astro_cli.training.footprint import check_fits
from astro_cli.training.needs import check_needs
from astro_cli.training.release import write_final
from astro_cli.training.rundir import RunDir
from astro_cli.training.tracking import end_tracker, start_tracker
from astro_cli.training.trainer import Trainer, Unwatched, Watcher


@dataclass(frozen=True)
class PreparedRun:
    """A run with its networks in memory, and nothing on the disk yet."""

    recipe: Recipe
    folder: RunDir
    context: RunContext
    backbone: Backbone
    device: torch.device
    accelerator: Accelerator

    def train(
        self,
        given: str,
        *,
        resume: bool,
        progress: AbstractContextManager[Watcher],
        say: Callable[[str], None],
        executor: Executor = INLINE,
    ) -> None:
        """Train in the folder. A finished run is left as it is when resuming.

        Args:
            given: the recipe as the user gave it, kept in the folder.
            progress: entered for the time of the training; sees every step.
            say: hears what the user must know, a line each.
            executor: rolls out and scores the clips of RL; default this process.

        Raises:
            AstroError: the folder is not this run's, or the run failed.
            KeyboardInterrupt, OSError: as they come; checkpoints are whole.
        """
        recipe, run, accelerator = self.recipe, self.folder, self.accelerator
        is_main = accelerator.is_main_process
        try:
            if is_main:
                for warning in run.open(recipe, given, resume=resume, device=str(self.device)):
                    say(f"warning: {warning}")
            accelerator.wait_for_everyone()
            if run.finished:
                fault = run.final_fault()
                if is_main:
                    warning = f"warning: {fault}; written again from the last checkpoint"
                    say(warning if fault else f"{run.path}: finished already")
                if not fault:
                    return
            try:
                start_tracker(accelerator, recipe, run.path)
            except RecipeError:
                if is_main:
                    run.withdraw()
                raise
            with progress if is_main else nullcontext(Unwatched()) as watcher:
                trainer = Trainer(recipe, self.context, self.backbone, run, accelerator, watcher, executor)
                trainer.fit(resume=resume)
            write_final(recipe, self.context, run, writes=is_main)
        finally:
            try:
                if warning := end_tracker(accelerator):
                    say(f"warning: {warning}")
            finally:
                run.release()
        if is_main:
            say(f"done: {run.path} (final weights in {run.final})")


def prepare(recipe: Recipe, out: Path) -> PreparedRun:
    """Load all that a run needs, before its folder is made: missing weights leave no folder behind.

    Raises:
        AstroError: anything the user can cause.
    """
    video = recipe.video
    threads.fit(recipe.model.layer_flops(video.block, video.height, video.width))
    device = pick_device(recipe.runtime.device)
    check_needs(recipe, wanted_roles(recipe))  # before memory: a user first learns what to bring
    check_fits(recipe, device)
    if sharded.is_wanted():
        sharded.check(recipe)
    context, backbone = build(recipe, device)
    accelerator = make_accelerator(recipe, str(out))
    if sharded.is_wanted() and accelerator.num_processes > 1:
        sharded.divide(context.roles, accelerator)
    return PreparedRun(recipe, RunDir(out), context, backbone, device, accelerator)

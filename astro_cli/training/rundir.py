"""A run's folder: recipe as given and resolved, hashes of its inputs, environment, metrics.jsonl, final weights.

Refuses another recipe's folder, and to go on with other inputs. `checkpoints` owns the checkpoints' files.
"""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from filelock import FileLock, Timeout

from astro_cli.config import durable
from astro_cli.config.errors import OutputError
from astro_cli.config.files import Reader
from astro_cli.models import hashes
from astro_cli.spec import Recipe
from astro_cli.training import checkpoints, environment

LOCK = ".lock"
RECIPE, RESOLVED, ENVIRONMENT, CARD = "recipe.toml", "resolved.json", "environment.json", "card.json"


class RunDir:
    """Paths and files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path / LOCK, blocking=False)
        self._origin: dict[str, Any] | None = None
        self._begun = False  # `open` began this run: all that is in the folder is of this process

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def final(self) -> Path:
        return self.path / "final"

    @property
    def finished(self) -> bool:
        """Whether all final weights are here."""
        return self._final_files() is not None

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def identity(self) -> tuple[str, str] | None:
        """Name and hash of the recipe whose run is here; None where there is none.

        Raises:
            OutputError: there is one, and its resolved.json is damaged.
        """
        resolved = self._resolved()
        return None if resolved is None else (resolved["recipe"]["name"], resolved["hash"])

    def _resolved(self) -> dict[str, Any] | None:
        path = self.path / RESOLVED
        if not path.exists():
            return None
        hint = "restore the file, delete the folder, or choose another --out"
        resolved = Reader(OutputError, what="damaged", hint=hint).table(path)
        try:
            str(resolved["recipe"]["name"] + resolved["hash"])
            dict(resolved.get("inputs") or {})
        except (ValueError, LookupError, TypeError) as error:
            raise OutputError(
                path, "", f"damaged ({type(error).__name__}: {error}): it says whose run this is", hint=hint
            ) from error
        return resolved

    def recipe(self) -> Recipe:
        """The recipe of the run that is here, as it was resolved.

        Raises:
            OutputError: resolved.json is missing or damaged.
        """
        path = self.path / RESOLVED
        hint = "restore the file, or choose another folder"
        resolved = Reader(OutputError, what="no recipe of a run", hint=hint).table(path)
        try:
            return Recipe.model_validate_json(json.dumps(resolved["recipe"]))
        except (ValueError, LookupError) as error:
            raise OutputError(path, "", f"no recipe of a run: {error}", hint=hint) from error

    def open(self, recipe: Recipe, given: str, *, resume: bool, device: str) -> list[str]:
        """Create the folder, or check that it holds this very recipe's run with the inputs it began with.

        The folder is this process's until `release`, or until the process ends, however it ends. A run that was killed
        before it had its identity begins again, with or without `resume`.

        Returns:
            Warnings: what of a run that goes on is not as it was.

        Raises:
            OutputError: the folder holds another recipe's run or other files; it holds this run without `resume`, or no
            run with it; it is a file or cannot be created; another process trains in it; the run began with other
            inputs.
            CheckpointError, RecipeError: an input is not here.
        """
        from astro_cli.training import inputs  # with all networks' modules; who only reads runs does without

        read, here = inputs.digests(recipe), environment.environment(device, recipe.seed)
        resolved = self._resolved()
        if resolved is not None:
            self._check(resolved, recipe, resume=resume)
            warnings = self._check_inputs(resolved.get("inputs"), read)
            self._hold()
            warnings += self._take_up(here)
        else:
            self._check_empty(resume=resume)
            self._hold()
            self._sweep()
            durable.write_text(self.path / RECIPE, given)
            durable.write_json(self.path / ENVIRONMENT, here)
            self._origin, self._begun, warnings = here, True, []
        # Written when a run goes on too: what the hash leaves out may be another now.
        data = {"hash": recipe.hash(), "inputs": read, "recipe": recipe.model_dump(mode="json")}
        durable.write_json(self.path / RESOLVED, data)
        return warnings

    def _check_empty(self, *, resume: bool) -> None:
        """Create the folder, or check that nothing is in it but what this run left when it was killed at its start."""
        if self.path.exists() and not self.path.is_dir():
            raise OutputError(self.path, "--out", "is a file, expected a folder", hint="choose another --out")
        present = list(self.path.iterdir()) if self.path.is_dir() else []
        foreign = [path for path in present if path.name not in (RECIPE, ENVIRONMENT, LOCK)]
        begun = self.path / LOCK in present and all(durable.is_temporary(path) for path in foreign)
        if present and not begun:
            raise OutputError(self.path, "--out", "is not empty and holds no run", hint="choose another --out")
        if resume and not begun:
            raise OutputError(
                self.path,
                "--resume",
                "there is no run to continue",
                hint="leave --resume out to begin one, or correct --out",
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                self.path, "--out", f"cannot be created: {error.strerror}", hint="choose another --out"
            ) from error

    def _check(self, resolved: dict[str, Any], recipe: Recipe, *, resume: bool) -> None:
        """Whether the run that is here is this recipe's, and may go on."""
        if resolved["hash"] != recipe.hash():
            name = resolved["recipe"]["name"]
            what = f"holds a run of {name!r} with other settings ({resolved['hash']}, this is {recipe.hash()})"
            raise OutputError(self.path, "--out", what, hint="choose another --out, or delete the folder")
        if not resume:
            raise OutputError(
                self.path,
                "--out",
                "holds this recipe's run already",
                hint="`--resume` continues it; or choose another --out",
            )

    def _check_inputs(self, began: dict[str, str] | None, read: dict[str, str]) -> list[str]:
        """Refuse a run whose inputs changed: its weights would be of a mixture."""
        if began is None:
            return [f"{self.path}: began before runs recorded the hashes of their inputs; these are not compared"]
        for key in sorted(began.keys() | read.keys()):
            if began.get(key) != read.get(key):
                what = f"{key} changed since the run began: found {read.get(key)}, expected {began.get(key)}"
                hint = "restore what it was, or train in a new --out"
                raise OutputError(self.path, "--resume", what, hint=hint)
        return []

    def changed(self, recipe: Recipe) -> bool:
        """Whether the run that is here began with other inputs than there are now."""
        from astro_cli.training import inputs

        began = (self._resolved() or {}).get("inputs")
        return began is not None and began != inputs.digests(recipe)

    def _take_up(self, here: dict[str, Any]) -> list[str]:
        """Read the environment the run began in, written anew where it is damaged; sweep up after killed writers."""
        self._sweep()
        path = self.path / ENVIRONMENT
        try:
            self._origin = environment.read(path)
        except OutputError as error:
            durable.write_json(path, here)
            self._origin = here
            return [f"{path}: {error.what}; written anew, as of this start"]
        differing = environment.differences(self._origin, here)
        if not differing:
            return []
        return [f"{self.path}: began in another environment, results may differ in rounding: {'; '.join(differing)}"]

    def _sweep(self) -> None:
        for folder in (self.path, self.checkpoints, self.final, *self.final.glob("lora*"), self.path / "samples"):
            durable.sweep(folder)

    def origin(self) -> dict[str, Any]:
        """The environment the run began in.

        Raises:
            OutputError: environment.json is missing or damaged, and this process did not open the run.
        """
        return self._origin or environment.read(self.path / ENVIRONMENT)

    def _hold(self) -> None:
        """Keep others from training here: a lock that the system drops with the process."""
        try:
            self._lock.acquire()
        except Timeout as error:
            hint = "wait for it to end, or choose another --out"
            raise OutputError(self.path, "--out", "another process is training in this folder", hint=hint) from error

    def release(self) -> None:
        """Let others train here."""
        self._lock.release()

    def withdraw(self) -> None:
        """Remove a run that this process began and did not train, with what a tracker left; one that goes on stays."""
        if not self._begun:
            return
        for path in self.path.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != LOCK:
                path.unlink()
        self.release()
        (self.path / LOCK).unlink(missing_ok=True)
        with suppress(OSError):  # another process began here, or the folder is in use: empty, it is no obstacle
            self.path.rmdir()

    def log(self, row: dict[str, Any]) -> None:
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")

    def trim_metrics(self, count: int) -> None:
        """Keep the first `count` rows: what was logged after the checkpoint a run resumes from is computed again."""
        if self.metrics.is_file():
            rows = self.metrics.read_bytes().splitlines(keepends=True)[:count]
            with durable.written_whole(self.metrics) as temporary:
                temporary.write_bytes(b"".join(rows))

    def save_checkpoint(
        self,
        stage: int,
        step: int,
        rows: int,
        groups: dict[str, dict[str, torch.Tensor]],
        accelerator: Accelerator | None = None,
    ) -> None:
        """Write a checkpoint once the rows it counts on are on the disk.

        Args:
            accelerator: as in `checkpoints.save`.
        """
        if self.metrics.is_file():
            durable.sync(self.metrics)
        checkpoints.save(self.checkpoints, stage, step, rows, groups, accelerator)

    def finish(self, recipe: Recipe) -> None:
        """Write the run's card, the last file of all: whose weights these are, and sha256 of every file beside it."""
        checkpoints.prune(self.checkpoints)  # what a kill left undone
        written = sorted(path for path in self.final.rglob("*") if path.is_file() and not durable.is_temporary(path))
        files = {
            path.relative_to(self.final).as_posix(): hashes.sha256(path)
            for path in written
            if path != self.final / CARD
        }
        card = {"recipe": recipe.name, "recipe_hash": recipe.hash(), "seed": recipe.seed, "files": files}
        durable.write_json(self.final / CARD, card)

    def final_fault(self) -> str:
        """The first of a finished run's files whose bytes are not those that were written; "" for none."""
        for name, written in (self._final_files() or {}).items():
            if hashes.sha256(self.final / name) != written:
                return f"{self.final / name}: damaged: its bytes are not those that were written"
        return ""

    def _final_files(self) -> dict[str, str] | None:
        """sha256 of the final files by name, None where one is missing; none are listed by earlier versions."""
        try:
            files = dict(Reader(OutputError).table(self.final / CARD).get("files", {}))
        except (OutputError, ValueError, TypeError):
            return None
        return files if all((self.final / name).is_file() for name in files) else None

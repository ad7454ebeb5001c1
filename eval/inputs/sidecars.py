"""Output folders of `astro sample`: videos with a JSON sidecar each. Reads sidecars only."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from astro_cli.config.base import validate
from astro_cli.config.files import Reader
from astro_cli.config.problems import first_problem
from eval.inputs.entries import Entry, Finding, InputError, Listing, Turn, about, entry_of, loose_entry
from eval.prompt_sets import PromptSet

SAMPLE_KEYS = frozenset({"prompt", "seed", "switches"})


class _Switch(BaseModel):
    frame: int = Field(ge=1)
    prompt: str = Field(min_length=1)


class _Sidecar(BaseModel):
    """What is read of a sidecar; it says much more."""

    prompt: str = Field(min_length=1)
    seed: int
    switches: list[_Switch]
    image: str | None = None  # the picture that opens the video, beside the sidecar

    def labels(self) -> dict[str, Any]:
        return {} if self.image is None else {"image": self.image}


def has_sidecars(videos: list[Path]) -> bool:
    """Whether a video has a sidecar of `astro sample` beside it."""
    return any((sidecar := path.with_suffix(".json")).is_file() and _is_sidecar(sidecar) for path in videos)


def _is_sidecar(path: Path) -> bool:
    try:
        data = Reader(InputError).json(path)
    except InputError:
        return False
    return isinstance(data, dict) and data.keys() >= SAMPLE_KEYS


def list_sidecars(folder: Path, videos: list[Path], prompts: PromptSet | None) -> Listing:
    """Entries of the videos that have a sidecar, their prompts looked up in the set.

    The file is the sidecar's neighbour, wherever it was made.
    """
    entries: list[Entry] = []
    findings: list[Finding] = []
    lone: list[str] = []
    unmatched: list[str] = []
    for path in videos:
        sidecar = path.with_suffix(".json")
        if not sidecar.is_file():
            lone.append(path.name)
            continue
        try:
            card = _read(sidecar)
        except InputError as error:
            findings.append(Finding("error", sidecar.name, error.key, error.what, error.hint, (sidecar.name,)))
            continue
        made = _entries(path, card, prompts)
        entries += made
        unmatched += [] if made else [path.name]
    hint = "finish it with the same call of `astro sample`, or remove it"
    findings += about("warning", folder, "sidecar", "no JSON sidecar beside it; it is left out", lone, hint=hint)
    if prompts is not None:
        findings += about(
            "error",
            folder,
            "prompt",
            f"its prompt is not one of {prompts.name}",
            unmatched,
            hint="sample the set's prompts",
        )
    return Listing(folder, "sample", tuple(entries), tuple(findings))


def _entries(path: Path, sidecar: _Sidecar, prompts: PromptSet | None) -> list[Entry]:
    turns = tuple(Turn(switch.frame, "frames", switch.prompt) for switch in sidecar.switches)
    if prompts is None:
        own = [loose_entry(path, sidecar.prompt, seed=sidecar.seed, turns=turns)]
    else:
        own = [entry_of(path, prompt, seed=sidecar.seed, turns=turns) for prompt in prompts.find(sidecar.prompt)]
    return [replace(entry, labels={**entry.labels, **sidecar.labels()}) for entry in own]


def _read(path: Path) -> _Sidecar:
    hint = "expected a sidecar as `astro sample` writes it"
    data = Reader(InputError, what="not a JSON file", hint=hint).json(path)
    try:
        return validate(_Sidecar, data)
    except ValidationError as error:
        wrong = first_problem(error)
        raise InputError(path, wrong.key, wrong.what, hint=hint) from error

"""Checks that each prompt has its videos: reports missing, extra and duplicate ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from astro_cli.config.errors import did_you_mean
from eval.inputs.entries import Entry, Finding, InputError, about
from eval.inputs.requirements import Requirements
from eval.inputs.samples import Opened
from eval.prompt_sets import NAMES, Prompt, PromptSet
from eval.prompt_sets.base import nfc

NAME_BYTES = 255  # of a file's name, on the usual file systems
CASE_HINT = (
    "some of these names differ from others that are there in case only: on macOS and Windows one overwrote the other"
)


def coverage(folder: Path, entries: Sequence[Entry], needs: Requirements) -> list[Finding]:
    """Missing videos, videos that the suite does not need, and videos that claim the place of another.

    Raises:
        InputError: a dimension that no prompt of the set has.
    """
    claims = [*_same_index(folder, entries), *_same_seed(folder, entries)]
    if needs.prompts is None:
        return claims
    requested = _requested(needs.prompts, needs.dimensions)
    by_prompt: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_prompt[entry.prompt_id].append(entry)
    missing = dict.fromkeys(
        name for prompt in requested for name in _missing(prompt, by_prompt[prompt.id], needs.samples)
    )
    extra = dict.fromkeys(name for prompt in requested for name in _extra(prompt, by_prompt[prompt.id], needs))
    there = {nfc(entry.path.name).casefold() for entry in entries}
    lost = any(nfc(name).casefold() in there for name in missing)
    total = len(dict.fromkeys(name for prompt in requested for name in _missing(prompt, [], needs.samples)))
    what = f"not there, of the {total} videos the suite asks for"
    hint = CASE_HINT if lost else "the suite is partial without them, and has no total"
    return [
        *about("error", folder, "missing", what, list(missing), hint=hint),
        *about(
            "warning",
            folder,
            "extra",
            f"more than the {needs.samples} videos of its prompt",
            list(extra),
            hint="only the first ones count",
        ),
        *claims,
    ]


def _requested(prompts: PromptSet, dimensions: tuple[str, ...]) -> tuple[Prompt, ...]:
    known = {name for prompt in prompts.prompts for name in prompt.labels.get("dimension", ())}
    wrong = next((name for name in dimensions if name not in known), None)
    if wrong is not None:
        raise InputError(
            "--dimension",
            wrong,
            f"no prompt of {prompts.name} has it",
            hint=did_you_mean(wrong, known) if known else "",
        )
    return prompts.of_dimensions(dimensions)


def _missing(prompt: Prompt, entries: Sequence[Entry], samples: int) -> list[str]:
    """Names of videos a prompt lacks; where an entry says no index, the last ones are taken to be those that lack."""
    indices = {entry.index for entry in entries if entry.index is not None}
    unnumbered = len({entry.path for entry in entries if entry.index is None})
    absent = [index for index in range(samples) if index not in indices]
    return [_name(prompt, index) for index in absent[unnumbered:]]


def _extra(prompt: Prompt, entries: Sequence[Entry], needs: Requirements) -> list[str]:
    if not needs.samples:
        return []
    most = max([needs.samples, *(needs.extra.get(name, 0) for name in prompt.labels.get("dimension", ()))])
    numbered = [entry.path.name for entry in entries if entry.index is not None and entry.index >= most]
    unnumbered = [entry.path.name for entry in entries if entry.index is None][most:]
    return numbered + unnumbered


def _name(prompt: Prompt, index: int) -> str:
    """The official name of a video, or one by id where the prompt cannot be a name."""
    name = f"{prompt.text}-{index}.mp4"
    return f"{prompt.id}-{index}.mp4" if prompt.segments or "/" in name or len(name.encode()) > NAME_BYTES else name


def _same_index(folder: Path, entries: Iterable[Entry]) -> list[Finding]:
    """Files that claim one index of one prompt: two endings, or two Unicode forms of one name."""
    double = _claimed_twice((entry, entry.index) for entry in entries)
    return about(
        "error", folder, "index", "several files claim one index of one prompt", double, hint="keep one of each"
    )


def _same_seed(folder: Path, entries: Iterable[Entry]) -> list[Finding]:
    """Files of one prompt that state one seed: samples of a prompt have seeds of their own."""
    double = _claimed_twice((entry, entry.seed) for entry in entries)
    return about(
        "warning", folder, "seed", "several videos of one prompt state one seed", double, hint="was the seed kept?"
    )


def _claimed_twice(claims: Iterable[tuple[Entry, int | None]]) -> list[str]:
    """Names of the files of one prompt that share a number."""
    names: dict[tuple[str, int], list[str]] = defaultdict(list)
    for entry, number in claims:
        if number is not None:
            names[entry.prompt_id, number].append(entry.path.name)
    return list(dict.fromkeys(name for sharers in names.values() if len(sharers) > 1 for name in sharers))


def published(folder: Path, entries: Iterable[Entry], needs: Requirements) -> list[Finding]:
    """Prompts that are not those of the suite's published run; a warning where the list to compare with is not here."""
    if needs.not_compared is not None:
        error = needs.not_compared
        return [
            Finding(
                "warning",
                str(folder),
                "prompts",
                f"not compared with those of the published run, {error.where}: {error.what}",
                error.hint,
            )
        ]
    if needs.published is None:
        return []
    wanted = {_texts(prompt): prompt.id for prompt in needs.published.prompts}
    texts = {entry.path.name: _entry_texts(entry) for entry in entries}
    others = [name for name, text in texts.items() if text not in wanted]
    absent = sorted(wanted[text] for text in wanted.keys() - set(texts.values()))
    name = f"{needs.published.name}, the prompts of the published run"
    hint = "videos of other prompts are scored too, and their records say so; --prompts names a set of your own"
    few = (
        about("error", folder, "prompts", f"no video of prompts of {name}", absent, hint=hint)
        if len(others) < len(texts)
        else []
    )
    return [*about("error", folder, "prompts", f"not of {name}", others, hint=hint), *few]


def repeated(needs: Requirements) -> list[Finding]:
    """Lines that a list of one's own has twice. The benchmarks' lists have such lines themselves."""
    if needs.prompts is None or needs.prompts.name in NAMES:
        return []
    by_texts: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for prompt in needs.prompts.prompts:
        by_texts[_texts(prompt)].append(prompt.id)
    double = [name for ids in by_texts.values() if len(ids) > 1 for name in ids]
    hint = "one video counts for both; give each prompt one line"
    return about("warning", Path(needs.prompts.version), "prompts", "the same text twice", double, hint=hint)


def _texts(prompt: Prompt) -> tuple[str, ...]:
    """What is shown, in order: a script is another prompt than its first part alone."""
    return tuple(nfc(part.prompt) for part in prompt.segments) or (nfc(prompt.text),)


def _entry_texts(entry: Entry) -> tuple[str, ...]:
    return tuple(nfc(part.prompt) for part in entry.segments) or (
        nfc(entry.prompt),
        *(nfc(turn.prompt) for turn in entry.turns),
    )


def same_bytes(folder: Path, opened: Iterable[Opened]) -> list[Finding]:
    """Files with one hash: two samples of a prompt are different videos, or the seed was not changed."""
    by_hash: dict[str, list[str]] = defaultdict(list)
    for file in (file for file in opened if file.video_hash):
        by_hash[file.video_hash].append(file.path.name)
    hint = "the same video under two names: was it made with one seed, or copied?"
    return [
        finding
        for names in by_hash.values()
        if len(names) > 1
        for finding in about("error", folder, "duplicate", "equal files", names, hint=hint)
    ]

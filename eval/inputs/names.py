"""Videos under VBench's official names, `{prompt}-{index}.mp4`. Reads names only."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections import defaultdict
from pathlib import Path

from eval.inputs.entries import Entry, Finding, Listing, about, entry_of, loose_entry
from eval.prompt_sets import Prompt, PromptSet
from eval.prompt_sets.base import nfc

INDEX = re.compile(r"^(.*)-(\d+)$", re.DOTALL)
NAME_HINT = (
    "names are {prompt}-{index}.mp4 with the set's own prompt, never the extended one; or write a manifest.jsonl"
)
NEAR = 0.6  # likeness above which a prompt is suggested


def list_names(folder: Path, videos: list[Path], prompts: PromptSet | None) -> Listing:
    """Entries of a folder whose files are named after prompts, or after ids of the set (for prompts that cannot be
    names).

    A text that a set has twice stands for both entries: the official file list has one file for the two (VBench, 4,720
    names of 946 entries). Unicode's composed and decomposed forms are one; a name in other case is taken where it can
    mean only one prompt. Without a set, the prompt is the name without its index.
    """
    entries: list[Entry] = []
    unmatched: list[str] = []
    cased: list[str] = []
    for path in videos:
        text, index = split_name(path)
        if prompts is None:
            entries.append(loose_entry(path, text, index=index))
            continue
        matches = _by_name(prompts, text)
        if not matches and (matches := prompts.find_other_case(text)):
            cased.append(path.name)
        if not matches:
            unmatched.append(path.name)
        entries += [entry_of(path, prompt, index=index) for prompt in matches]
    findings = [] if prompts is None else _wrong_names(folder, prompts, unmatched, cased)
    return Listing(folder, "names", tuple(entries), (*findings, *_forms(folder, videos, prompts)))


def split_name(path: Path) -> tuple[str, int | None]:
    """Prompt and index of a file's name, in Unicode NFC. VBench's `get_prompt_from_filename`: no number at the end, no
    index.
    """
    match = INDEX.match(stem := nfc(path.stem))
    return (match[1], int(match[2])) if match else (stem, None)


def _by_name(prompts: PromptSet, text: str) -> tuple[Prompt, ...]:
    if matches := prompts.find(text):
        return matches
    return (prompts.by_id[text],) if text in prompts.by_id else ()


def _wrong_names(folder: Path, prompts: PromptSet, unmatched: list[str], cased: list[str]) -> list[Finding]:
    hint = NAME_HINT
    if unmatched:
        text, _ = split_name(Path(unmatched[0]))
        near = difflib.get_close_matches(text, [prompt.text for prompt in prompts.prompts], n=1, cutoff=NEAR)
        hint += f"; nearest to the first: {near[0]!r}" if near else ""
    return [
        *about("error", folder, "name", f"matches no prompt of {prompts.name}", unmatched, hint=hint),
        *about(
            "warning",
            folder,
            "name",
            "differs from its prompt in upper and lower case",
            cased,
            hint="VBench itself would not find it",
        ),
    ]


def _forms(folder: Path, videos: list[Path], prompts: PromptSet | None) -> list[Finding]:
    """Names that another system would read as another name, or as the same one."""
    decomposed = [path.name for path in videos if not unicodedata.is_normalized("NFC", path.name)]
    padded = [path.name for path in videos if (match := INDEX.match(path.stem)) and str(int(match[2])) != match[2]]
    alike: dict[str, list[str]] = defaultdict(list)
    for path in videos:
        alike[nfc(path.name).casefold()].append(path.name)
    collisions = [names for names in alike.values() if len(names) > 1 and not _meant(names, prompts)]
    return [
        *about(
            "warning",
            folder,
            "unicode",
            "name is not in Unicode NFC",
            decomposed,
            hint="rename it; VBench itself would not find it",
        ),
        *about(
            "warning", folder, "index", "has zeros before its index", padded, hint="VBench itself looks for -0 to -4"
        ),
        *about(
            "warning",
            folder,
            "case",
            "names differ only in case or Unicode form, macOS and Windows keep one of each",
            [name for names in collisions for name in names],
            hint="copy such folders as an archive, or use a manifest.jsonl",
        ),
    ]


def _meant(names: list[str], prompts: PromptSet | None) -> bool:
    """Whether names are alike because prompts of the set are: VBench has "A fantasy landscape" and "a fantasy
    landscape".
    """
    texts = [split_name(Path(name))[0] for name in names]
    return prompts is not None and len(set(texts)) == len(texts) and all(prompts.find(text) for text in texts)

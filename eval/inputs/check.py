"""The pre-flight check: lists everything that is wrong with a folder of videos before any is scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.contract import Sample
from eval.inputs.coverage import coverage, published, repeated, same_bytes
from eval.inputs.entries import Entry, Finding, Listing
from eval.inputs.requirements import Requirements
from eval.inputs.samples import Progress, broken, list_folder, open_all
from eval.inputs.uniform import cut_short, late_segments, lengths, uniform, without_switches


@dataclass(frozen=True)
class Checked:
    """A folder's findings, errors first, and how much was looked at.

    Attributes:
        videos: files that were opened.
        prompts: different prompts among them.
    """

    kind: str
    videos: int
    prompts: int
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> int:
        return sum(finding.severity == "error" for finding in self.findings)


def check(
    source: Path | Sequence[Sample],
    needs: Requirements,
    *,
    quick: bool = False,
    jobs: int = 1,
    progress: Progress | None = None,
) -> list[Finding]:
    """What is wrong, errors first; see `examine`."""
    return list(examine(source, needs, quick=quick, jobs=jobs, progress=progress).findings)


def examine(
    source: Path | Sequence[Sample],
    needs: Requirements,
    *,
    quick: bool = False,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Checked:
    """Look at names, counts, hashes and every frame of a folder's videos, or of samples at hand. No frame is kept.

    Args:
        quick: read containers and count packets, which finds unfinished files, but decode no frame of the others.
        jobs: files opened at once.

    Raises:
        InputError: no such folder, no video in it, or a dimension nobody has.
    """
    listing = list_folder(source, needs.prompts) if isinstance(source, Path) else _listing(source)
    folder, entries = listing.folder, listing.entries
    opened = list(open_all([entry.path for entry in entries], decode=not quick, jobs=jobs, progress=progress))
    infos = {file.path: file.info for file in opened if file.info is not None}
    findings = [
        *listing.findings,
        *broken(folder, opened),
        *coverage(folder, entries, needs),
        *repeated(needs),
        *published(folder, entries, needs),
        *same_bytes(folder, opened),
        *uniform(folder, infos, needs),
        *lengths(folder, infos, needs),
        *without_switches(folder, entries, needs),
        *late_segments(entries, infos),
        *cut_short(folder, entries, infos),
    ]
    findings.sort(key=lambda finding: finding.severity != "error")
    return Checked(listing.kind, len(opened), len({entry.prompt_id for entry in entries}), tuple(findings))


def differing(samples: Sequence[Sample], needs: Requirements) -> list[Finding]:
    """Findings about samples to be scored: how they differ from each other, and errors where they differ from the
    published run.
    """
    listing, infos = _listing(samples), {sample.path: sample.info for sample in samples}
    unlike = [*lengths(listing.folder, infos, needs), *published(listing.folder, listing.entries, needs)]
    return [
        *uniform(listing.folder, infos, needs),
        *(finding for finding in unlike if finding.severity == "error"),
        *repeated(needs),
    ]


def _listing(samples: Sequence[Sample]) -> Listing:
    """Samples at hand as a listing of the first one's folder."""
    entries = tuple(_entry(sample) for sample in samples)
    return Listing(entries[0].path.parent if entries else Path(), "manifest", entries, ())


def _entry(sample: Sample) -> Entry:
    index = sample.labels.get("index")
    number = index if isinstance(index, int) else None
    return Entry(
        sample.path, sample.prompt_id, sample.prompt, sample.seed, number, sample.segments, labels=sample.labels
    )

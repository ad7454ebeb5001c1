"""The page of `astro report` and `astro reproduce`: which sections, in which order, from which records.

Each section's module owns its contents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from astro_cli.config.errors import OutputError, RecordError
from eval.papers.claims import Verdict
from eval.papers.published import ALL, paper_of, select
from eval.records.protocol_text import trained_once
from eval.records.store import Backbone, Record, latest
from eval.renderers.joined import join
from eval.renderers.render import Item
from eval.report.clips import Take, clips_section
from eval.report.curves import Run, curves_section
from eval.report.page import Beside, Folded, PageHead, Part, Picture, Section, write_html
from eval.report.protocol import protocol_section
from eval.report.tables import claim_counts, is_measured, tables_section, verdicts_section

FOREWORD = {
    "shapes": (
        "`shapes` is the embedded world: absolute values are not comparable with the papers', the directions of "
        "the differences are."
    ),
    "wan": "Absolute values are comparable with the papers' only where the protocol is the published one.",
}


@dataclass(frozen=True)
class PageContent:
    """What a page shows. Sections without contents are left out.

    Attributes:
        papers: a paper's name -> the verdicts on its claims.
        figures: charts (SVG) and contact sheets (PNG) that are there already.
    """

    title: str
    lead: str
    papers: Mapping[str, Sequence[Verdict]]
    items: Sequence[Item]
    records: Sequence[Record]
    runs: Sequence[Run] = ()
    takes: Sequence[Take] = ()
    figures: Sequence[Path] = ()


def check_out(path: Path) -> None:
    """OutputError, before any work is done, where no page can be written."""
    if path.is_dir():
        raise OutputError(path, "--out", "is a folder", hint=f"name a file, e.g. {path / 'report.html'}")
    probe = path.with_name(f".{path.name}.probe")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(
            path,
            "--out",
            f"cannot be written: {error.strerror or error}",
            hint="name a file in a folder that can be written",
        ) from error


def shown_records(records: Sequence[Record], backbone: Backbone, results: Path) -> list[Record]:
    """The newest records of the backbone.

    Raises:
        RecordError: there are none.
    """
    of_backbone = [record for record in latest(records) if record.backbone == backbone]
    if of_backbone:
        return of_backbone
    others = sorted({record.backbone for record in records})
    hint = (
        f"there are records of {others[0]}: --backbone {others[0]}"
        if others
        else "measure something first, e.g. astro eval shapes --arm ..."
    )
    raise RecordError("--results", str(results), f"holds no records of backbone {backbone!r}", hint=hint)


def everything(
    records: Sequence[Record], backbone: Backbone, runs: Sequence[Run], takes: Sequence[Take]
) -> PageContent:
    """The contents of a page of all papers' tables and claims over these records."""
    items = join(select(ALL), list(records), backbone)
    papers: dict[str, list[Verdict]] = {}
    for item in items:
        papers.setdefault(paper_of(item.view.id), []).extend(item.claims)
    arms, seeds = {record.arm for record in records}, {record.seed for record in records}
    lead = (
        f"{len(records)} records of {len(arms)} arms and {len(seeds)} seeds fill cells of "
        f"{sum(map(is_measured, items))} of {len(items)} published tables. {FOREWORD[backbone]}"
    )
    return PageContent(f"What was measured on {backbone}", lead, papers, items, records, runs, takes)


def write_page(out: Path, content: PageContent, progress: Callable[[str], None]) -> None:
    """Write the page: verdicts and clips, then curves, tables, figures and the protocol.

    Args:
        progress: called with a section's name when it is made.

    Raises:
        RecordError: records that do not belong together.
        OutputError: the page cannot be written.
    """
    once = [f"`{arm}`" for arm in trained_once(content.records)]
    sections = [verdicts_section(content.papers, once)]
    with TemporaryDirectory() as folder:
        if content.takes:
            sections.append(clips_section(content.takes, Path(folder)))
            progress("clips")
        if content.runs:
            sections.append(curves_section(content.runs, Path(folder)))
            progress("curves")
        sections.append(tables_section(content.items))
        progress("verdicts and tables")
        if content.figures:
            sections.append(figures_section(content.figures))
        sections.append(protocol_section(content.records, content.runs))
        write_html(out, PageHead(content.title, content.lead, claim_counts(content.papers)), sections)
    progress("page")


def figures_section(figures: Sequence[Path]) -> Section:
    """Charts beside each other; contact sheets, which are large, folded."""
    charts = [_picture(path) for path in figures if path.suffix == ".svg"]
    sheets = [_picture(path, wide=True) for path in figures if path.suffix != ".svg"]
    parts: list[Part] = [Beside(charts)] if charts else []
    if sheets:
        parts.append(Folded(f"{len(sheets)} contact sheets: frames of base and tuned videos", sheets))
    return Section("Figures", parts)


def _picture(path: Path, *, wide: bool = False) -> Picture:
    name = path.stem.replace("_", " ")
    return Picture(path, name, name[:1].upper() + name[1:], wide)

"""The page of `astro report`: which sections, in which order, from which records.

Each section's module owns its contents.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from astro_cli.config.errors import OutputError, RecordError
from eval.papers.published import ALL, select
from eval.records.protocol_text import trained_once
from eval.records.store import Backbone, Record, latest
from eval.renderers.joined import join
from eval.renderers.render import Item
from eval.renderers.words import INTERVALS, one_training_text
from eval.report.clips import Take, clips_section
from eval.report.curves import Run, curves_section
from eval.report.page import write_report
from eval.report.protocol import protocol_section
from eval.report.tables import claims_section, is_measured, summary_section, tables_section

FOREWORD = {
    "shapes": (
        "`shapes` is the embedded world: absolute values are not comparable with the papers', the directions of "
        "the differences are."
    ),
    "wan": "Absolute values are comparable with the papers' only where the protocol is the published one.",
}


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


def write_page(
    out: Path,
    records: Sequence[Record],
    backbone: Backbone,
    runs: Sequence[Run],
    takes: Sequence[Take],
    progress: Callable[[str], None],
) -> None:
    """Write the page of all tables and claims over these records, with the curves of these runs and these clips.

    Args:
        progress: called with a section's name when it is made.

    Raises:
        RecordError: records that do not belong together.
        OutputError: the page cannot be written.
    """
    items = join(select(ALL), list(records), backbone)
    progress("tables and claims")
    sections = [summary_section(items), tables_section(items), claims_section(items)]
    with TemporaryDirectory() as folder:
        if runs:
            sections.append(curves_section(runs, Path(folder)))
            progress("curves")
        if takes:
            sections.append(clips_section(takes, Path(folder)))
            progress("clips")
        sections.append(protocol_section(records))
        write_report(out, f"What was measured on {backbone}", _intro(items, records, backbone), sections, {})
    progress("page")


def _intro(items: Sequence[Item], records: Sequence[Record], backbone: Backbone) -> str:
    arms, seeds = {record.arm for record in records}, {record.seed for record in records}
    verdicts = Counter(verdict.verdict for item in items for verdict in item.claims)
    measured = sum(map(is_measured, items))
    once = [f"`{arm}`" for arm in trained_once(records)]
    return (
        f"{len(records)} records of {len(arms)} arms and {len(seeds)} seeds fill cells of {measured} of "
        f"{len(items)} published tables. Of "
        f"{verdicts.total()} claims of the papers {verdicts['holds']} hold, {verdicts['fails']} fail, "
        f"{verdicts['undecided']} are undecided and "
        f"{verdicts['not run']} were not run.\n\n{FOREWORD[backbone]} Numbers come from records with recipe "
        "hash, weights hash, seed and commit. "
        f"{INTERVALS} {one_training_text(once) if once else ''}\n\nA folded line opens on a click, and is "
        "printed only when it is open."
    )

"""One HTML page that holds everything it shows: text, tables, pictures, videos.

The page loads no other file and runs no script. It reads on a phone, in print and in dark mode. The templates in
`templates/` lay it out and escape all text.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from astro_cli.config.errors import RecordError
from astro_cli.generate.media import written_whole
from eval.renderers.templating import fill

MEDIA_TYPES = {
    ".png": "image/png",
    ".gif": "image/gif",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".svg": "image/svg+xml",
    ".mp4": "video/mp4",
}
# Even where this page is wrong, a browser then loads nothing.
POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class Heading:
    """A heading within a section. A section with many lists them."""

    kind: ClassVar[str] = "heading"
    text: str
    anchor: str


@dataclass(frozen=True)
class Text:
    """Paragraphs (empty lines part them); `code` in backticks is set as such."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Fragment:
    """What a template of `eval.renderers` made; plain text is escaped."""

    kind: ClassVar[str] = "fragment"
    html: str


@dataclass(frozen=True)
class TextTable:
    """A small table of plain text; the first column names the rows. Words stand left and are wrapped, numbers right."""

    kind: ClassVar[str] = "table"
    head: Sequence[str]
    rows: Sequence[Sequence[object]]
    caption: str = ""

    def __post_init__(self) -> None:
        if any(len(row) != len(self.head) for row in self.rows):
            raise ValueError(f"every row of a table needs {len(self.head)} cells")


@dataclass(frozen=True)
class Picture:
    """A PNG, JPEG, GIF or SVG. `wide`: keeps its size and scrolls sideways where the page is narrower, as a contact
    sheet must.
    """

    kind: ClassVar[str] = "picture"
    path: Path
    alt: str
    caption: str = ""
    wide: bool = False


@dataclass(frozen=True)
class VideoPlayer:
    """An MP4 with controls; it repeats, and starts when asked to.

    `strips`: frames of each clip in a row, with a label. They stand beside the video, and in its place in print.
    """

    kind: ClassVar[str] = "video"
    path: Path
    alt: str
    caption: str = ""
    strips: Sequence[tuple[str, Path]] = ()


@dataclass(frozen=True)
class Beside:
    """Pictures beside each other where there is room for two, else below each other."""

    kind: ClassVar[str] = "beside"
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class KeyLine:
    """A line of a chart: its place in the palette, its dashes in SVG, and whose it is."""

    color: int
    dashes: str
    label: str


@dataclass(frozen=True)
class LineKey:
    """Which line of the charts below is whose."""

    kind: ClassVar[str] = "key"
    lines: Sequence[KeyLine]
    note: str = ""


@dataclass(frozen=True)
class Folded:
    """Parts behind one line that opens them. Print has them only where they are open."""

    kind: ClassVar[str] = "folded"
    summary: str
    parts: Sequence[Part]


Part = Heading | Text | Fragment | TextTable | Picture | VideoPlayer | Beside | LineKey | Folded


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it, in order."""

    heading: str
    parts: Sequence[Part]


@dataclass(frozen=True)
class PageHead:
    """What stands above the sections: a title, a sentence or two, and counts (class, number, word)."""

    title: str
    lead: str
    counts: Sequence[tuple[str, int, str]] = ()


def write_html(path: str | Path, head: PageHead, sections: Sequence[Section]) -> None:
    """Write the page. Equal input gives equal bytes.

    Raises:
        RecordError: a picture or video is missing.
        OutputError: the page cannot be written.
        ValueError: a file of another kind.
    """
    page = fill(
        "page.html",
        title=head.title,
        lead=head.lead,
        counts=head.counts,
        sections=sections,
        policy=POLICY,
        data_uri=data_uri,
    )
    with written_whole(path) as temporary:
        temporary.write_text(f"{page}\n", encoding="utf-8")


def data_uri(path: Path) -> str:
    """The file itself as an address.

    Raises:
        RecordError: the file cannot be read.
        ValueError: no kind of picture or video that pages show.
    """
    kind = MEDIA_TYPES.get(path.suffix.lower())
    if kind is None:
        raise ValueError(f"{path}: expected one of {', '.join(MEDIA_TYPES)}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RecordError(path, "", f"cannot be read: {error.strerror or error}") from error
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"

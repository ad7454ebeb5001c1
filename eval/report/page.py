"""One HTML page that holds everything it shows: text, tables, pictures, videos.

The page loads no other file and runs no script. It reads on a phone, in print and in dark mode. All text is escaped;
only a `Fragment` is HTML already.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

from astro_cli.config.errors import RecordError
from astro_cli.generate.media import written_whole
from eval.renderers.html import caption_of, scrolling
from eval.report.style import STYLE

PICTURE_TYPES = {".png": "image/png", ".gif": "image/gif", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}
VIDEO_TYPES = {".mp4": "video/mp4"}
CONTENTS_FROM = 3  # sections; fewer need no list of contents
# What a fragment may not hold: it would run, or load from elsewhere.
FOREIGN_TAGS = frozenset(
    {"script", "iframe", "object", "embed", "link", "base", "form", "meta", "img", "video", "audio", "source"}
)
VOID_TAGS = frozenset({"br", "hr", "col", "wbr"})
# Even where this page is wrong, a browser then loads nothing.
POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class Text:
    """Paragraphs (empty lines part them); `code` in backticks is set as such."""

    text: str


@dataclass(frozen=True)
class Fragment:
    """HTML from this package, e.g. `eval.renderers.render.render(..., "html")`.

    `entry` (an id in it, a name) lists it in the contents.
    """

    html: str
    entry: tuple[str, str] | None = None


@dataclass(frozen=True)
class TextTable:
    """A small table of plain text; the first column names the rows."""

    head: Sequence[str]
    rows: Sequence[Sequence[object]]
    caption: str = ""


@dataclass(frozen=True)
class Picture:
    """A PNG, JPEG or GIF. `wide`: keeps its size and scrolls sideways where the page is narrower, as a contact sheet
    must.
    """

    path: Path
    alt: str
    caption: str = ""
    wide: bool = False


@dataclass(frozen=True)
class VideoPlayer:
    """An MP4 with controls; it repeats, and starts when asked to.

    Its contact sheet, if any, stands below it, and in its place in print.
    """

    path: Path
    alt: str
    caption: str = ""
    sheet: Path | None = None


@dataclass(frozen=True)
class Beside:
    """Pictures beside each other where there is room for two, else below each other."""

    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Folded:
    """Parts behind one line that opens them. Print has them only where they are open."""

    summary: str
    parts: Sequence[Part]


Part = Text | Fragment | TextTable | Picture | VideoPlayer | Beside | Folded


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it, in order."""

    heading: str
    parts: Sequence[Part]


def write_report(
    path: str | Path, title: str, intro: str, sections: Sequence[Section], protocol: Mapping[str, object]
) -> None:
    """Write the page; `protocol` (recipe hash, commit, seeds, versions, ...) stands at its foot.

    Raises:
        RecordError: a picture or video is missing.
        OutputError: the page cannot be written.
        ValueError: a file of another kind, or a fragment that loads, runs or is not balanced.
    """
    page = _page(title, intro, sections, protocol)
    with written_whole(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _page(title: str, intro: str, sections: Sequence[Section], protocol: Mapping[str, object]) -> str:
    name = html.escape(title)
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        (
            '<meta name="color-scheme" content="light '
            f'dark">\n<title>{name}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>'
        ),
        f"<header>\n<h1>{name}</h1>\n{_text(Text(intro))}\n</header>",
        _contents(sections),
        *(_section(index, section) for index, section in enumerate(sections, start=1)),
        f"</main>\n{_footer(protocol)}\n</body>\n</html>\n",
    ]
    return "\n".join(part for part in parts if part)


def _contents(sections: Sequence[Section]) -> str:
    if len(sections) < CONTENTS_FROM:
        return ""
    entries = "".join(
        f"<li>{_link(f's{index}', s.heading)}{_entries(s)}</li>" for index, s in enumerate(sections, start=1)
    )
    return f'<nav aria-label="Contents"><ol>{entries}</ol></nav>'


def _entries(section: Section) -> str:
    listed = [part.entry for part in section.parts if isinstance(part, Fragment) and part.entry is not None]
    items = "".join(f"<li>{_link(anchor, name)}</li>" for anchor, name in listed)
    return f"<ul>{items}</ul>" if items else ""


def _link(anchor: str, name: str) -> str:
    return f'<a href="#{html.escape(anchor)}">{html.escape(name)}</a>'


def _section(index: int, section: Section) -> str:
    lines = [
        f'<section id="s{index}">',
        f"<h2>{html.escape(section.heading)}</h2>",
        *map(_part, section.parts),
        "</section>",
    ]
    return "\n".join(line for line in lines if line)


def _footer(protocol: Mapping[str, object]) -> str:
    if not protocol:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{html.escape(key)}</th><td>{html.escape(_value(value))}</td></tr>'
        for key, value in protocol.items()
    )
    return f"<footer>\n<h2>Protocol</h2>\n{scrolling(f'<table><tbody>{rows}</tbody></table>', 'Protocol')}\n</footer>"


def _value(value: object) -> str:
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, ensure_ascii=False, default=str)
    return "" if value is None else str(value)


# --- parts


def _part(part: Part) -> str:
    match part:
        case Text():
            return _text(part)
        case Fragment():
            _check_fragment(part.html)
            return part.html
        case TextTable():
            return _grid(part)
        case Picture():
            return _picture(part)
        case VideoPlayer():
            return _video(part)
        case Beside():
            return f'<div class="beside">{"".join(map(_picture, part.pictures))}</div>'
        case Folded():
            return "\n".join(
                [f"<details><summary>{_inline(part.summary)}</summary>", *map(_part, part.parts), "</details>"]
            )


def _text(text: Text) -> str:
    return "\n".join(f"<p>{_inline(block)}</p>" for block in text.text.split("\n\n") if block.strip())


def _inline(text: str) -> str:
    pieces = html.escape(text.strip()).split("`")
    if len(pieces) % 2 == 0:  # a backtick without its pair is a backtick
        return "`".join(pieces)
    return "".join(f"<code>{piece}</code>" if index % 2 else piece for index, piece in enumerate(pieces))


def _grid(grid: TextTable) -> str:
    if any(len(row) != len(grid.head) for row in grid.rows):
        raise ValueError(f"every row of a grid needs {len(grid.head)} cells")
    caption = caption_of(grid.caption) if grid.caption else ""
    kinds = map(_kind, grid.rows[0] if grid.rows else [""] * len(grid.head))
    head = "".join(
        f'<th scope="col"{kind}>{html.escape(cell)}</th>' for cell, kind in zip(grid.head, kinds, strict=True)
    )
    rows = "".join(f"<tr>{_grid_cells(row)}</tr>" for row in grid.rows)
    table = f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return scrolling(table, grid.caption or "Table")


def _grid_cells(row: Sequence[object]) -> str:
    first, *others = row
    name = _inline(_value(first)).replace("_", "_<wbr>")  # names of arms and runs are long: a phone breaks them there
    return f'<th scope="row">{name}</th>' + "".join(map(_grid_cell, others))


def _grid_cell(cell: object) -> str:
    return f"<td{_kind(cell)}>{_inline(_value(cell))}</td>"


def _kind(cell: object) -> str:
    """Words stand left and are wrapped, numbers right."""
    return ' class="text"' if isinstance(cell, str) else ""


def _picture(picture: Picture) -> str:
    image = _image(picture.path, picture.alt)
    return _figure(scrolling(image, picture.alt) if picture.wide else image, picture.caption)


def _image(path: Path, alt: str) -> str:
    return f'<img src="{_data_uri(path, PICTURE_TYPES)}" alt="{html.escape(alt)}">'


def _video(video: VideoPlayer) -> str:
    source = _data_uri(video.path, VIDEO_TYPES)
    name = html.escape(video.alt)
    player = f'<video src="{source}" aria-label="{name}" controls loop muted playsinline preload="auto">{name}</video>'
    if video.sheet is None:
        return _figure(player, video.caption)
    alt = f"contact sheet: {video.alt}"
    return _figure(player + scrolling(_image(video.sheet, alt), alt), video.caption, "clip")


def _figure(inner: str, caption: str, kind: str = "") -> str:
    opening = f'<figure class="{kind}">' if kind else "<figure>"
    return f"{opening}{inner}{f'<figcaption>{_inline(caption)}</figcaption>' if caption else ''}</figure>"


def _data_uri(path: Path, types: Mapping[str, str]) -> str:
    path = Path(path)
    kind = types.get(path.suffix.lower())
    if kind is None:
        raise ValueError(f"{path}: expected one of {', '.join(types)}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RecordError(path, "", f"cannot be read: {error.strerror or error}") from error
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


# --- fragments


class _FragmentCheck(HTMLParser):
    """ValueError where a fragment runs, loads, or leaves an element open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in FOREIGN_TAGS:
            raise ValueError(f"a fragment may not hold <{tag}>")
        for name, value in attrs:
            outside = name in ("src", "srcset", "href") and not (value or "").startswith("#")
            if outside or name.startswith("on") or "url(" in (value or ""):
                raise ValueError(f"a fragment may not hold {name}={value!r}")
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            raise ValueError(f"a fragment closes <{tag}>, which is not its innermost open element")


def _check_fragment(fragment: str) -> None:
    check = _FragmentCheck()
    check.feed(fragment)
    check.close()
    if check.open:
        raise ValueError(f"a fragment leaves <{check.open[-1]}> open")

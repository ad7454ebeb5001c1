"""One HTML page that holds everything it shows: text, tables, pictures, videos. Measures nothing and writes no other file.

The page loads nothing, runs no script, reads on a phone, in print and in the dark. All text is escaped; only a `Fragment` is HTML already.
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
from eval.media import written_whole

PICTURE_TYPES = {".png": "image/png", ".gif": "image/gif", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}
VIDEO_TYPES = {".mp4": "video/mp4"}
CONTENTS_FROM = 3  # sections; fewer need no list of contents
# What a fragment may not hold: it would run, or load from elsewhere.
FOREIGN_TAGS = frozenset({"script", "iframe", "object", "embed", "link", "base", "form", "meta", "img", "video", "audio", "source"})
VOID_TAGS = frozenset({"br", "hr", "col", "wbr"})
# Even where this page is wrong, a browser then loads nothing.
POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class Text:
    """Paragraphs (empty lines part them); `code` in backticks is set as such."""

    text: str


@dataclass(frozen=True)
class Fragment:
    """HTML from this package, e.g. `eval.render.render(..., "html")`."""

    html: str


@dataclass(frozen=True)
class Grid:
    """A small table of plain text; the first column names the rows."""

    head: Sequence[str]
    rows: Sequence[Sequence[object]]
    caption: str = ""


@dataclass(frozen=True)
class Picture:
    """A PNG, JPEG or GIF. `wide`: keeps its size and scrolls sideways where the page is narrower, as a contact sheet must."""

    path: Path
    alt: str
    caption: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Video:
    """An MP4 with controls; it repeats, and starts when asked to."""

    path: Path
    alt: str
    caption: str = ""


Part = Text | Fragment | Grid | Picture | Video


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it, in order."""

    heading: str
    parts: Sequence[Part]


def write_report(path: str | Path, title: str, intro: str, sections: Sequence[Section], protocol: Mapping[str, object]) -> None:
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
        f'<meta name="color-scheme" content="light dark">\n<title>{name}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>',
        f"<header>\n<h1>{name}</h1>\n{_text(Text(intro))}\n</header>",
        _contents(sections),
        *(_section(index, section) for index, section in enumerate(sections, start=1)),
        f"</main>\n{_footer(protocol)}\n</body>\n</html>\n",
    ]
    return "\n".join(part for part in parts if part)


def _contents(sections: Sequence[Section]) -> str:
    if len(sections) < CONTENTS_FROM:
        return ""
    entries = "".join(f'<li><a href="#s{index}">{html.escape(s.heading)}</a></li>' for index, s in enumerate(sections, start=1))
    return f'<nav aria-label="Contents"><ol>{entries}</ol></nav>'


def _section(index: int, section: Section) -> str:
    lines = [f'<section id="s{index}">', f"<h2>{html.escape(section.heading)}</h2>", *map(_part, section.parts), "</section>"]
    return "\n".join(line for line in lines if line)


def _footer(protocol: Mapping[str, object]) -> str:
    if not protocol:
        return ""
    rows = "".join(f'<tr><th scope="row">{html.escape(key)}</th><td>{html.escape(_value(value))}</td></tr>' for key, value in protocol.items())
    return f"<footer>\n<h2>Protocol</h2>\n{_scrolling(f'<table><tbody>{rows}</tbody></table>', 'Protocol')}\n</footer>"


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
        case Grid():
            return _grid(part)
        case Picture():
            return _picture(part)
        case Video():
            return _video(part)


def _text(text: Text) -> str:
    return "\n".join(f"<p>{_inline(block)}</p>" for block in text.text.split("\n\n") if block.strip())


def _inline(text: str) -> str:
    pieces = html.escape(text.strip()).split("`")
    if len(pieces) % 2 == 0:  # a backtick without its pair is a backtick
        return "`".join(pieces)
    return "".join(f"<code>{piece}</code>" if index % 2 else piece for index, piece in enumerate(pieces))


def _grid(grid: Grid) -> str:
    if any(len(row) != len(grid.head) for row in grid.rows):
        raise ValueError(f"every row of a grid needs {len(grid.head)} cells")
    caption = f"<caption>{html.escape(grid.caption)}</caption>" if grid.caption else ""
    head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in grid.head)
    rows = "".join(f"<tr>{_grid_cells(row)}</tr>" for row in grid.rows)
    table = f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return _scrolling(table, grid.caption or "Table")


def _grid_cells(row: Sequence[object]) -> str:
    first, *others = (html.escape(_value(cell)) for cell in row)
    return f'<th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in others)


def _scrolling(inner: str, name: str) -> str:
    """A box that scrolls sideways; it takes the focus, so that the keyboard can scroll it too."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{html.escape(name)}">{inner}</div>'


def _picture(picture: Picture) -> str:
    image = f'<img src="{_data_uri(picture.path, PICTURE_TYPES)}" alt="{html.escape(picture.alt)}">'
    return _figure(_scrolling(image, picture.alt) if picture.wide else image, picture.caption)


def _video(video: Video) -> str:
    source = _data_uri(video.path, VIDEO_TYPES)
    name = html.escape(video.alt)
    return _figure(f'<video src="{source}" aria-label="{name}" controls loop muted playsinline preload="auto">{name}</video>', video.caption)


def _figure(inner: str, caption: str) -> str:
    return f"<figure>{inner}{f'<figcaption>{_inline(caption)}</figcaption>' if caption else ''}</figure>"


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


# --- look

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1d23; --quiet: #5c606b; --line: #d9dbe1; --band: #f4f4f6; --link: #0b5cad; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #15171c; --ink: #e8e9ed; --quiet: #a3a7b3; --line: #363a45; --band: #20232b; --link: #7db8f5; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main, footer { max-width: 62rem; margin: 0 auto; padding: 1rem 1.1rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 1rem 0 .6rem; overflow-wrap: break-word; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 2.2rem 0 .6rem; padding-top: .6rem; border-top: 1px solid var(--line); }
p { max-width: 46rem; margin: .6rem 0; }
a { color: var(--link); }
nav ol { padding-left: 1.3rem; }
code { font: .9em ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
code { background: var(--band); padding: .1em .3em; border-radius: 3px; }
.scroll { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; margin: .8rem 0; }
caption { text-align: left; color: var(--quiet); padding-bottom: .4rem; }
th, td { padding: .35rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; vertical-align: top; }
th[scope=row], th[scope=rowgroup], th:first-child, td:first-child { text-align: left; font-weight: 600; }
thead th { background: var(--band); border-bottom: 2px solid var(--line); }
th[scope=rowgroup] { color: var(--quiet); padding-top: .8rem; }
.published { color: var(--quiet); }
figure { margin: 1rem 0; }
img, video { display: block; max-width: 100%; height: auto; border-radius: 4px; background: #fff; }
.scroll > img { max-width: none; }
figcaption, small { color: var(--quiet); font-size: .88rem; }
figcaption { margin-top: .4rem; max-width: 46rem; }
footer { color: var(--quiet); }
footer td { text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 12rem; }
@media print {
  :root { color-scheme: light; --paper: #fff; --ink: #000; --quiet: #444; --line: #bbb; --band: #f2f2f2; --link: #000; }
  body { font-size: 10.5pt; }
  main, footer { max-width: none; padding: 0; }
  nav { display: none; }
  .scroll, .astro-table { overflow: visible !important; }
  .scroll > img { max-width: 100%; }
  th, td { white-space: normal; padding: .2rem .4rem; }
  figure, tr { break-inside: avoid; }
  h2 { break-after: avoid; }
}
"""

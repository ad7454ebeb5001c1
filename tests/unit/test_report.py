"""The HTML page: whole in itself, balanced and escaped; it loads nothing and runs nothing."""

from __future__ import annotations

import base64
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from astro_cli.config.errors import OutputError, RecordError
from astro_cli.generate.media import write_gif
from eval.papers.published import list_tables, load_table
from eval.papers.table import build, differences
from eval.renderers.render import render
from eval.report import figures
from eval.report.page import (
    Beside,
    Folded,
    Fragment,
    Heading,
    KeyLine,
    LineKey,
    PageHead,
    Picture,
    Section,
    Text,
    TextTable,
    VideoPlayer,
    write_html,
)

VOID = {"meta", "img", "br", "hr", "link", "input", "source", "col", "wbr"}
EVIL = '<script>alert("x")</script> & "quotes"'


class Page(HTMLParser):
    """Collects elements and text; fails where tags are not balanced."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    paths = {kind: tmp_path / f"clip.{kind}" for kind in ("png", "gif", "mp4")}
    Image.new("RGB", (8, 8), (200, 30, 30)).save(paths["png"])
    write_gif(np.stack([np.full((8, 8, 3), 40 * t, dtype=np.uint8) for t in range(3)]), paths["gif"], fps=8)
    paths["mp4"].write_bytes(b"\x00\x00\x00\x18ftypmp42 any bytes")
    return paths


def write(tmp_path: Path, *parts: object, title: str = "Astrolabe", lead: str = "What was run.") -> str:
    path = tmp_path / "report.html"
    head = PageHead(title, lead, [("holds", 2, "hold")])
    write_html(path, head, [Section("Clips", parts)])  # pyright: ignore[reportArgumentType]
    return path.read_text(encoding="utf-8")


def test_media_are_inside_the_page(tmp_path: Path, files: dict[str, Path]) -> None:
    source = write(
        tmp_path,
        Picture(files["png"], "curves", "Reward `vq`"),
        Picture(files["gif"], "a clip"),
        VideoPlayer(files["mp4"], "a pair", "base | tuned"),
    )
    page = Page(source)
    sources = [attrs["src"] for attrs in page.all("img") + page.all("video")]
    kinds = ["image/png", "image/gif", "video/mp4"]
    for uri, kind, path in zip(sources, kinds, files.values(), strict=True):
        head, _, data = (uri or "").partition(",")
        assert head == f"data:{kind};base64"
        assert base64.b64decode(data, validate=True) == path.read_bytes()
    assert [attrs["alt"] for attrs in page.all("img")] == ["curves", "a clip"]
    assert "controls" in page.all("video")[0]
    assert "<figcaption>Reward <code>vq</code></figcaption>" in source


def test_nothing_is_loaded_or_run(tmp_path: Path, files: dict[str, Path]) -> None:
    source = write(tmp_path, Picture(files["png"], "x"), Text("text"))
    page = Page(source)
    assert "://" not in source
    assert "url(" not in source
    assert "@import" not in source
    assert not page.all("script")
    assert not page.all("link")
    for _, attrs in page.tags:
        for name in ("src", "href"):
            if name in attrs:
                assert (attrs[name] or "").startswith(("data:", "#"))
    policy = next(
        attrs["content"] for attrs in page.all("meta") if attrs.get("http-equiv") == "Content-Security-Policy"
    )
    assert (policy or "").startswith("default-src 'none'")


def test_phone_print_and_dark(tmp_path: Path, files: dict[str, Path]) -> None:
    source = write(
        tmp_path, TextTable(["arm", "VQ"], [["base", 0.5]], "Scores"), Picture(files["png"], "sheet", wide=True)
    )
    page = Page(source)
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")
    assert page.all("html") == [{"lang": "en"}]
    assert "@media print" in source
    assert "prefers-color-scheme: dark" in source
    assert (
        source.count('<div class="scroll"') == source.count('tabindex="0" role="region"') == 2
    )  # the grid and the wide picture


def test_all_text_is_escaped(tmp_path: Path, files: dict[str, Path]) -> None:
    source = write(
        tmp_path,
        Text(EVIL),
        TextTable([EVIL, "b"], [[EVIL, EVIL]], EVIL),
        Picture(files["png"], EVIL, EVIL, wide=True),
        VideoPlayer(files["mp4"], EVIL, EVIL, [(EVIL, files["png"])]),
        Heading(EVIL, "h"),
        Fragment(EVIL),
        LineKey([KeyLine(0, "", EVIL)], EVIL),
        Folded(EVIL, [Text(EVIL)]),
        title=EVIL,
        lead=EVIL,
    )
    page = Page(source)
    assert not page.all("script")
    assert page.all("img")[0]["alt"] == EVIL
    assert page.all("video")[0]["aria-label"] == EVIL
    assert sum(EVIL in text for text in page.text) >= 13


def test_a_folded_part_is_closed_and_whole(tmp_path: Path, files: dict[str, Path]) -> None:
    source = write(tmp_path, Folded("3 of 4 `not run`", [Text("inside"), TextTable(["a"], [["b"]])]))
    assert "<details><summary>3 of 4 <code>not run</code></summary>\n<p>inside</p>" in source
    assert Page(source).all("details") == [{}]


def test_pictures_beside_each_other(tmp_path: Path, files: dict[str, Path]) -> None:
    source = write(tmp_path, Beside([Picture(files["png"], "one"), Picture(files["png"], "two")]))
    assert [attrs["alt"] for attrs in Page(source).all("img")] == ["one", "two"]
    assert '<div class="beside">\n<figure>' in source


def test_words_stand_left_and_long_names_can_break(tmp_path: Path) -> None:
    source = write(tmp_path, TextTable(["arm", "note", "n"], [["a_b", "`x`", 3]]))
    assert '<th scope="row">a_<wbr>b</th><td class="text"><code>x</code></td><td>3</td>' in source
    assert '<th scope="col" class="text">note</th><th scope="col">n</th>' in source


def test_paragraphs_and_code(tmp_path: Path) -> None:
    source = write(tmp_path, Text("Run `make run`.\n\nThen look; a lone ` stays."))
    assert "<p>Run <code>make run</code>.</p>\n<p>Then look; a lone ` stays.</p>" in source


@pytest.mark.parametrize("table_id", list_tables())
def test_the_rendered_tables_fit_in(tmp_path: Path, table_id: str) -> None:
    table = load_table(table_id)
    fragment = render(build(table, []), differences(table, []), "html")
    source = write(tmp_path, Fragment(fragment))
    Page(source)
    assert str(fragment) in source


def test_contents_link_to_their_sections_and_a_section_with_many_headings_lists_them(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    many = [Heading(f"Table <{number}>", f"t{number}") for number in range(4)]
    sections = [Section("One", many), Section("Two", many[:3]), Section("Three", [])]
    write_html(path, PageHead("t", ""), sections)
    source = path.read_text(encoding="utf-8")
    page = Page(source)
    targets = [(attrs["href"] or "").removeprefix("#") for attrs in page.all("a")]
    assert targets == ["s1", "s2", "s3", "t0", "t1", "t2", "t3"]  # three headings need no list
    assert [attrs["id"] for attrs in page.all("section")] == ["s1", "s2", "s3"]
    assert '<a href="#t0">Table &lt;0&gt;</a>' in source


def test_the_head_counts_claims(tmp_path: Path) -> None:
    assert '<li class="holds"><b>2</b> hold</li>' in write(tmp_path)


def test_a_clip_prints_as_its_frames(tmp_path: Path, files: dict[str, Path]) -> None:
    source = write(tmp_path, VideoPlayer(files["mp4"], "a pair", "caption", [("base", files["png"])]))
    page = Page(source)
    assert page.all("img")[0]["alt"] == "frames: base"
    assert "autoplay" not in page.all("video")[0]
    figure = source[source.index('<figure class="clip">') :]
    assert figure.index("<figcaption") < figure.index("<video") < figure.index("<img")
    printed = source[source.index("@media print") :]
    assert "nav, .clip video { display: none; }" in printed


def test_charts_follow_the_page_from_light_to_dark(tmp_path: Path) -> None:
    rows = [{"stage": "nft", "step": step, "reward/vq": step / 4} for step in range(3)]
    charts = [tmp_path / name for name in ("a.svg", "b.svg")]
    for chart in charts:
        figures.reward_curves({"mine": [rows]}, chart, ("reward/vq",))
    text = charts[0].read_text(encoding="utf-8")
    assert text == charts[1].read_text(encoding="utf-8")  # no date, no random id
    light, dark = text.split("@media (prefers-color-scheme: dark)")
    assert "--c0072b2: #0072b2;" in light  # the first arm's blue
    assert "--c0072b2: #4da6de;" in dark
    assert "stroke: var(--c0072b2)" in text
    assert "fill: #ffffff" not in text  # the page is the paper
    assert "VQ: visual quality" in text  # letters are letters
    source = write(tmp_path, Picture(charts[0], "curves"))
    assert 'src="data:image/svg+xml;base64,' in source


def test_the_keys_of_charts_have_the_colours_of_their_lines(tmp_path: Path) -> None:
    source = write(tmp_path, LineKey([KeyLine(1, "8 4", "an_arm")], "thin: seeds"))
    assert 'stroke="var(--arm1)" stroke-dasharray="8 4"' in source
    assert "an_<wbr>arm" in source
    for place, color in enumerate(figures.PALETTE):
        assert f"--arm{place}: {color.lower()};" in source


def test_missing_and_unknown_files(tmp_path: Path, files: dict[str, Path]) -> None:
    with pytest.raises(RecordError, match="cannot be read"):
        write(tmp_path, Picture(tmp_path / "none.png", "x"))
    with pytest.raises(ValueError, match="expected one of"):
        write(tmp_path, Picture(tmp_path / "page.html", "x"))
    with pytest.raises(ValueError, match="2 cells"):
        write(tmp_path, TextTable(["a", "b"], [["only one"]]))


def test_a_page_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_html(tmp_path / "file" / "report.html", PageHead("t", "i"), [])


def test_equal_input_gives_equal_bytes(tmp_path: Path, files: dict[str, Path]) -> None:
    pages = [write(tmp_path, Picture(files["png"], "x")) for _ in range(2)]
    assert pages[0] == pages[1]
    assert not list(tmp_path.glob(".*"))

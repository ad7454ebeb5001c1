"""The HTML page: whole in itself, balanced, escaped, and refused where a part would load or run something."""

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
from eval.report.page import Beside, Folded, Fragment, Picture, Section, Text, TextTable, VideoPlayer, write_report

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


def write(
    tmp_path: Path, *parts: object, title: str = "Astrolabe", intro: str = "What was run.", protocol: dict | None = None
) -> str:
    path = tmp_path / "report.html"
    write_report(path, title, intro, [Section("Clips", parts)], protocol or {})  # pyright: ignore[reportArgumentType]
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
    source = write(tmp_path, Picture(files["png"], "x"), Text("text"), protocol={"commit": "abc"})
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
        VideoPlayer(files["mp4"], EVIL, EVIL),
        title=EVIL,
        intro=EVIL,
        protocol={EVIL: EVIL, "versions": {"x": EVIL}},
    )
    page = Page(source)
    assert not page.all("script")
    assert page.all("img")[0]["alt"] == EVIL
    assert page.all("video")[0]["aria-label"] == EVIL
    assert sum(EVIL in text for text in page.text) >= 11


def test_protocol_stands_at_the_foot(tmp_path: Path) -> None:
    source = write(tmp_path, protocol={"recipe hash": "a1b2", "seeds": [0, 1, 2], "dirty": False, "device": None})
    foot = source[source.index("<footer>") :]
    assert '<th scope="row">recipe hash</th><td>a1b2</td>' in foot
    assert "<td>[0, 1, 2]</td>" in foot
    assert "<td>False</td>" in foot
    assert foot.index("a1b2") < foot.index("[0, 1, 2]")


def test_contents_link_to_their_sections(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(path, "t", "", [Section(name, [Text(name)]) for name in ("One", "Two", "Three")], {})
    page = Page(path.read_text(encoding="utf-8"))
    targets = [(attrs["href"] or "").removeprefix("#") for attrs in page.all("a")]
    assert targets == [attrs["id"] for attrs in page.all("section")] == ["s1", "s2", "s3"]


def test_fragments_are_listed_under_their_section(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    parts = [Fragment('<p id="x">x</p>', ("x", "Table <x>")), Fragment("<p>y</p>")]
    write_report(path, "t", "", [Section("One", parts), Section("Two", []), Section("Three", [])], {})
    source = path.read_text(encoding="utf-8")
    assert '<a href="#s1">One</a><ul><li><a href="#x">Table &lt;x&gt;</a></li></ul></li>' in source
    Page(source)


def test_a_folded_part_is_closed_and_whole(tmp_path: Path, files: dict[str, Path]) -> None:
    source = write(tmp_path, Folded("3 of 4 `not run`", [Text("inside"), TextTable(["a"], [["b"]])]))
    assert "<details><summary>3 of 4 <code>not run</code></summary>\n<p>inside</p>" in source
    assert Page(source).all("details") == [{}]
    with pytest.raises(ValueError, match="a fragment"):
        write(tmp_path, Folded("x", [Fragment("<script>1</script>")]))


def test_pictures_beside_each_other(tmp_path: Path, files: dict[str, Path]) -> None:
    source = write(tmp_path, Beside([Picture(files["png"], "one"), Picture(files["png"], "two")]))
    assert [attrs["alt"] for attrs in Page(source).all("img")] == ["one", "two"]
    assert '<div class="beside"><figure>' in source


def test_a_clip_prints_as_its_sheet(tmp_path: Path, files: dict[str, Path]) -> None:
    source = write(tmp_path, VideoPlayer(files["mp4"], "a pair", "caption", files["png"]))
    page = Page(source)
    assert page.all("img")[0]["alt"] == "contact sheet: a pair"
    figure = source[source.index('<figure class="clip">') :]
    assert figure.index("<video") < figure.index("<img") < figure.index("<figcaption>")
    printed = source[source.index("@media print") :]
    assert "nav, .clip video { display: none; }" in printed


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
    assert fragment in source


@pytest.mark.parametrize(
    "fragment",
    [
        "<script>1</script>",
        '<img src="x.png">',
        '<a href="https://example.org">x</a>',
        '<p onclick="x()">x</p>',
        '<p style="background:url(x.png)">x</p>',
        "<p>open",
        "<b><i>crossed</b></i>",
        "closed</p>",
    ],
)
def test_fragments_that_load_run_or_are_not_balanced_are_refused(tmp_path: Path, fragment: str) -> None:
    with pytest.raises(ValueError, match="a fragment"):
        write(tmp_path, Fragment(fragment))
    assert not (tmp_path / "report.html").exists()


def test_missing_and_unknown_files(tmp_path: Path, files: dict[str, Path]) -> None:
    with pytest.raises(RecordError, match="cannot be read"):
        write(tmp_path, Picture(tmp_path / "none.png", "x"))
    with pytest.raises(ValueError, match="expected one of"):
        write(tmp_path, Picture(files["mp4"], "x"))
    with pytest.raises(ValueError, match="2 cells"):
        write(tmp_path, TextTable(["a", "b"], [["only one"]]))


def test_a_page_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_report(tmp_path / "file" / "report.html", "t", "i", [], {})


def test_equal_input_gives_equal_bytes(tmp_path: Path, files: dict[str, Path]) -> None:
    pages = [write(tmp_path, Picture(files["png"], "x"), protocol={"a": 1}) for _ in range(2)]
    assert pages[0] == pages[1]
    assert not list(tmp_path.glob(".*"))

"""`astro report` from the command line to a browser: the page is whole, fits a phone and paper, and errors come before
any work.
"""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.records.store import Record, append, record_path
from tests.browser import DARK, LIGHT, call
from tests.command_line import run

ROOT = Path(__file__).parents[2]
# CSS pixels: a phone, a desk, A4 without its margins
PHONE, DESK, PAPER, PAPER_ON_ITS_SIDE = 390, 1280, 703, 1032
FRAME = '<iframe style="border:0" width="{width}" height="800" srcdoc="{page}"></iframe>'
# A page around the report, because the report runs no script and may load nothing. Its frames are as wide as a phone,
# and measured from outside.
PROBE = """<!DOCTYPE html><html><body>{frames}<pre id="found"></pre><script>
const look = page => {{
  for (const fold of page.querySelectorAll("details")) fold.open = true;
  const clipped = [...page.querySelectorAll("table")].filter(
    table => getComputedStyle(table.parentElement).overflowX === "visible"
      && table.getBoundingClientRect().right > table.parentElement.getBoundingClientRect().right + 1);
  const wide = [...page.querySelectorAll("table, img, video, article, svg")].filter(
    item => !item.closest(".scroll") && item.getBoundingClientRect().right > page.documentElement.clientWidth + 1);
  const cells = [...page.querySelectorAll(".measured-table tbody th[scope=row]")];
  const texts = [...page.querySelectorAll("p, td, th, li, summary, figcaption")];
  const small = texts.filter(item => parseFloat(getComputedStyle(item).fontSize) < 9);
  return {{
    width: page.documentElement.scrollWidth,
    clipped: clipped.map(table => table.closest("[id]").id + (table.closest(".wide") ? " wide" : "")),
    small: small.length,
    broken: [...page.images].filter(image => !image.naturalWidth).length,
    tables: page.querySelectorAll("table").length,
    videos: page.querySelectorAll("video").length,
    wide: wide.length,
    sticky: cells.length > 0 && cells.every(cell => getComputedStyle(cell).position === "sticky"),
    listed: [...page.querySelectorAll("nav a")].map(link => link.textContent),
    headings: [...page.querySelectorAll("h2")].map(heading => heading.textContent),
    lost: [...page.querySelectorAll("a")].filter(link => !page.querySelector(link.getAttribute("href"))).length,
    background: getComputedStyle(page.body).backgroundColor,
    ink: getComputedStyle(page.body).color,
  }};
}};
addEventListener("load", () => {{
  const found = [...document.querySelectorAll("iframe")].map(frame => look(frame.contentDocument));
  document.querySelector("#found").textContent = JSON.stringify(found);
}});
</script></body></html>"""


def measured(browser: str, pages: list[tuple[str, int]], folder: Path, scheme: str = LIGHT) -> list[dict]:
    """What a browser says of each page in a frame of its width, all folds open. Its console must stay empty."""
    probe = folder / "probe.html"
    frames = "".join(FRAME.format(width=width, page=html.escape(page)) for page, width in pages)
    probe.write_text(PROBE.format(frames=frames), encoding="utf-8")
    done = call(
        browser,
        folder / "profile",
        "--window-size=1600,1000",
        "--virtual-time-budget=5000",
        scheme,
        "--dump-dom",
        probe.as_uri(),
    )
    assert "CONSOLE" not in done.stderr, done.stderr
    found = re.search(r'<pre id="found">(.+?)</pre>', done.stdout, re.DOTALL)
    assert found is not None, done.stdout[-2000:]
    return json.loads(html.unescape(found[1]))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Three arms' records of the columns of Astrolabe's Table 1 and of VBench, whose table is the widest."""
    folder = tmp_path / "results"
    for arm, value in (
        ("self_forcing_shapes", 0.5),
        ("longlive_shapes", 0.4),
        ("astrolabe_self_forcing_shapes", 0.625),
    ):
        for metric in ("vq", "mq", "ta", "color", "identity", "flicker", "smoothness", "dynamics"):
            append(
                record_path(folder, "shapes"),
                Record(
                    benchmark="shapes",
                    backbone="shapes",
                    arm=arm,
                    seed=0,
                    metric=metric,
                    direction="up",
                    scores=[value + i / 64 for i in range(8)],
                    recipe_hash="0" * 16,
                    weights_hash="1" * 16,
                    prompt_set_hash="2" * 16,
                    commit="3" * 40,
                    dirty=False,
                    protocol={
                        "num_frames": 9,
                        "fps": 8.0,
                        "resolution": [32, 32],
                        "prompts": 8,
                        "device": "cpu",
                        "versions": {"torch": "2.13.0"},
                    },
                ),
            )
    return folder


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "astrolabe_self_forcing_shapes-seed0"
    folder.mkdir(parents=True)
    recipe = {"name": "astrolabe_self_forcing_shapes", "seed": 0, "backbone": "shapes", "order": ["nft"]}
    recipe |= {"stages": {"nft": {"steps": 8}}}
    (folder / "resolved.json").write_text(json.dumps({"hash": "4" * 16, "recipe": recipe}))
    (folder / "environment.json").write_text(json.dumps({"commit": "5" * 40, "dirty": True}))
    rows = [{"stage": "nft", "step": step, "reward/total": step / 8, "reward/vq": step / 9} for step in range(8)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_the_page_in_a_browser(browser, results, run_folder, tiny_base, tmp_path, monkeypatch, capsys) -> None:
    out = tmp_path / "out" / "report.html"
    arms = ["--arm", str(tiny_base), "--arm", "shapes/self_forcing"]
    assert (
        run(["report", "--results", str(results), "--runs", str(run_folder), *arms, "--out", str(out)], monkeypatch)
        == 0
    )
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"{out}: " in captured.err
    assert [path.name for path in out.parent.iterdir()] == ["report.html"]
    page = out.read_text(encoding="utf-8")
    assert len(page) < 12e6

    printed = page.replace("@media print", "@media all")
    shown = [(page, PHONE), (page, DESK), (printed, PAPER), (printed, PAPER_ON_ITS_SIDE)]
    phone, desk, upright, on_its_side = measured(browser, shown, tmp_path)
    for screen, width in ((phone, PHONE), (desk, DESK)):
        assert (screen["width"] <= width, screen["wide"]) == (True, 0)  # only boxes scroll sideways
        assert screen["sticky"]  # the names of a table's rows stay in sight
    assert (phone["broken"], phone["small"], phone["videos"]) == (0, 0, 6)
    assert phone["tables"] > 27  # every published table, and what is measured beside them
    assert phone["listed"] == phone["headings"] == ["Verdicts", "Clips", "Training curves", "Tables", "Protocol"]
    assert phone["lost"] == 0
    (dark,) = measured(browser, [(page, PHONE)], tmp_path, DARK)
    assert (phone["background"], phone["ink"]) == ("rgb(255, 255, 255)", "rgb(27, 29, 35)")
    assert (dark["background"], dark["ink"]) == ("rgb(21, 23, 28)", "rgb(232, 233, 237)")
    assert [name for name in upright["clipped"] if not name.endswith(" wide")] == []
    assert on_its_side["clipped"] == []
    assert_chart_follows_the_page(browser, page, tmp_path)
    pdf = tmp_path / "report.pdf"
    assert (
        "CONSOLE"
        not in call(
            browser, tmp_path / "profile", "--no-pdf-header-footer", f"--print-to-pdf={pdf}", out.as_uri()
        ).stderr
    )
    assert pdf.read_bytes().startswith(b"%PDF")


def assert_chart_follows_the_page(browser: str, page: str, folder: Path) -> None:
    """A chart by itself: dark letters on the light page, light letters on the dark one."""
    chart = re.search(r'src="(data:image/svg\+xml[^"]+)"', page)
    assert chart is not None
    alone, shot = folder / "chart.html", folder / "chart.png"
    alone.write_text(
        '<!DOCTYPE html><meta name="color-scheme" content="light dark"><style>body { margin: 0; }'
        "@media (prefers-color-scheme: dark) { body { background: #15171c; } }</style>"
        f'<img src="{chart[1]}" width="480">'
    )
    ranges = []
    for scheme in (LIGHT, DARK):
        call(browser, folder / "profile", "--window-size=480,320", scheme, f"--screenshot={shot}", alone.as_uri())
        with Image.open(shot) as image:
            gray = np.asarray(image.convert("L"))
        ranges.append((int(np.median(gray)), int(gray.min()), int(gray.max())))
    (paper, ink, _), (dark_paper, _, dark_ink) = ranges
    assert (paper > 250, ink < 60) == (True, True)
    assert (dark_paper < 40, dark_ink > 200) == (True, True)


def test_equal_input_gives_equal_bytes(results, run_folder, tiny_base, tmp_path, monkeypatch) -> None:
    pages = []
    for name in ("a.html", "b.html"):
        arguments = [
            "--results",
            str(results),
            "--runs",
            str(run_folder),
            "--arm",
            str(tiny_base),
            "--out",
            str(tmp_path / name),
        ]
        assert run(["report", *arguments], monkeypatch) == 0
        pages.append((tmp_path / name).read_bytes())
    assert pages[0] == pages[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--results", "none"], "error: --results: none: no such folder"),
        (["--results", "empty"], "error: --results: empty: holds no records of backbone 'shapes'"),
        (["--backbone", "wan"], "error: --results: results: holds no records of backbone 'wan'"),
        (["--backbone", "wann"], "error: --backbone: wann: unknown backbone"),
        (["--runs", "none"], "error: --runs: none: no such folder"),
        (["--runs", "wan_run"], "error: --runs: wan_run: a run on 'wan', this page shows 'shapes'"),
        (["--arm", "shapes/self_forcin"], "did you mean 'shapes/self_forcing'?"),
        (["--arm", "shapes/self_forcing"] * 7, "error: --arm: found 7 arms, at most 6 stand side by side"),
        (["--out", "empty"], "error: empty: --out: is a folder"),
        (["--out", "file/report.html"], "error: file/report.html: --out: cannot be written"),
    ],
)
def test_wrong_input_is_a_message_and_leaves_nothing(
    results, tmp_path, monkeypatch, capsys, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "wan_run").mkdir()
    recipe = {"name": "w", "seed": 0, "backbone": "wan", "order": [], "stages": {}}
    (tmp_path / "wan_run" / "resolved.json").write_text(json.dumps({"hash": "h", "recipe": recipe}))
    assert run(["report", *arguments], monkeypatch) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "results", "wan_run"]


def test_what_a_page_lacks_is_said_with_its_option(results, tmp_path, monkeypatch, capsys) -> None:
    assert run(["report", "--results", str(results), "--out", str(tmp_path / "page.html")], monkeypatch) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "note: without --arm there are no clips; for example --arm shapes/self_forcing --arm RUN" in said
    assert "note: without --runs there are no training curves" in said


def test_help_has_an_example(monkeypatch, capsys) -> None:
    assert run(["report", "--help"], monkeypatch) == 0
    assert "Example: astro report" in capsys.readouterr().out

"""The page of `astro study build` in a browser: it is played, answered by keyboard and by dragging, kept and saved, and
what it saves is what the commands read.
"""

from __future__ import annotations

import html
import json
import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from astro_cli.generate.mp4 import write_mp4
from astro_cli.media.pairs import list_pairs
from eval.human import gsb, likert, rank
from tests.browser import DARK, LIGHT, call
from tests.command_line import run

PROMPTS = ("a red circle moves right", "a blue square </script> & stops")
PHONE, DESK = 390, 1280
# A page around the study, of the same origin: it drives the study as a rater would, and reads what the rater sees.
DRIVER = """<!DOCTYPE html><html><body><iframe id="frame" width="{width}" height="900" style="border:0"></iframe>
<pre id="found"></pre><script>
const frame = document.getElementById("frame");
const found = {{}};
const loaded = () => new Promise((done) => {{ frame.onload = done; frame.src = "study.html?" + Math.random(); }});
const wait = (test) => new Promise((done) => {{
  const look = () => (test() ? done(true) : --patience < 0 ? done(false) : setTimeout(look, 50));
  let patience = 200;
  look();
}});
const page = () => frame.contentDocument;
const get = (selector) => page().querySelector(selector);
const all = (selector) => [...page().querySelectorAll(selector)];
const key = (element, name) =>
  element.dispatchEvent(new frame.contentWindow.KeyboardEvent("keydown", {{ key: name, bubbles: true }}));
const pointer = (element, kind, y) =>
  element.dispatchEvent(new frame.contentWindow.PointerEvent(kind, {{ clientY: y, bubbles: true, cancelable: true }}));
const order = () => all(".order li").map((item) => item.dataset.letter).join("");
const saved = async () => {{
  let blob, name;
  const view = frame.contentWindow;
  view.URL.createObjectURL = (given) => ((blob = given), "blob:none");
  view.HTMLAnchorElement.prototype.click = function () {{ name = this.download; }};
  get("#export").click();
  return [name, await blob.text()];
}};
const seen = () => ({{
  width: page().documentElement.scrollWidth,
  background: frame.contentWindow.getComputedStyle(page().body).backgroundColor,
  text: page().body.innerText,
  shown: all("#clips video").length,
  next: get("#next").disabled,
}});
(async () => {{
  try {{
    localStorage.clear();
    await loaded();
    {steps}
  }} catch (error) {{
    found.error = String(error.stack || error);
  }}
  document.getElementById("found").textContent = JSON.stringify(found);
}})();
</script></body></html>"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address under which a browser finds it."""
    folder = tmp_path / "site"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def arms(tmp_path: Path) -> list[str]:
    """Folders of three arms, each with a video of another gray of both prompts; the second is shorter."""
    for shade, (arm, frames) in enumerate((("base", 8), ("tuned", 6), ("other", 8))):
        folder = tmp_path / arm
        folder.mkdir()
        lines = []
        for number, prompt in enumerate(PROMPTS):
            clip = np.full((frames, 32, 48, 3), 60 * shade + 20 * number + 20, dtype=np.uint8)
            write_mp4(clip, folder / f"{number}.mp4", 8.0)
            lines.append(json.dumps({"video": f"{number}.mp4", "prompt": prompt, "seed": number}))
        (folder / "manifest.jsonl").write_text("\n".join(lines))
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    return [str(tmp_path / arm) for arm in ("base", "tuned", "other")]


def drive(browser: str, site: tuple[Path, str], steps: str, width: int = DESK, scheme: str = LIGHT) -> dict[str, Any]:
    """What a rater sees who takes these steps. The browser's console must stay empty."""
    folder, address = site
    (folder / "driver.html").write_text(DRIVER.format(width=width, steps=steps), encoding="utf-8")
    flags = ("--window-size=1400,1000", "--virtual-time-budget=20000", scheme, "--dump-dom")
    done = call(browser, folder / "profile", *flags, f"{address}/driver.html")
    assert "CONSOLE" not in done.stderr, done.stderr
    found = re.search(r'<pre id="found">(.+?)</pre>', done.stdout, re.DOTALL)
    assert found is not None, done.stdout[-2000:]
    result = json.loads(html.unescape(found[1]))
    assert "error" not in result, result["error"]
    return result


def build(site: tuple[Path, str], arms: list[str], monkeypatch: pytest.MonkeyPatch, *options: str) -> str:
    page, prompts = site[0] / "study.html", Path(arms[0]).parent / "prompts.txt"
    assert run(["study", "build", *arms, "--prompts", str(prompts), "--out", str(page), *options], monkeypatch) == 0
    return page.read_text(encoding="utf-8")


def trials_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="study">(.+?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def orders(page: str) -> list[tuple[int, ...]]:
    """The arms of each trial as they stand."""
    return [tuple(clip["arm"] for clip in trial["clips"]) for trial in trials_of(page)["trials"]]


def rows_of(saved: list[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in saved[1].splitlines()]


RANK = """
    found.first = order();
    key(all(".order li")[2], "ArrowUp");
    key(all(".order li")[1], "ArrowUp");
    found.keyboard = order();
    found.said = get("#said").textContent;
    get("#next").click();
    found.second = get("#where").textContent;
    found.before = order();
    found.open = get("#next").disabled;
    const [top, , bottom] = all(".order li");
    const box = bottom.getBoundingClientRect();
    pointer(top.querySelector(".handle"), "pointerdown", top.getBoundingClientRect().top + 5);
    pointer(page().body, "pointermove", box.top + box.height / 2);
    pointer(page().body, "pointerup", box.top + box.height / 2);
    found.dragged = order();
    get("#next").click();
    found.done = get("#notice").textContent;
    await loaded();
    found.kept = get("#export").textContent;
    found.saved = await saved();
"""


def test_ranking_by_keyboard_and_by_dragging(browser, site, arms, tmp_path, monkeypatch) -> None:
    page = build(site, arms, monkeypatch, "--criterion", "motion")
    found = drive(browser, site, RANK)
    assert (found["first"], found["keyboard"]) == ("ABC", "CAB")
    assert found["said"] == "Clip C is now in place 1 of 3."
    assert (found["second"], found["before"], found["open"]) == ("Trial 2 of 2", "ABC", True)
    assert found["dragged"] == "BCA"
    assert "save the answers" in found["done"]
    assert found["kept"] == "Save answers (2 of 2)"

    study, rows = trials_of(page), rows_of(found["saved"])
    expected = []
    for trial, letters in zip(study["trials"], ("CAB", "BCA"), strict=True):
        arms_shown = [study["arms"][clip["arm"]] for clip in trial["clips"]]
        expected += [(trial["item"], arms_shown["ABC".index(letter)], place) for place, letter in enumerate(letters, 1)]
    assert [(row["item"], row["arm"], row["rank"]) for row in rows] == expected
    assert {row["criterion"] for row in rows} == {"motion"}

    answers = tmp_path / "answers.jsonl"
    answers.write_text(found["saved"][1])
    means = {row.arm: row.mean for row in rank.read(answers).arms}
    places = {arm: [place for _, own, place in expected if own == arm] for arm in study["arms"]}
    assert means == {arm: pytest.approx(sum(own) / 2) for arm, own in places.items()}


GSB = """
    get("#rater").value = "Ann B.";
    get("#rater").dispatchEvent(new frame.contentWindow.Event("input"));
    for (const pick of [0, 1, 2, 0, 1, 2]) {
      get("#next").click();
      (found.stays ??= []).push(get("#where").textContent);
      for (const group of all("fieldset")) group.querySelectorAll("input")[pick].click();
      get("#next").click();
    }
    found.saved = await saved();
"""


def test_good_same_bad_becomes_pairs_for_prefer(browser, site, arms, tmp_path, monkeypatch) -> None:
    clips = tmp_path / "clips"
    page = build(
        site, arms, monkeypatch, "--mode", "gsb", "-c", "motion", "-c", "looks", "--seed", "3", "--clips", str(clips)
    )
    found = drive(browser, site, GSB)
    study, rows = trials_of(page), rows_of(found["saved"])
    assert found["stays"] == [f"Trial {number} of 6" for number in range(1, 7)]  # nothing goes on without an answer
    assert found["saved"][0] == "answers-Ann-B-.jsonl"
    assert len(rows) == 12
    for (trial, pick), row in zip(zip(study["trials"], (0, 1, 2, 0, 1, 2), strict=True), rows[::2], strict=True):
        left, right = (study["arms"][clip["arm"]] for clip in trial["clips"])
        better = {0: left, 1: None, 2: right}[pick]
        verdict = "S" if better is None else "G" if better == row["arm"] else "B"
        assert ({row["arm"], row["other"]}, row["verdict"], row["rater"]) == ({left, right}, verdict, "Ann B.")
        assert study["arms"].index(row["arm"]) < study["arms"].index(row["other"])

    answers = clips / "answers.jsonl"
    answers.write_text(found["saved"][1])
    assert sum(row.n for row in gsb.read(answers) if row.criterion == "all") == 12
    pairs = list_pairs(answers)
    decided = [row for row in rows if row["verdict"] != "S"]
    assert len(pairs) == len(decided) == 8
    for pair, row in zip(pairs, decided, strict=True):
        assert pair.chosen == clips / row["chosen" if row["verdict"] == "G" else "rejected"]
        assert pair.prompt == row["prompt"]


LIKERT = """
    for (let trial = 0; trial < 2; trial++) {
      all("[role=radiogroup]").forEach((group, index) => group.querySelectorAll("input")[index].click());
      get("#next").click();
    }
    found.saved = await saved();
"""


def test_likert_scores(browser, site, arms, tmp_path, monkeypatch) -> None:
    page = build(site, arms, monkeypatch, "--mode", "likert", "--scale", "1-4")
    found = drive(browser, site, LIKERT)
    study, rows = trials_of(page), rows_of(found["saved"])
    expected = [(trial["item"], study["arms"][clip["arm"]]) for trial in study["trials"] for clip in trial["clips"]]
    assert [(row["item"], row["arm"], row["score"]) for row in rows] == [
        (*each, 1 + index % 3) for index, each in enumerate(expected)
    ]
    answers = tmp_path / "answers.jsonl"
    answers.write_text(found["saved"][1])
    assert {row.arm: row.n for row in likert.read(answers, (1, 4)).arms} == dict.fromkeys(study["arms"], 2)


PLAY = """
    const clips = () => all("#clips video");
    found.ready = await wait(() => clips().every((video) => video.readyState >= 2));
    found.seen = seen();
    key(page().body, "p");
    found.playing = await wait(() => clips().every((video) => !video.paused && video.currentTime > 0.1));
    const times = clips().map((video) => video.currentTime);
    found.apart = Math.max(...times) - Math.min(...times);
    key(page().body, "p");
    found.paused = await wait(() => clips().every((video) => video.paused && !video.seeking));
    found.aligned = new Set(clips().map((video) => video.currentTime.toFixed(2))).size;
    get("#seek").value = 1000;
    get("#seek").dispatchEvent(new frame.contentWindow.Event("input"));
    await wait(() => clips().every((video) => !video.seeking));
    found.ends = clips().map((video) => [video.currentTime, video.duration]);
    found.names = all("#clips *").map((element) => element.outerHTML).join("");
"""


def test_the_clips_play_together_on_a_phone_and_in_the_dark(browser, site, arms, monkeypatch) -> None:
    page = build(site, arms, monkeypatch, "--title", "A study")
    assert not re.search(r'(?:src|href)="', page)  # nothing is loaded
    assert "</script> & stops" not in page  # a prompt cannot end the data
    found = drive(browser, site, PLAY, PHONE, DARK)
    assert (found["ready"], found["playing"], found["paused"], found["aligned"]) == (True, True, True, 1)
    assert found["apart"] < 0.25
    assert sorted(round(length, 2) for _, length in found["ends"]) == [0.75, 1.0, 1.0]
    assert all(time == pytest.approx(length, abs=0.01) for time, length in found["ends"])  # each its own last frame
    seen = found["seen"]
    assert (seen["width"] <= PHONE, seen["shown"], seen["next"]) == (True, 3, True)
    assert seen["background"] == "rgb(21, 23, 28)"
    assert all(arm not in seen["text"] + found["names"] for arm in ("base", "tuned", "other"))  # anonymous


def test_equal_seeds_give_equal_pages(site, arms, monkeypatch) -> None:
    first, again = (build(site, arms, monkeypatch) for _ in range(2))
    other = build(site, arms, monkeypatch, "--seed", "1")
    assert first == again
    assert orders(first) != orders(other)

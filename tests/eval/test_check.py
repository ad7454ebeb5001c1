"""The pre-flight check: each thing that can be wrong with a folder is found, named and counted, and a good folder has
no finding.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import unicodedata
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from astro_cli.__main__ import app
from astro_cli.config.errors import AstroError
from eval.contract import Segment
from eval.inputs import InputError, load, samples
from eval.inputs.check import check, examine
from eval.inputs.coverage import coverage
from eval.inputs.entries import SHOWN, Finding
from eval.inputs.requirements import LENGTHS, Requirements, SuiteLength, requirements
from eval.inputs.samples import list_folder
from eval.prompt_sets import Prompt, PromptSet
from eval.suites.suite import Protocol
from tests.small_videos import write_damaged, write_truncated, write_video

PROMPTS = PromptSet(
    "few",
    "1",
    (
        Prompt("few-0000", "a cat", {"dimension": ["color"]}),
        Prompt("few-0001", "A cat", {"dimension": ["temporal_flickering"]}),
        Prompt("few-0002", "the caf\u00e9", {"dimension": ["scene"]}),
    ),
)
needs_vbench = pytest.mark.skipif(
    importlib.util.find_spec("vbench") is None, reason="the vbench package is not installed"
)
NEEDS = Requirements("mini", PROMPTS, samples=2)
ANY = Requirements()
GROWTH = 8 * 2**20  # bytes; the frames of the 180 clips would be 19 MiB


def fill(folder: Path, *names: str, start: int = 0) -> Path:
    """Videos of these names, each with its own pixels."""
    for number, name in enumerate(names, start):
        write_video(folder / f"{name}.mp4", seed=number)
    return folder


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """Everything `NEEDS` asks for."""
    return fill(tmp_path, *(f"{prompt.text}-{index}" for prompt in PROMPTS.prompts for index in range(2)))


def of(findings: list[Finding], key: str) -> Finding:
    """The one finding about this key."""
    found = [finding for finding in findings if finding.key == key]
    assert len(found) == 1, findings
    return found[0]


def test_a_whole_folder_has_no_finding(whole: Path) -> None:
    found = examine(whole, NEEDS, jobs=2)
    assert (found.findings, found.videos, found.prompts, found.kind) == ((), 6, 3, "names")


def test_samples_at_hand_are_checked_like_their_folder(whole: Path) -> None:
    found = load(whole, PROMPTS)
    assert check(found, NEEDS) == []
    assert of(check(found[1:], NEEDS), "missing").items == ("A cat-0.mp4",)


# --- names and counts


def test_missing_indices_are_listed_exactly(whole: Path) -> None:
    (whole / "the caf\u00e9-1.mp4").unlink()
    finding = of(check(whole, NEEDS), "missing")
    assert finding == Finding(
        "error",
        "the caf\u00e9-1.mp4",
        "missing",
        "not there, of the 6 videos the suite asks for",
        "the suite is partial without them, and has no total",
        ("the caf\u00e9-1.mp4",),
    )


def test_many_missing_are_counted_and_ten_named(whole: Path) -> None:
    finding = of(check(whole, replace(NEEDS, samples=7)), "missing")
    assert len(finding.items) == 15  # 3 prompts x 5
    assert finding.what.startswith("not there, of the 21 videos the suite asks for (15): a cat-2.mp4, a cat-3.mp4, ")
    assert finding.what.endswith(f"A cat-6.mp4 and {15 - SHOWN} more")


def test_a_prompt_lost_to_a_case_insensitive_disk_is_explained(whole: Path) -> None:
    for path in whole.glob("a cat-*"):
        path.unlink()
    finding = of(check(whole, NEEDS), "missing")
    assert finding.items == ("a cat-0.mp4", "a cat-1.mp4")
    assert "one overwrote the other" in finding.hint
    for path in whole.glob("A cat-*"):
        path.unlink()  # neither is there: nothing says that one overwrote the other
    assert "overwrote" not in of(check(whole, NEEDS), "missing").hint


def test_extra_indices(whole: Path) -> None:
    fill(whole, "a cat-2", "a cat-30", "A cat-24", start=20)
    flicker = replace(NEEDS, extra={"temporal_flickering": 25})
    finding = of(check(whole, flicker), "extra")  # flicker's prompts are generated 25 times, before the static filter
    assert (finding.severity, finding.items) == ("warning", ("a cat-2.mp4", "a cat-30.mp4"))
    assert of(check(whole, NEEDS), "extra").items == ("a cat-2.mp4", "a cat-30.mp4", "A cat-24.mp4")


def test_only_the_dimensions_asked_for_count(whole: Path) -> None:
    for path in whole.glob("[!a]*"):
        path.unlink()
    assert check(whole, replace(NEEDS, dimensions=("color",))) == []
    assert len(of(check(whole, replace(NEEDS, dimensions=("color", "scene"))), "missing").items) == 2
    with pytest.raises(InputError, match="no prompt of few has it") as caught:
        check(whole, replace(NEEDS, dimensions=("colour",)))
    assert caught.value.hint == "did you mean 'color'?"


def test_names_that_match_no_prompt_do_not_stop_the_rest(whole: Path) -> None:
    fill(whole, "a cow-0", "a cow-1", start=20)
    write_truncated(whole / "a cat-0.mp4")
    findings = check(whole, NEEDS)
    assert of(findings, "name").items == ("a cow-0.mp4", "a cow-1.mp4")
    assert of(findings, "decode").file == "a cat-0.mp4"


def test_names_in_other_forms(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "the caf\u00e9-0")
    fill(tmp_path, decomposed, "The CAF\u00c9-1", "a cat-00", "a cat-1", "A cat-0", "A cat-1")
    findings = check(tmp_path, NEEDS)
    assert [finding.severity for finding in findings] == ["warning"] * 3
    assert of(findings, "unicode").items == (f"{decomposed}.mp4",)
    assert of(findings, "name").items == ("The CAF\u00c9-1.mp4",)
    assert of(findings, "index").items == ("a cat-00.mp4",)


def test_cases_that_the_prompts_have_themselves_are_no_finding(whole: Path) -> None:
    assert not [finding for finding in check(whole, NEEDS) if finding.key == "case"]
    fill(whole, "A CAT-1", start=20)
    assert of(check(whole, NEEDS), "case").items == ("A CAT-1.mp4", "A cat-1.mp4", "a cat-1.mp4")
    assert of(check(whole, ANY), "case").items == (
        "A CAT-1.mp4",
        "A cat-1.mp4",
        "a cat-1.mp4",
        "A cat-0.mp4",
        "a cat-0.mp4",
    )


def test_two_files_for_one_index(whole: Path) -> None:
    fill(whole, unicodedata.normalize("NFD", "the caf\u00e9-1"), start=20)
    finding = of(check(whole, NEEDS), "index")
    assert (finding.severity, len(finding.items)) == ("error", 2)


def test_claims_to_one_place_are_found_without_a_prompt_set(tmp_path: Path) -> None:
    fill(tmp_path, "a bird-0", "a bird-00", "a cow-0")
    double = [finding for finding in check(tmp_path, ANY) if finding.severity == "error"]
    assert [(finding.key, finding.items) for finding in double] == [("index", ("a bird-0.mp4", "a bird-00.mp4"))]


def test_one_seed_of_two_videos_of_a_prompt(tmp_path: Path) -> None:
    fill(tmp_path, "a", "b", "c")
    rows = [
        {"video": f"{name}.mp4", "prompt": prompt, "seed": 1} for name, prompt in (("a", "x"), ("b", "x"), ("c", "y"))
    ]
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    finding = of(check(tmp_path, ANY), "seed")
    assert (finding.severity, finding.items) == ("warning", ("a.mp4", "b.mp4"))


def test_equal_files(whole: Path) -> None:
    shutil.copy(whole / "a cat-0.mp4", whole / "a cat-1.mp4")
    finding = of(check(whole, NEEDS), "duplicate")
    assert (finding.severity, finding.items) == ("error", ("a cat-0.mp4", "a cat-1.mp4"))


def test_counts_without_indices(tmp_path: Path) -> None:
    rows = [{"video": f"{number}.mp4", "prompt": "a cat", "seed": number} for number in range(3)]
    fill(tmp_path, "0", "1", "2", "stray")
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    findings = check(tmp_path, replace(NEEDS, dimensions=("color",)))
    assert of(findings, "extra").items == ("2.mp4",)
    assert of(findings, "video").items == ("stray.mp4",)
    missing = of(check(tmp_path, replace(NEEDS, samples=4, dimensions=("color",))), "missing")
    assert missing.items == ("a cat-3.mp4",)


# --- what the files hold


@pytest.mark.parametrize(
    ("frames", "size", "fps", "key"),
    [(6, (48, 32), 8, "frames"), (5, (64, 32), 8, "resolution"), (5, (48, 32), 16, "fps")],
)
def test_one_video_unlike_the_others(frames: int, size: tuple[int, int], fps: float, key: str, whole: Path) -> None:
    write_video(whole / "a cat-1.mp4", seed=50, frames=frames, size=size, fps=fps)
    finding = of(check(whole, NEEDS), key)
    assert (finding.severity, finding.items) == ("warning", ("a cat-1.mp4",))
    assert "most videos have" in finding.what


@pytest.mark.parametrize(
    ("protocol", "key", "what"),
    [
        (Protocol(fps=16), "fps", "8, mini has 16"),
        (Protocol(frames=81), "frames", "5, mini has 81"),
        (Protocol(resolution=(832, 480)), "resolution", "48x32, mini has 832x480"),
        (Protocol(seconds=60), "seconds", "not the 60 s of mini"),
    ],
)
def test_videos_unlike_the_protocol(protocol: Protocol, key: str, what: str, whole: Path) -> None:
    finding = of(check(whole, replace(NEEDS, protocol=protocol)), key)
    assert (finding.severity, len(finding.items)) == ("error", 6)
    assert what in finding.what


def test_videos_like_the_protocol(whole: Path) -> None:
    assert check(whole, replace(NEEDS, protocol=Protocol(fps=8, frames=5, resolution=(48, 32), seconds=0.6))) == []


def test_lengths(tmp_path: Path) -> None:
    write_video(tmp_path / "a-0.mp4", frames=40)  # 5.0 s
    write_video(tmp_path / "b-0.mp4", frames=39, seed=1)
    vbench = of(check(tmp_path, Requirements("vbench", length=LENGTHS["vbench"])), "seconds")
    assert (vbench.severity, vbench.items) == ("warning", ("a-0.mp4",))
    long = of(check(tmp_path, Requirements("vbench-long", length=LENGTHS["vbench-long"])), "seconds")
    assert (long.severity, long.items) == ("warning", ("b-0.mp4",))
    for name, seconds in (("clip", "10"), ("long-clip", "10"), ("videoalign-stitched", "10"), ("qwen-judge", "5")):
        wrong, short = (finding for finding in check(tmp_path, requirements(name)) if finding.key == "seconds")
        assert (wrong.severity, len(wrong.items), wrong.what.startswith(f"not the 60 s of {name}")) == (
            "error",
            2,
            True,
        )
        assert (short.severity, f"{seconds} s" in short.what) == ("warning", True)
    few = [
        finding
        for finding in check(tmp_path, Requirements("x", length=SuiteLength(frames=40)))
        if finding.severity == "error"
    ]
    assert [finding.items for finding in few] == [("b-0.mp4",)]


@pytest.mark.parametrize("suite", ["flow-dis", "flow", "temporal-flickering", "drift", "videoalign-stitched"])
def test_one_frame_is_too_few_where_frames_are_compared(suite: str, tmp_path: Path) -> None:
    write_video(tmp_path / "a-0.mp4", frames=1)
    finding = of(check(tmp_path, requirements(suite)), "frames")
    assert (finding.severity, f"fewer than the 2 frames that {suite} needs" in finding.what) == ("error", True)


def test_a_line_twice_in_a_list_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("a cat\na dog\na cat\n")
    fill(tmp_path, "a cat-0", "a dog-0")
    finding = of(check(tmp_path, requirements("", str(tmp_path / "mine.txt"))), "prompts")
    assert (finding.severity, finding.items) == ("warning", ("mine-0000", "mine-0002"))


def test_a_folder_in_the_place_of_the_manifest(tmp_path: Path) -> None:
    fill(tmp_path, "a cat-0")
    (tmp_path / "manifest.jsonl").mkdir()
    with pytest.raises(InputError, match="a folder, expected a file"):
        check(tmp_path, ANY)


def test_unfinished_files_show_even_in_a_quick_check_damage_in_a_full_one(whole: Path) -> None:
    write_truncated(whole / "a cat-0.mp4")
    write_damaged(whole / "A cat-0.mp4")
    quick = [finding for finding in check(whole, NEEDS, quick=True) if finding.severity == "error"]
    full = [finding for finding in check(whole, NEEDS) if finding.severity == "error"]
    assert [finding.file for finding in quick] == ["a cat-0.mp4"]
    assert {finding.file for finding in full} == {"a cat-0.mp4", "A cat-0.mp4"}
    assert all(finding.key == "decode" and finding.hint for finding in full)


def test_a_folder_of_damaged_files_only(tmp_path: Path) -> None:
    write_truncated(tmp_path / "a-0.mp4")
    assert [(finding.key, finding.file) for finding in check(tmp_path, ANY)] == [("decode", "a-0.mp4")]


def test_a_file_that_cannot_be_read_is_a_finding(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> str:
        if path.name in {"a cat-0.mp4", "A cat-0.mp4"}:
            raise InputError(path, "", "cannot be read: Permission denied")
        return path.name

    monkeypatch.setattr(samples, "file_hash", refuse)
    findings = check(whole, NEEDS)
    assert sorted(finding.file for finding in findings) == ["A cat-0.mp4", "a cat-0.mp4"]
    assert all("Permission denied" in finding.what for finding in findings)


def test_segments_past_the_end(tmp_path: Path) -> None:
    script = Prompt("s-0000", "a", segments=(Segment(0, 1, "a"), Segment(1, 2, "b")))
    needs = Requirements("scripts", PromptSet("s", "1", (script,)), samples=1)
    write_video(tmp_path / "s-0000-0.mp4", frames=12)  # 1.5 s
    cut = of(check(tmp_path, needs), "segments")
    assert (cut.severity, cut.what) == ("warning", "ends before its last segment does")
    write_video(tmp_path / "s-0000-0.mp4", frames=8)
    assert "one begins at 1 s, the video has 1 s" in next(
        f.what for f in check(tmp_path, needs) if f.severity == "error"
    )


def test_no_videos_and_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no videos"):
        check(tmp_path, NEEDS)
    with pytest.raises(InputError, match="no such folder"):
        check(tmp_path / "gone", NEEDS)
    (tmp_path / "._a-0.mp4").write_bytes(b"macOS")
    (tmp_path / "a-0.mp4").mkdir()
    with pytest.raises(InputError, match="no videos"):
        check(tmp_path, NEEDS)


def test_memory_stays_flat_over_200_videos(tmp_path: Path) -> None:
    data = write_video(tmp_path / "v-0.mp4", frames=9, size=(128, 96)).read_bytes()
    for number in range(1, 200):
        (tmp_path / f"v-{number}.mp4").write_bytes(data)
    process, sizes = psutil.Process(), []
    found = examine(tmp_path, ANY, jobs=2, progress=lambda done, total: sizes.append(process.memory_info().rss))
    assert (found.videos, len(sizes)) == (200, 200)
    assert sizes[-1] - sizes[20] < GROWTH
    assert len(of(list(found.findings), "duplicate").items) == 200


# --- suites and the command


@needs_vbench
def test_requirements_come_from_the_suite() -> None:
    needs = requirements("vbench")
    assert needs.prompts is not None
    assert (needs.prompts.name, needs.samples, needs.length.below, needs.extra) == (
        "vbench",
        5,
        5.0,
        {"temporal_flickering": 25},
    )
    assert requirements("") == ANY
    with pytest.raises(AstroError, match="no such suite"):
        requirements("vbnch")


@needs_vbench
def test_the_official_4720_names_are_whole(tmp_path: Path) -> None:
    needs = requirements("vbench")
    assert needs.prompts is not None
    for text in {prompt.text for prompt in needs.prompts.prompts}:
        for index in range(5):
            (tmp_path / f"{text}-{index}.mp4").touch()
    listing = list_folder(tmp_path, needs.prompts)
    assert (len({entry.path for entry in listing.entries}), len({entry.prompt_id for entry in listing.entries})) == (
        4720,
        946,
    )
    assert listing.findings == ()
    assert coverage(tmp_path, listing.entries, needs) == []


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["eval", "check", *arguments])
    if isinstance(result.exception, AstroError):
        return result.exception.exit_code, str(result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout


def test_command_prints_a_table_and_its_exit_code(whole: Path) -> None:
    for path in whole.glob("A*"):
        path.unlink()
    code, text = run(str(whole))
    assert (code, text.strip()) == (0, f"{whole}: 4 videos, 2 prompts: 0 errors, 0 warnings")
    write_video(whole / "a cat-1.mp4", seed=50, frames=6)
    code, text = run(str(whole))
    assert code == 0  # warnings only
    assert "warning" in text
    assert "6, most videos have 5" in text
    write_truncated(whole / "a cat-0.mp4")
    code, text = run(str(whole))
    assert code == 2
    assert "ends early" in text
    assert "hint: " in text


def test_command_prints_json_with_all_names(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    prompts = tmp_path_factory.mktemp("prompts") / "mine.txt"
    prompts.write_text("a cat\nA cat\nthe caf\u00e9\na [bold]cow[/bold]\n")
    fill(whole, "[red]pig-0", start=20)
    code, text = run(str(whole), "--prompts", str(prompts), "--json")
    data = json.loads(text)
    assert (code, data["errors"], data["warnings"], data["videos"]) == (2, 1, 0, 6)
    assert data["prompt_set"]["name"] == "mine"
    assert data["findings"][0]["items"] == ["[red]pig-0.mp4"]
    code, text = run(str(whole), "--prompts", str(prompts))
    assert code == 2
    assert "[red]pig-0.mp4" in text  # names are no markup


def test_command_errors(tmp_path: Path) -> None:
    assert run(str(tmp_path / "gone"))[0] == 2
    code, text = run(str(tmp_path), "--suite", "vbnch")
    assert (code, "did you mean 'vbench'?" in text) == (2, True)

"""Folders as samples: the three layouts, what they say of a video, and every way a manifest, a name or a sidecar can be
wrong.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from astro_cli.media.decode import VideoError
from eval.contract import Segment, VideoInfo
from eval.inputs import InputError, load, write_manifest
from eval.prompt_sets import Prompt, PromptSet, text_id
from eval.watchers.sidecar import sidecar
from tests.small_videos import FPS, write_truncated, write_video

CEDILLA = "old fa\u00e7ades"
PROMPTS = PromptSet(
    "few",
    "1",
    (
        Prompt("few-0000", "a cat", {"dimension": ["color"]}),
        Prompt("few-0001", "a cat", {"dimension": ["scene"]}),  # VBench has such twins
        Prompt("few-0002", CEDILLA),
        Prompt("few-0003", "A dog", source="a very long text about a dog"),
        Prompt("few-0004", "start", segments=(Segment(0, 1, "start"), Segment(1, 2, "end"))),
    ),
)
DEEP = "[" * 100_000
SIDECAR: dict[str, Any] = {
    "video": "/elsewhere/x.mp4",
    "prompt": "A dog",
    "seed": 7,
    "frames": 16,
    "fps": 8.0,
    "switches": [],
    "weights": "shapes/x",
}


def manifest(folder: Path, *rows: dict[str, Any] | str) -> Path:
    """A manifest, and a video for each file it names that is not there."""
    for row in rows:
        if isinstance(row, dict) and "video" in row and not (folder / row["video"]).exists():
            write_video(folder / row["video"], seed=len(row["video"]), frames=16)
    folder.mkdir(exist_ok=True)
    (folder / "manifest.jsonl").write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return folder


# --- manifest


def test_a_video_name_too_long_for_a_file_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "manifest.jsonl").write_text(json.dumps({"video": "p" * 300 + ".mp4", "prompt": "p"}) + "\n")
    with pytest.raises(InputError, match="not there"):
        load(tmp_path)


def test_manifest_lines_become_samples(tmp_path: Path) -> None:
    rows = (
        {"video": "b/2.mp4", "prompt": "two", "prompt_id": "p2", "seed": 3, "index": 1, "labels": {"image": "x.jpg"}},
        {"video": "1.mp4", "prompt": "one"},
    )
    two, one = load(manifest(tmp_path, *rows))
    assert (two.path, two.prompt_id, two.prompt, two.seed) == (tmp_path / "b/2.mp4", "p2", "two", 3)
    assert two.labels == {"index": 1, "image": "x.jpg"}
    assert two.video_hash == hashlib.sha256((tmp_path / "b/2.mp4").read_bytes()).hexdigest()
    assert two.info == VideoInfo(16, 8.0, 48, 32)
    assert (one.prompt_id, one.seed, one.segments, one.labels) == (text_id("one"), None, (), {})


@pytest.mark.parametrize(
    "switches",
    [[[4, "b"], [8, "c"]], [["0.5s", "b"], ["1s", "c"]], [[4, "b"], ["1 s", "c"]]],
    ids=["frames", "seconds", "mixed"],
)
def test_switches_become_segments(switches: list[Any], tmp_path: Path) -> None:
    sample = load(manifest(tmp_path, {"video": "a.mp4", "prompt": "a", "switches": switches}))[0]
    assert sample.segments == (Segment(0, 0.5, "a"), Segment(0.5, 1, "b"), Segment(1, 2, "c"))


def test_segments_are_kept_and_end_with_the_video(tmp_path: Path) -> None:
    parts = [{"start": 0, "end": 1.25, "prompt": "a"}, {"start": 1.5, "end": 10, "prompt": "b"}]
    sample = load(manifest(tmp_path, {"video": "a.mp4", "segments": parts}))[0]
    assert sample.segments == (Segment(0, 1.25, "a"), Segment(1.5, 2.0, "b"))
    assert sample.prompt == "a"


def test_the_set_says_text_labels_and_segments(tmp_path: Path) -> None:
    rows = (
        {"video": "d.mp4", "prompt_id": "few-0003", "prompt": "a very long text about a dog"},
        {"video": "s.mp4", "prompt_id": "few-0004"},
    )
    dog, script = load(manifest(tmp_path, *rows), PROMPTS)
    assert dog.prompt == "A dog"  # scored with the original, whatever it was made from
    assert script.segments == (Segment(0, 1, "start"), Segment(1, 2, "end"))
    own = load(manifest(tmp_path, {"video": "s.mp4", "prompt_id": "few-0004", "switches": [[4, "x"]]}), PROMPTS)[0]
    assert own.segments == (Segment(0, 0.5, "start"), Segment(0.5, 2, "x"))


def test_prompts_are_found_by_text(tmp_path: Path) -> None:
    found = load(
        manifest(
            tmp_path,
            {"video": "c.mp4", "prompt": "a cat"},
            {"video": "d.mp4", "prompt": "a very long text about a dog"},
        ),
        PROMPTS,
    )
    assert [(sample.path.name, sample.prompt_id) for sample in found] == [
        ("c.mp4", "few-0000"),
        ("c.mp4", "few-0001"),
        ("d.mp4", "few-0003"),
    ]
    assert [sample.labels.get("dimension") for sample in found] == [["color"], ["scene"], None]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("{", "line 1: not JSON: Expecting"),
        ('"a"', "line 1: expected an object"),
        ({"prompt": "a"}, "video: missing"),
        ({"video": "a.mp4"}, "neither prompt nor prompt_id"),
        ({"video": "a.mp4", "prompt": ""}, "prompt: String should have at least 1"),
        ({"video": "a.mp4", "prompt": "a", "fps": 8}, "fps: unknown key"),
        ({"video": "a.mp4", "prompt": "a", "seed": "3"}, "seed: .*integer"),
        ({"video": "a.mp4", "prompt": "a", "seed": 1.5}, "seed: .*integer"),
        ({"video": "a.mp4", "prompt": "a", "index": -1}, "index: .*greater"),
        ({"video": "a.mp4", "prompt": "a", "switches": [[4]]}, "switches"),
        ({"video": "a.mp4", "prompt": "a", "switches": [[2.5, "b"]]}, "switches"),
        ({"video": "a.mp4", "prompt": "a", "switches": [["4", "b"]]}, "frame .48. or seconds"),
        ({"video": "a.mp4", "prompt": "a", "switches": [[0, "b"]]}, "after the beginning"),
        ({"video": "a.mp4", "prompt": "a", "switches": [[8, "b"], [8, "c"]]}, "in order"),
        ({"video": "a.mp4", "segments": [{"start": 1, "end": 1, "prompt": "a"}]}, "start before its end"),
        (
            {
                "video": "a.mp4",
                "segments": [{"start": 0, "end": 2, "prompt": "a"}, {"start": 1, "end": 3, "prompt": "b"}],
            },
            "without overlap",
        ),
        (
            {"video": "a.mp4", "segments": [{"start": 0, "end": 2, "prompt": "a"}], "switches": [[4, "b"]]},
            "expected one of them",
        ),
        ('{"video": "a.mp4", "segments": [{"start": 0, "end": NaN, "prompt": "a"}]}', "finite"),
        ('{"video": "../a.mp4", "prompt": "a"}', "inside it"),
        ('{"video": "/elsewhere/a.mp4", "prompt": "a"}', "relative"),
        ('{"video": "C:\\\\a.mp4", "prompt": "a"}', "relative"),
        ('{"video": "gone.mp4", "prompt": "a"}', "not there"),
    ],
)
def test_wrong_manifest_lines(row: dict[str, Any] | str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        load(manifest(tmp_path / "f", row))
    assert caught.value.exit_code == 2


def test_errors_name_the_path_and_the_nearest_key(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load(manifest(tmp_path / "f", {"video": "a.mp4", "promt": "a"}))
    assert str(caught.value).startswith(f"error: {tmp_path / 'f' / 'manifest.jsonl'}: line 1: promt: unknown key")
    assert caught.value.hint == "did you mean 'prompt'?"
    with pytest.raises(InputError) as caught:
        load(manifest(tmp_path / "f", {"video": "a.mp4", "segments": [{"begin": 0, "end": 1, "prompt": "a"}]}))
    assert (caught.value.what, caught.value.hint) == ("segments.0.begin: unknown key", "allowed: end, prompt, start")
    with pytest.raises(InputError) as caught:
        load(manifest(tmp_path / "f", '{"video": "gone.mp4", "prompt": "a"}'))
    assert caught.value.where == str(tmp_path / "f" / "gone.mp4")
    two = '{"video": "gone.mp4", "prompt": "a"}', '{"video": "lost.mp4", "prompt": "a"}'
    with pytest.raises(InputError) as caught:
        load(manifest(tmp_path / "f", *two))
    assert caught.value.where == str(tmp_path / "f")


def test_deeply_nested_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="line 1: nested too deeply"):
        load(manifest(tmp_path / "m", DEEP))
    write_video(tmp_path / "s" / "a.mp4")
    (tmp_path / "s" / "a.json").write_text(json.dumps(SIDECAR))
    write_video(tmp_path / "s" / "b.mp4", seed=1)
    (tmp_path / "s" / "b.json").write_text(DEEP)
    with pytest.raises(InputError, match=r"b\.json: not a JSON file"):
        load(tmp_path / "s")
    (sample,) = load(manifest(tmp_path / "t", {"video": "a.mp4", "prompt": "a"}))
    sample.path.with_suffix(".json").write_text(DEEP)
    assert sidecar(sample) == {}


def test_several_errors_are_counted(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"line 1: .*\(and 1 more errors: see `astro eval check"):
        load(manifest(tmp_path, "{", "["))


def test_manifest_with_wrong_ids_texts_and_times(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.mp4 \(line 1\): prompt: is of no prompt of few") as caught:
        load(manifest(tmp_path, {"video": "a.mp4", "prompt_id": "few-9999"}), PROMPTS)
    assert "few-0000" in caught.value.hint
    with pytest.raises(InputError, match="no prompt of few"):
        load(manifest(tmp_path, {"video": "a.mp4", "prompt": "a horse"}), PROMPTS)
    with pytest.raises(InputError, match="begins at 3 s, the video has 2 s"):
        load(manifest(tmp_path, {"video": "a.mp4", "prompt": "a", "switches": [["3s", "b"]]}))
    with pytest.raises(InputError, match="out of order at 8 fps"):
        load(manifest(tmp_path, {"video": "a.mp4", "prompt": "a", "switches": [["1.5s", "b"], [4, "c"]]}))
    with pytest.raises(InputError, match="named more than once"):
        load(manifest(tmp_path, {"video": "a.mp4", "prompt": "a"}, {"video": "a.mp4", "prompt": "a"}))


def test_manifest_that_names_nothing_or_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="names no video"):
        load(manifest(tmp_path))
    (tmp_path / "manifest.jsonl").write_bytes(b"\xff\xff")
    with pytest.raises(InputError, match="cannot be read"):
        load(tmp_path)


def test_written_manifests_give_the_samples_again(tmp_path: Path) -> None:
    rows = [
        {
            "video": "b/2.mp4",
            "prompt": "zw\u00f6lf",
            "prompt_id": "p2",
            "seed": 0,
            "index": 0,
            "labels": {"image": "x.jpg"},
        },
        {"video": "1.mp4", "prompt": "one", "switches": [[4, "two"]]},
    ]
    samples = load(manifest(tmp_path, *rows))
    assert write_manifest(samples, tmp_path) == tmp_path / "manifest.jsonl"
    assert load(tmp_path) == samples
    assert {path.name for path in tmp_path.iterdir()} == {"manifest.jsonl", "1.mp4", "b"}  # no temporary file is left
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match="subpath"):
        write_manifest(samples, tmp_path / "other")


# --- names


def test_names_are_matched_to_prompts(tmp_path: Path) -> None:
    names = ["a cat-0", "a cat-10", "a cat-2", f"{unicodedata.normalize('NFD', CEDILLA)}-0", "few-0004-3", "a DOG-1"]
    for number, name in enumerate(names):
        write_video(tmp_path / f"{name}.mp4", seed=number, frames=16)
    (tmp_path / "._a cat-0.mp4").write_bytes(b"macOS")
    (tmp_path / "notes.txt").write_text("no video")
    found = [
        (sample.path.stem.split("-")[-1], sample.prompt_id, sample.labels["index"])
        for sample in load(tmp_path, PROMPTS)
    ]
    cats = [
        (str(index), f"few-{line:04d}", index) for index in (0, 2, 10) for line in (0, 1)
    ]  # one file stands for both entries; 10 after 2
    assert sorted(found) == sorted([*cats, ("0", "few-0002", 0), ("3", "few-0004", 3), ("1", "few-0003", 1)])
    assert [entry for entry in found if entry in cats] == cats


def test_names_without_a_set_are_the_prompts(tmp_path: Path) -> None:
    write_video(tmp_path / "a bird-3.mp4")
    write_video(tmp_path / "slo-mo.MP4", seed=1)
    bird, slow = load(tmp_path)
    assert (bird.prompt, bird.prompt_id, bird.labels, bird.seed) == ("a bird", text_id("a bird"), {"index": 3}, None)
    assert (slow.prompt, slow.labels) == ("slo-mo", {})


def test_names_that_match_no_prompt(tmp_path: Path) -> None:
    write_video(tmp_path / "a catt-0.mp4")
    with pytest.raises(InputError, match=r"a catt-0\.mp4: name: matches no prompt of few") as caught:
        load(tmp_path, PROMPTS)
    assert "nearest to the first: 'a cat'" in caught.value.hint


# --- astro sample


def test_sample_folders(tmp_path: Path) -> None:
    write_video(tmp_path / "a-dog-seed7.mp4", frames=16)
    switches = [{"frame": 4, "seconds": 0.5, "prompt": "A dog sleeps"}]
    (tmp_path / "a-dog-seed7.json").write_text(json.dumps({**SIDECAR, "switches": switches}))
    write_video(tmp_path / "plain-seed0.mp4", seed=1)
    (tmp_path / "plain-seed0.json").write_text(json.dumps({**SIDECAR, "prompt": "plain", "seed": 0}))
    write_video(tmp_path / "late-seed0.partial.mp4", seed=2)
    dog, plain = load(tmp_path)
    assert (dog.path.name, dog.prompt, dog.seed) == ("a-dog-seed7.mp4", "A dog", 7)
    assert dog.segments == (Segment(0, 4 / FPS, "A dog"), Segment(4 / FPS, 2, "A dog sleeps"))
    assert (plain.prompt_id, plain.seed, plain.segments) == (text_id("plain"), 0, ())


def test_sidecars_are_matched_to_prompts(tmp_path: Path) -> None:
    write_video(tmp_path / "x.mp4")
    (tmp_path / "x.json").write_text(json.dumps({**SIDECAR, "prompt": "a very long text about a dog"}))
    assert [(sample.prompt_id, sample.prompt) for sample in load(tmp_path, PROMPTS)] == [("few-0003", "A dog")]
    (tmp_path / "x.json").write_text(json.dumps({**SIDECAR, "prompt": "a horse"}))
    with pytest.raises(InputError, match="not one of few"):
        load(tmp_path, PROMPTS)


@pytest.mark.parametrize(
    "text",
    ["{", json.dumps({**SIDECAR, "seed": "x"}), json.dumps({**SIDECAR, "switches": [{"frame": 0, "prompt": "a"}]})],
)
def test_wrong_sidecars(text: str, tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4")
    (tmp_path / "a.json").write_text(json.dumps(SIDECAR))
    write_video(tmp_path / "b.mp4", seed=1)
    (tmp_path / "b.json").write_text(text)
    with pytest.raises(InputError, match=r"b\.json"):
        load(tmp_path)


# --- folders and files


def test_folders_that_hold_no_videos(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        load(tmp_path / "gone")
    with pytest.raises(InputError, match="a file, expected a folder"):
        load(write_video(tmp_path / "below" / "a.mp4"))
    with pytest.raises(InputError, match="no videos") as caught:
        load(tmp_path)
    assert str(tmp_path / "below") in caught.value.hint


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    write_truncated(tmp_path / "a-0.mp4")
    with pytest.raises(VideoError, match=r"a-0\.mp4: ends early"):
        load(tmp_path)


def test_progress_counts_files_once(tmp_path: Path) -> None:
    write_video(tmp_path / "a cat-0.mp4")
    write_video(tmp_path / "a cat-1.mp4", seed=1)
    progress: list[tuple[int, int]] = []
    assert len(load(tmp_path, PROMPTS, lambda done, total: progress.append((done, total)))) == 4
    assert progress == [(1, 2), (2, 2)]


def test_two_videos_of_a_prompt_that_are_one_are_refused(tmp_path: Path) -> None:
    row = {"prompt": "a", "seed": 1}
    with pytest.raises(InputError, match=r"b\.mp4: index: the same as of a\.mp4"):
        load(manifest(tmp_path / "i", {"video": "a.mp4", "index": 0, **row}, {"video": "b.mp4", "index": 0, **row}))
    folder = manifest(
        tmp_path / "h", {"video": "a.mp4", **row}, {"video": "bb.mp4", **row}, {"video": "bb.mp4", "prompt": "b"}
    )
    assert len(load(folder)) == 3  # one video of two prompts is none twice
    (folder / "bb.mp4").write_bytes((folder / "a.mp4").read_bytes())
    with pytest.raises(InputError, match=r"bb\.mp4: bytes: the same as of a\.mp4"):
        load(folder)
    for number, name in enumerate(("a cat-0", "a cat-00")):
        write_video(tmp_path / "n" / f"{name}.mp4", seed=number)
    with pytest.raises(InputError, match=r"index: the same as of a cat-0"):
        load(tmp_path / "n", PROMPTS)

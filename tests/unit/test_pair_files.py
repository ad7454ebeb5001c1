"""A user's pairs of videos: what a file may say, and what is said of a wrong one."""

from __future__ import annotations

import json
import re
import shutil

import pytest
from small_videos import write_damaged, write_video

from astro_cli.config.errors import RecipeError
from astro_cli.media.pairs import VideoPair, check_videos, list_pairs, pair_files


@pytest.fixture
def folder(tmp_path):
    write_video(tmp_path / "clips" / "a.mp4", seed=1)
    write_video(tmp_path / "clips" / "b.mp4", seed=2)
    write_video(tmp_path / "outside.mp4", seed=3)
    return tmp_path / "clips"


def write(folder, *lines):
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return path


def pair(**more):
    return {"prompt": "a cat", "chosen": "a.mp4", "rejected": "b.mp4"} | more


def test_pairs_in_order_with_verdicts(folder):
    path = write(
        folder,
        pair(),
        "",
        pair(verdict="B", rater="r1", criterion="motion"),
        pair(verdict="same"),
        pair(verdict="good"),
    )
    a, b = folder / "a.mp4", folder / "b.mp4"
    assert list_pairs(path) == [VideoPair("a cat", a, b, 1), VideoPair("a cat", b, a, 3), VideoPair("a cat", a, b, 5)]
    assert pair_files(path) == (path, a, b)
    check_videos(path)


@pytest.mark.parametrize(("line", "says"), [
    (pair(chosen="gone.mp4"), "line 1: found video 'gone.mp4', no such file"),
    (pair(chosen="../outside.mp4"), "line 1: found video '../outside.mp4', which leaves the file's folder"),
    (pair(chosen="x/../../outside.mp4"), "which leaves the file's folder"),
    (pair(chosen="/etc/hostname"), "line 1: found video '/etc/hostname', which leaves the file's folder"),
    (pair(rejected="a.mp4"), "line 1: chosen and rejected are the same video: 'a.mp4', 'a.mp4'"),
    (pair(rejected="copy.mp4"), "line 1: chosen and rejected are the same video: 'a.mp4', 'copy.mp4'"),
    (pair(verdict="A"), "line 1: verdict: found 'A', allowed: G, S, B, good, same, bad"),
    (pair(verdict=1), "line 1: verdict: "),
    (pair(choosen="a.mp4"), "line 1: choosen: unknown key\nhint: did you mean 'chosen'?"),
    ({"prompt": "a cat", "chosen": "a.mp4"}, "line 1: rejected: missing"),
    (pair(prompt=""), "line 1: prompt: "),
    ("{", "line 1: not JSON"),
    (pair(verdict="S"), "pairs: holds no decided pair"),
])  # fmt: skip
def test_a_wrong_line_is_named(folder, line, says):
    shutil.copy(folder / "a.mp4", folder / "copy.mp4")
    with pytest.raises(RecipeError) as error:
        list_pairs(write(folder, line))
    assert says in str(error.value)
    assert "pairs.jsonl" in str(error.value)


@pytest.mark.parametrize(("video", "says"), [
    ({"size": (64, 32)}, "a pair of two sizes: found chosen 48x32, 5 frames at 8; rejected 64x32, 5 frames at 8"),
    ({"frames": 4}, "a pair of two lengths: found chosen 48x32, 5 frames at 8; rejected 48x32, 4 frames at 8"),
    ({"fps": 16}, "line 1: a pair of two lengths"),
])  # fmt: skip
def test_a_pair_that_does_not_fit_is_refused(folder, video, says):
    write_video(folder / "b.mp4", seed=2, **video)
    with pytest.raises(RecipeError, match=re.escape(says)):
        check_videos(write(folder, pair()))


def test_a_pair_with_a_file_that_is_no_video_is_refused(folder):
    (folder / "b.mp4").write_text("no video")
    with pytest.raises(RecipeError, match=re.escape("line 1: b.mp4: ")):
        check_videos(write(folder, pair()))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(RecipeError, match=re.escape("gone.jsonl")):
        list_pairs(tmp_path / "gone.jsonl")


def test_a_damaged_video_opens_and_is_left_to_the_decoder(folder):
    write_damaged(folder / "b.mp4", frames=24)  # the beginning is whole
    write_video(folder / "a.mp4", seed=1, frames=24, size=(128, 72))
    check_videos(write(folder, pair()))

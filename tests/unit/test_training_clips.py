"""A user's clips: lists of them, the frames taken of a video, and what is said of wrong ones."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from small_videos import turn, write_damaged, write_truncated, write_video

from astro_cli.config.errors import CheckpointError, RecipeError
from astro_cli.media import clips
from astro_cli.media.clips import Clip, ClipForm, clip_frames, list_clips, source_files
from astro_cli.media.decode import VideoError, frames
from astro_cli.models import weights
from astro_cli.training.video_clips import CHECKSUM, LATENTS, CachedLatents, _sha256


def test_a_folder_of_videos_with_a_text_file_beside_each(tmp_path):
    for name in ("b", "a"):
        write_video(tmp_path / f"{name}.mp4")
        (tmp_path / f"{name}.txt").write_text(f"a {name}\n moves \n")
    (tmp_path / "notes.md").write_text("not a video")
    assert list_clips(tmp_path) == [Clip(tmp_path / "a.mp4", "a a moves"), Clip(tmp_path / "b.mp4", "a b moves")]


def test_a_manifest_in_a_folder_or_by_its_name(tmp_path):
    below = write_video(tmp_path / "data" / "below" / "b.mp4")
    write_video(tmp_path / "data" / "a.mp4")
    manifest = tmp_path / "data" / "manifest.jsonl"
    lines = '{"video": "a.mp4", "prompt": "one", "seed": 3, "labels": {}}\n\n{"video": "%s", "prompt": "two"}\n'
    manifest.write_text(lines % "./below/b.mp4")
    expected = [Clip(tmp_path / "data" / "a.mp4", "one"), Clip(below, "two")]
    assert list_clips(manifest) == list_clips(tmp_path / "data") == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"video": "a.mp4"}', "manifest.jsonl: line 1: prompt: missing"),
        (
            '{"video": "a.mp4", "promt": "x"}',
            "manifest.jsonl: line 1: promt: unknown key\nhint: did you mean 'prompt'?",
        ),
        ('\n{"video": "a.mp4", ', "manifest.jsonl: line 2: not JSON"),
        ('{"video": "gone.mp4", "prompt": "x"}', "manifest.jsonl: line 1: found video 'gone.mp4', no such file"),
        ('{"video": "../a.mp4", "prompt": "x"}', "line 1: found video '../a.mp4', which leaves the file's folder"),
        ('{"video": "a/../../a.mp4", "prompt": "x"}', "which leaves the file's folder"),
        ('{"video": "/a.mp4", "prompt": "x"}', "line 1: found video '/a.mp4', which leaves the file's folder"),
        ("\n", "clips: holds no clip, expected a folder of videos"),
    ],
)
def test_a_wrong_manifest_is_refused_with_its_line(tmp_path, text, says):
    write_video(tmp_path / "a.mp4")
    (tmp_path / "manifest.jsonl").write_text(text)
    with pytest.raises(RecipeError, match=re.escape(says.partition("\n")[0])) as error:
        list_clips(tmp_path)
    assert says in str(error.value)


def test_a_phones_video_is_trained_on_upright(tmp_path):
    path = write_video(tmp_path / "a.mp4", size=(64, 48), fps=8)
    stored = clip_frames(path, ClipForm(frames=3, fps=8, height=48, width=64))
    turn(path, (0, 1, -1, 0))
    shown = clip_frames(path, ClipForm(frames=3, fps=8, height=64, width=48))  # nothing is scaled or cut
    assert np.array_equal(shown, np.rot90(stored, -1, axes=(1, 2)))


def test_the_files_of_a_source_are_its_prompts_and_videos(tmp_path):
    for name in ("b.mp4", "a.mp4"):
        write_video(tmp_path / name)
        (tmp_path / name).with_suffix(".txt").write_text("a prompt")
    assert [path.name for path in source_files(tmp_path)] == ["a.txt", "b.txt", "a.mp4", "b.mp4"]
    manifest = tmp_path / "some.jsonl"
    manifest.write_text(2 * '{"video": "b.mp4", "prompt": "p"}\n')
    assert [path.name for path in source_files(manifest)] == ["some.jsonl", "b.mp4"]


def test_latents_with_a_flipped_bit_are_not_trained_on(tmp_path):
    latents = torch.arange(16.0).reshape(1, 4, 2, 2)
    path = tmp_path / "a.safetensors"
    weights.write(path, {LATENTS: latents}, {CHECKSUM: _sha256(latents)})
    assert torch.equal(CachedLatents([path])[[0]], latents[None])
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"a\.safetensors.*damaged: its latents are not"):
        CachedLatents([path])[[0]]


def test_a_video_without_a_prompt_is_named(tmp_path):
    write_video(tmp_path / "a.mp4")
    with pytest.raises(RecipeError, match=re.escape("a.mp4: has no prompt, no a.txt beside it")):
        list_clips(tmp_path)
    (tmp_path / "a.txt").write_text(" \n")
    with pytest.raises(RecipeError, match=re.escape("a.txt: holds no prompt")):
        list_clips(tmp_path)


@pytest.mark.parametrize("name", ["gone", "a.mp4", "empty"])
def test_what_is_no_source_of_clips_is_refused(tmp_path, name):
    write_video(tmp_path / "a.mp4")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecipeError, match=re.escape("expected a folder of videos with a text file beside each")):
        list_clips(tmp_path / name)


def test_frames_are_those_shown_at_each_moment(tmp_path):
    path = write_video(tmp_path / "a.mp4", frames=10, fps=12)
    every = [frame for _, frame in frames(path)]
    # moments 0, 1/8, 2/8, 3/8, 4/8 s at 12 frames a second: 0, 1.5, 3, 4.5, 6
    found = clip_frames(path, ClipForm(5, 8.0, 32, 48))
    assert found.shape == (5, 32, 48, 3)
    assert all(np.array_equal(found[place], every[index]) for place, index in enumerate((0, 1, 3, 4, 6)))
    # twice as many as there are: each is shown for two moments
    twice = clip_frames(path, ClipForm(6, 24.0, 32, 48))
    assert all(np.array_equal(twice[place], every[index]) for place, index in enumerate((0, 0, 1, 1, 2, 2)))


def test_other_sizes_are_scaled_to_cover_and_cut_to_the_middle(tmp_path, monkeypatch):
    picture = np.zeros((40, 80, 3), np.uint8)
    picture[:, 20:60] = 200  # the middle half
    monkeypatch.setattr(clips, "probe", lambda path: type("Info", (), {"frames": 1, "fps": 8.0}))
    monkeypatch.setattr(clips, "frames", lambda path: iter([(0, picture)]))
    # 40 x 80 covers 20 x 20 at half its size, 20 x 40, whose columns 10 to 30 remain: the middle half
    found = clip_frames(tmp_path / "a.mp4", ClipForm(1, 8.0, 20, 20))
    assert found.shape == (1, 20, 20, 3)
    assert found[0, :, 2:-2].min() == 200


def test_a_short_video_says_how_short(tmp_path):
    path = write_video(tmp_path / "a.mp4", frames=5, fps=8)
    assert len(clip_frames(path, ClipForm(5, 8.0, 32, 48))) == 5
    with pytest.raises(VideoError, match=re.escape("too short: 5 frames at 8 a second, expected 6 at 8")):
        clip_frames(path, ClipForm(6, 8.0, 32, 48))
    with pytest.raises(VideoError, match="too short"):
        clip_frames(path, ClipForm(4, 4.0, 32, 48))  # the fourth is due at frame 6


@pytest.mark.parametrize("write", [write_damaged, write_truncated])
def test_a_damaged_video_is_refused(tmp_path, write):
    with pytest.raises(VideoError):
        clip_frames(write(tmp_path / "a.mp4"), ClipForm(9, 8.0, 32, 48))

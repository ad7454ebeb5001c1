"""Video files: both decoders give the same bytes, damage is named, frames are not kept."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import psutil
import pytest

from astro_cli.generate.media import write_gif
from astro_cli.generate.mp4 import Mp4Stream
from astro_cli.media import containers, decode
from astro_cli.media.decode import VideoError, count_frames, decoder_version, frames, probe, resolve
from tests.small_videos import (
    FPS,
    moving_noise,
    turn,
    write_container,
    write_damaged,
    write_truncated,
    write_video,
)

CLIPS = Path(__file__).parents[2].parent / "shared" / "data" / "videos"
HAS_DECORD = decode.importlib.util.find_spec("decord") is not None
decord_only = pytest.mark.skipif(not HAS_DECORD, reason="decord is not installed")
MP4_ERROR = 6  # of 255, median: crf 16 and one colour per 2 x 2 pixels
GROWTH = 16 * 2**20  # bytes; the frames of 180 clips would be 94 MiB


def real_clips() -> list[Path]:
    return sorted(CLIPS.glob("*.mp4"))


def test_frames_are_what_was_written(tmp_path: Path) -> None:
    written = moving_noise(0, frames=5)
    found = list(frames(write_video(tmp_path / "a.mp4", seed=0, frames=5)))
    assert [index for index, _ in found] == [0, 1, 2, 3, 4]
    decoded = np.stack([frame for _, frame in found])
    assert decoded.dtype == np.uint8
    assert decoded.shape == written.shape
    error, swapped = (np.median(np.abs(found.astype(int) - written)) for found in (decoded, decoded[..., ::-1]))
    assert error < MP4_ERROR < swapped  # red and blue in their places


@decord_only
def test_decoders_agree_on_a_written_clip(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=17, size=(128, 72))
    pairs = list(zip(frames(path, "av"), frames(path, "decord"), strict=True))
    assert len(pairs) == 17
    assert all(ours[0] == theirs[0] and np.array_equal(ours[1], theirs[1]) for ours, theirs in pairs)


@decord_only
@pytest.mark.skipif(not real_clips(), reason="needs ../shared/data/videos")
@pytest.mark.parametrize("path", real_clips(), ids=lambda path: path.stem)
def test_decoders_agree_on_real_clips(path: Path) -> None:
    assert probe(path) == decode.VideoInfo(150, 30.0, 832, 480)
    pairs = zip(frames(path, "av"), frames(path, "decord"), strict=True)
    assert all(np.array_equal(ours, theirs) for (_, ours), (_, theirs) in pairs)


@decord_only
def test_decord_works_under_the_torch_bridge_of_vbench(tmp_path: Path) -> None:
    import decord

    path = write_video(tmp_path / "a.mp4", size=(128, 72))
    decord.bridge.set_bridge("torch")
    try:
        found = [frame for _, frame in frames(path, "decord")]
    finally:
        decord.bridge.set_bridge("native")
    assert all(type(frame) is np.ndarray for frame in found)
    assert np.array_equal(np.stack(found), np.stack([frame for _, frame in frames(path, "av")]))


@decord_only
def test_decord_refuses_what_it_misreads(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", size=(48, 32))
    assert sum(1 for _ in frames(path, "av")) == 5
    with pytest.raises(VideoError, match="narrow"):
        list(frames(path, "decord"))


def test_probe_reads_size_rate_and_count(tmp_path: Path) -> None:
    info = probe(write_video(tmp_path / "a.mp4", frames=7, size=(64, 48), fps=12))
    assert info == decode.VideoInfo(7, 12.0, 64, 48)
    assert info.seconds == pytest.approx(7 / 12)


def test_count_comes_from_decoding_where_the_container_says_none(tmp_path: Path) -> None:
    with Mp4Stream(tmp_path / "a.mp4", FPS) as stream:
        for frame in moving_noise(0, frames=11):
            stream.write(frame)
        stream.close()
        with av.open(str(stream.partial)) as container:
            assert container.streams.video[0].frames == 0  # fragmented: the header knows of no frame
        assert probe(stream.partial).frames == 11


def test_gif_is_a_video(tmp_path: Path) -> None:
    write_gif(moving_noise(0, frames=6), tmp_path / "a.gif", fps=10)
    assert probe(tmp_path / "a.gif").frames == 6
    assert sum(1 for _ in frames(tmp_path / "a.gif")) == 6


@pytest.mark.parametrize("backend", ["av", pytest.param("decord", marks=decord_only)])
@pytest.mark.parametrize(
    "content", [b"", b"hello\n" * 50, b"\x00\x00\x00\x18ftypmp42" + b"\x00" * 100], ids=["empty", "text", "header only"]
)
def test_no_video_is_named(
    content: bytes, backend: decode.Backend, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(VideoError, match=r"a\.mp4") as caught:
        list(frames(tmp_path / "a.mp4", backend))
    assert caught.value.hint
    assert caught.value.exit_code == 2
    assert capfd.readouterr() == ("", "")  # no line of decord's C++ part


@pytest.mark.parametrize("backend", ["av", pytest.param("decord", marks=decord_only)])
@pytest.mark.parametrize("write", [write_truncated, write_damaged])
def test_damage_is_named(write, backend: decode.Backend, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "a.mp4")
    with pytest.raises(VideoError, match=r"a\.mp4: .*(cannot|ends early)") as caught:
        list(frames(path, backend))
    assert caught.value.hint
    assert capfd.readouterr() == ("", "")


def test_truncation_shows_without_decoding(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="ends early: "):
        probe(write_truncated(tmp_path / "a.mp4"))


CONTAINERS = (".webm", ".mkv", ".avi", ".gif", ".mov", ".mp4")


@pytest.mark.parametrize("share", [0.2, 0.6, 0.97])
@pytest.mark.parametrize("ending", CONTAINERS)
def test_a_file_that_ends_early_is_refused(ending: str, share: float, tmp_path: Path) -> None:
    path = write_container(tmp_path / f"a{ending}")
    assert probe(path).frames == 64
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    for read in (probe, count_frames, lambda path: list(frames(path))):
        with pytest.raises(VideoError, match=r"ends early|cannot be decoded") as caught:
            read(path)
        assert caught.value.hint
        assert caught.value.exit_code == 2
    assert "ends early" in containers.cut(path) or ending in (".mov", ".mp4")  # their index is at the end


@pytest.mark.parametrize("ending", CONTAINERS)
def test_a_whole_file_with_something_behind_it_is_read(ending: str, tmp_path: Path) -> None:
    path = write_container(tmp_path / f"a{ending}", frames=8)
    assert containers.cut(path) == ""
    with path.open("ab") as file:
        file.write(b"\0\0\0\0" * 5)
    assert containers.cut(path) == ""
    assert probe(path).frames == 8


def test_a_fragmented_mp4_that_ends_early_is_refused(tmp_path: Path) -> None:
    with Mp4Stream(tmp_path / "a.mp4", FPS) as stream:
        for frame in moving_noise(0, frames=40, size=(128, 72)):
            stream.write(frame)
        stream.close()
        data = stream.partial.read_bytes()
        stream.partial.write_bytes(data[: len(data) * 3 // 5])
        with pytest.raises(VideoError, match="ends early"):
            probe(stream.partial)
        stream.partial.write_bytes(data)


def test_a_pointer_of_git_lfs_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(VideoError, match="a pointer of git LFS") as caught:
        probe(tmp_path / "a.mp4")
    assert "git lfs pull" in caught.value.hint


# Matrix of the file -> what is done to the stored frame (rows, columns, colours) to show it.
TURNS: dict[tuple[int, int, int, int], Callable[[np.ndarray], np.ndarray]] = {
    (1, 0, 0, 1): lambda frame: frame,
    (0, 1, -1, 0): lambda frame: np.rot90(frame, -1),  # a quarter turn clockwise: a phone held upright
    (-1, 0, 0, -1): lambda frame: frame[::-1, ::-1],
    (0, -1, 1, 0): lambda frame: np.rot90(frame, 1),
    (-1, 0, 0, 1): lambda frame: frame[:, ::-1],
    (1, 0, 0, -1): lambda frame: frame[::-1],
    (0, 1, 1, 0): lambda frame: frame.swapaxes(0, 1),
    (0, -1, -1, 0): lambda frame: frame[::-1, ::-1].swapaxes(0, 1),
}


@pytest.mark.parametrize("matrix", TURNS, ids=str)
def test_frames_are_turned_as_players_show_them(matrix: tuple[int, int, int, int], tmp_path: Path) -> None:
    path, show = write_video(tmp_path / "a.mp4", size=(192, 128)), TURNS[matrix]
    stored = [frame for _, frame in frames(path)]
    info = probe(turn(path, matrix))
    shown = [frame for _, frame in frames(path)]
    assert all(np.array_equal(show(before), after) for before, after in zip(stored, shown, strict=True))
    assert (info.height, info.width) == shown[0].shape[:2]
    assert all(frame.flags.c_contiguous for frame in shown)
    if not HAS_DECORD:
        return
    if matrix[0] * matrix[3] - matrix[1] * matrix[2] < 0:  # mirrored
        with pytest.raises(VideoError, match="decord does not mirror"):
            list(frames(path, "decord"))
    else:
        theirs = [frame for _, frame in frames(path, "decord")]
        assert all(np.array_equal(ours, other) for ours, other in zip(shown, theirs, strict=True))


@pytest.mark.parametrize("matrix", [(2, 0, 0, 2), (0.866, 0.5, -0.5, 0.866), (1.4, 0, 0, 1.4)])
def test_another_turn_than_a_quarter_is_refused(matrix: tuple[float, ...], tmp_path: Path) -> None:
    path = turn(write_video(tmp_path / "a.mp4"), matrix)
    with pytest.raises(VideoError, match="display matrix: turns or stretches"):
        probe(path)


@pytest.mark.parametrize("call", [probe, count_frames, lambda path: list(frames(path))])
def test_missing_files_and_folders(call, tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"gone\.mp4: no such file"):
        call(tmp_path / "gone.mp4")
    with pytest.raises(VideoError, match="a folder"):
        call(tmp_path)


def test_sound_without_picture_is_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        silence.rate = 8000
        container.mux(stream.encode(silence))
        container.mux(stream.encode())
    with pytest.raises(VideoError, match="no video stream"):
        probe(tmp_path / "a.mp4")


def test_backends_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve("auto") == "av"
    assert decoder_version() == decoder_version("av")
    assert decoder_version("av").startswith(f"av {av.__version__} (libavcodec ")
    with pytest.raises(VideoError, match="allowed: auto, av, decord") as caught:
        resolve("decrod")
    assert "decord" in caught.value.hint
    monkeypatch.setattr(decode.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(VideoError, match="not installed"):
        resolve("decord")


@decord_only
def test_decord_version() -> None:
    import decord

    assert decoder_version("decord") == f"decord {decord.__version__}"
    assert "decord" in sys.modules


@pytest.mark.parametrize("backend", ["av", pytest.param("decord", marks=decord_only)])
def test_memory_stays_flat_over_200_clips(backend: decode.Backend, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=19, size=(128, 72))  # 0.5 MiB of frames
    process, sizes = psutil.Process(), []
    for _ in range(200):
        assert sum(1 for _ in frames(path, backend)) == 19
        sizes.append(process.memory_info().rss)
    assert sizes[-1] - sizes[20] < GROWTH

"""Pictures and videos of clips: what is decoded is what was written, in number, speed, place and colour."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from astro_cli.config.errors import OutputError
from astro_cli.generate import media
from astro_cli.generate.media import (
    GAP_PX,
    GUTTER_PX,
    INK,
    MARGIN_PX,
    MIN_TEXT_PX,
    contact_sheet,
    side_by_side,
    to_uint8,
    write_gif,
    written_whole,
)
from astro_cli.generate.mp4 import mp4_encoder, write_mp4

GIF_ERROR = 6  # of 255, largest: 256 colours hold these clips almost exactly
MP4_MEAN_ERROR = 3  # of 255: crf 16 and one colour per 2 x 2 pixels
FLAT_ERROR = 4  # of 255, inside flat areas: a wrong colour matrix is off by 10 or more


def clip(frames: int = 8, size: int = 32) -> np.ndarray:
    """A red square moving right over blue, in floats; each frame differs from the one before."""
    video = np.zeros((frames, size, size, 3), dtype=np.float32)
    video[..., 2] = 0.8
    for t in range(frames):
        video[t, 8:20, 2 + t : 14 + t] = (0.9, 0.1, 0.1)
    return video


def decode(path: Path) -> tuple[np.ndarray, Fraction]:
    with av.open(str(path)) as container:
        rate = container.streams.video[0].average_rate
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert rate is not None
    return frames, rate


def error(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    return np.abs(found.astype(int) - wanted.astype(int))


# --- frames


def test_to_uint8_rounds_and_clips() -> None:
    frames = np.array([[[0.0, 0.5, 1.2]]])
    assert to_uint8(frames).tolist() == [[[0, 128, 255]]]  # 0.5 * 255 = 127.5, to even 128; 1.2 is clipped


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((4, 3, 8, 8)),
        np.zeros((4, 8, 8, 3), dtype=np.int64),
        np.full((4, 8, 8, 3), np.nan),
        np.zeros((0, 8, 8, 3)),
    ],
    ids=["channels first", "int64", "nan", "empty"],
)
def test_to_uint8_refuses(frames: np.ndarray) -> None:
    with pytest.raises(ValueError, match="frames"):
        to_uint8(frames)


def test_upscaling_keeps_hard_pixels() -> None:
    large = media.upscale(np.array([[[1, 2, 3], [4, 5, 6]]], dtype=np.uint8), 2)
    assert large.tolist() == [[[1, 2, 3], [1, 2, 3], [4, 5, 6], [4, 5, 6]]] * 2


# --- contact sheet


def test_sheet_holds_each_frame_in_its_place(tmp_path: Path) -> None:
    frames = clip(8)
    contact_sheet([("base", frames), ("tuned", frames[::-1])], tmp_path / "sheet.png", scale=4, every=2)
    with Image.open(tmp_path / "sheet.png") as image:
        sheet = np.asarray(image)
    pitch = 32 * 4 + GUTTER_PX
    assert sheet.shape[1] == 2 * MARGIN_PX + 4 * pitch - GUTTER_PX  # 8 frames, every second: 4
    tops = _row_tops(sheet)
    assert len(tops) == 2
    for top, shown in zip(tops, (frames, frames[::-1]), strict=True):
        for index, frame in enumerate(media.enlarge(to_uint8(shown)[::2], 4)):
            left = MARGIN_PX + index * pitch
            assert (sheet[top : top + 128, left : left + 128] == frame).all()
    assert (sheet[: tops[0] - 16] == INK).all(-1).any()  # the label's letters


def _row_tops(sheet: np.ndarray) -> list[int]:
    """The first lines of the frame rows: where the first column turns blue."""
    blue = (sheet[:, MARGIN_PX] == (0, 0, 204)).all(-1)
    return [int(y) for y in np.flatnonzero(blue) if not blue[y - 1]]


def test_a_long_clip_goes_on_in_the_next_line(tmp_path: Path) -> None:
    # 1800 px hold 13 frames of 128 + 3: 20 take two lines of ten
    contact_sheet([("a", clip(10).repeat(2, 0))], tmp_path / "sheet.png", scale=4)
    with Image.open(tmp_path / "sheet.png") as image:
        sheet = np.asarray(image)
    assert sheet.shape[1] == 2 * MARGIN_PX + 10 * (128 + GUTTER_PX) - GUTTER_PX
    assert len(_row_tops(sheet)) == 2


def test_the_frame_of_a_switch_is_outlined_and_numbers_are_seconds_of_the_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words: list[str] = []
    shorten = media._shorten
    monkeypatch.setattr(media, "_shorten", lambda text, *rest: words.append(text) or shorten(text, *rest))
    rows = [media.SheetRow("a", clip(2)), media.SheetRow("b", clip(2), start=80, is_switch=True)]
    contact_sheet(rows, tmp_path / "sheet.png", scale=4, fps=8)
    assert [word for word in words if word.endswith(" s")] == ["0.00 s", "0.12 s", "switch, 10.00 s", "10.12 s"]
    with Image.open(tmp_path / "sheet.png") as image:
        marked = (np.asarray(image) == media.SWITCH).all(-1)
    assert marked[:, MARGIN_PX + 1].sum() >= 128  # the left edge of one frame, as high as it is
    assert not marked[:, MARGIN_PX + 128 + GUTTER_PX + 1 :].any()


def test_enlarging_neither_overshoots_nor_moves() -> None:
    edge = np.zeros((1, 8, 8, 3), dtype=np.uint8)
    edge[:, :, 4:] = (200, 100, 50)
    large = media.enlarge(edge, 4)
    assert large.shape == (1, 32, 32, 3)
    assert (large.max((0, 1, 2)) == (200, 100, 50)).all()
    assert (large[0, :, :14] == 0).all()  # two pixels on either side of the edge are between
    assert (large[0, :, 18:] == (200, 100, 50)).all()


def test_frames_of_one_colour_stay_apart(tmp_path: Path) -> None:
    for value in (0, 255):
        contact_sheet([("x", np.full((2, 32, 32, 3), value, dtype=np.uint8))], tmp_path / "sheet.png", scale=6)
        with Image.open(tmp_path / "sheet.png") as image:
            gutter = np.asarray(image)[-60, MARGIN_PX + 192 : MARGIN_PX + 192 + GUTTER_PX]
        assert error(gutter, np.full(3, value)).max() > 200


def test_long_label_is_wrapped_and_not_cut(tmp_path: Path) -> None:
    label = "a small red circle moves right fast over a gray striped background"
    for name, text in (("short", "a"), ("long", label)):
        contact_sheet([(text, clip(1))], tmp_path / f"{name}.png", scale=1)
    with Image.open(tmp_path / "short.png") as short, Image.open(tmp_path / "long.png") as long:
        assert long.width == short.width == MIN_TEXT_PX + 2 * MARGIN_PX
        assert long.height > short.height
    lines = media._wrap(label, media._font(media.SHEET_FONT_PX), MIN_TEXT_PX)
    assert " ".join(lines) == label
    assert all(media._font(media.SHEET_FONT_PX).getlength(line) <= MIN_TEXT_PX for line in lines)


def test_sheet_refuses_nothing_to_show(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs rows"):
        contact_sheet([], tmp_path / "sheet.png")


# --- side by side


def test_side_by_side_puts_left_left_under_a_caption() -> None:
    left, right = clip(3), clip(3)[::-1]
    pair = side_by_side(left, right, scale=8)
    assert pair.dtype == np.uint8
    frames, height, width, _ = pair.shape
    assert (frames, width) == (3, 2 * 256 + GAP_PX)
    band = height - 256
    assert 16 <= band <= 64
    assert (pair[:, band:, :256] == media.enlarge(to_uint8(left), 8)).all()
    assert (pair[:, band:, 256 + GAP_PX :] == media.enlarge(to_uint8(right), 8)).all()
    assert (pair[:, :, 256 : 256 + GAP_PX] == media.BAND).all()
    for pane in (pair[0, :band, :256], pair[0, :band, 256 + GAP_PX :]):
        assert (pane > 200).all(-1).any()  # letters


def test_side_by_side_refuses_clips_of_two_lengths() -> None:
    with pytest.raises(ValueError, match="one shape"):
        side_by_side(clip(3), clip(4))


def test_long_captions_stay_in_their_pane() -> None:
    pair = side_by_side(clip(1), clip(1), labels=("astrolabe with selective KL and more", ""), scale=2)
    assert not (pair[0, : pair.shape[1] - 64, 64:] > 200).all(-1).any()


# --- gif


def test_gif_keeps_frames_speed_and_colours(tmp_path: Path) -> None:
    frames = clip(8)
    write_gif(frames, tmp_path / "clip.gif", fps=8, scale=4)
    with Image.open(tmp_path / "clip.gif") as image:
        assert (image.n_frames, image.size, image.info["loop"]) == (8, (128, 128), 0)
        delays = []
        for index, frame in enumerate(to_uint8(frames)):
            image.seek(index)
            delays.append(image.info["duration"])
            assert error(np.asarray(image.convert("RGB")), media.upscale(frame, 4)).max() <= GIF_ERROR
    assert set(delays) == {120, 130}  # 1000 / 8 = 125 ms lies between two hundredths
    assert sum(delays) == 1000


def test_captions_of_a_gif_do_not_depend_on_the_clip(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    pair = side_by_side(noise, noise, scale=4)
    band = pair.shape[1] - 128
    write_gif(pair, tmp_path / "clip.gif", fps=8, band=band)
    with Image.open(tmp_path / "clip.gif") as image:
        captions = []
        for index in range(2):
            image.seek(index)
            captions.append(np.asarray(image.convert("RGB"))[:band])
    assert (captions[0] == captions[1]).all()
    assert error(captions[0], pair[0, :band]).max() <= 8  # half a step of a ramp of 16 colours


def test_gif_of_a_still_keeps_its_time(tmp_path: Path) -> None:
    write_gif([clip(1)[0]] * 8, tmp_path / "still.gif", fps=8)
    with Image.open(tmp_path / "still.gif") as image:
        total = 0
        for index in range(image.n_frames):
            image.seek(index)
            total += image.info["duration"]
    assert total == 1000


def test_gif_refuses_more_than_players_show(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="50 fps"):
        write_gif(clip(2), tmp_path / "clip.gif", fps=60)


# --- mp4


@pytest.fixture
def encoder() -> str:
    try:
        return mp4_encoder()
    except OutputError:
        pytest.skip("PyAV has no encoder for MP4 that browsers play")


@pytest.mark.parametrize("fps", [8, 16, 23.976])
def test_mp4_keeps_frames_speed_and_colours(tmp_path: Path, encoder: str, fps: float) -> None:
    frames = clip(12)
    write_mp4(frames, tmp_path / "clip.mp4", fps=fps, scale=4)
    found, rate = decode(tmp_path / "clip.mp4")
    wanted = media.upscale(to_uint8(frames), 4)
    assert found.shape == wanted.shape
    assert float(rate) == pytest.approx(fps, rel=1e-3)
    difference = error(found, wanted)
    assert difference.mean() <= MP4_MEAN_ERROR
    for t in range(12):  # inside the square, and in the background far from it
        left = 4 * (2 + t)
        assert difference[t, 40:72, left + 8 : left + 40].max() <= FLAT_ERROR
        assert difference[t, 96:].max() <= FLAT_ERROR


def test_mp4_is_playable_and_tagged(tmp_path: Path, encoder: str) -> None:
    write_mp4(clip(4), tmp_path / "clip.mp4", fps=8, scale=4)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.pix_fmt, context.colorspace, context.color_range) == ("yuv420p", 1, 1)
    data = (tmp_path / "clip.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # plays before it is loaded


def test_odd_sizes_become_even(tmp_path: Path, encoder: str) -> None:
    write_mp4(clip(3)[:, :31, :29], tmp_path / "clip.mp4", fps=8)
    found, _ = decode(tmp_path / "clip.mp4")
    assert found.shape == (3, 32, 30, 3)


def test_mp4_takes_one_frame_at_a_time(tmp_path: Path, encoder: str) -> None:
    alive = largest = 0

    class Counted(np.ndarray):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def stream() -> Iterator[np.ndarray]:
        nonlocal alive, largest
        for t in range(120):
            frame = np.full((16, 16, 3), t, dtype=np.uint8).view(Counted)
            alive += 1
            largest = max(largest, alive)
            yield frame
            del frame

    write_mp4(stream(), tmp_path / "long.mp4", fps=24)
    assert len(decode(tmp_path / "long.mp4")[0]) == 120
    assert largest <= 16


@pytest.mark.parametrize("write", [write_gif, write_mp4])
def test_videos_refuse_nothing_and_changing_sizes(tmp_path: Path, write) -> None:
    with pytest.raises(ValueError, match="no frames"):
        write([], tmp_path / "clip", fps=8)
    with pytest.raises(ValueError, match="one size"):
        write([clip(1)[0], clip(1, size=34)[0]], tmp_path / "clip", fps=8)
    assert list(tmp_path.iterdir()) == []


# --- files


def test_equal_input_gives_equal_bytes(tmp_path: Path, encoder: str) -> None:
    pair = side_by_side(clip(12), clip(12)[::-1], scale=4)
    files = []
    for run in range(3):
        junk = [np.random.default_rng(run).random((100, 300)) for _ in range(3 * run)]  # other memory contents
        contact_sheet([("a", clip())], tmp_path / "a.png")
        write_gif(pair, tmp_path / "a.gif", fps=8)
        write_mp4(pair, tmp_path / "a.mp4", fps=8)
        files.append([(tmp_path / f"a.{kind}").read_bytes() for kind in ("png", "gif", "mp4")])
        del junk
    assert files[0] == files[1] == files[2]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.txt"
    with written_whole(path) as temporary:
        temporary.write_text("old")

    def fail() -> None:
        with written_whole(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "old"
    assert [file.name for file in path.parent.iterdir()] == ["a.txt"]


def test_an_impossible_path_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        contact_sheet([("a", clip(1))], tmp_path / "file" / "sheet.png")


def test_torch_stays_out() -> None:
    code = (
        "import sys, astro_cli.generate.media, eval.report.figures, eval.report.page; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

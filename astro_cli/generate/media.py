"""Clips as pictures and videos: contact sheets, side-by-side pairs, GIF and MP4 files.

A clip is (T, H, W, 3), a frame (H, W, 3), RGB; floats in 0..1 or uint8, in anything `np.asarray` takes. Equal input
gives equal bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.codec.codec import UnknownCodecError
from PIL import Image, ImageDraw, ImageFont

from astro_cli.config import durable
from astro_cli.config.errors import OutputError
from astro_cli.config.files import claim

Clip = Any  # (T, H, W, 3)
Frame = Any  # (H, W, 3)

# Light enough for print, distinct from the white of a clip.
PAPER, INK, QUIET = ((244, 244, 246), (20, 22, 28), (96, 100, 110))
# Behind side-by-side captions: a video has no page around it, and clips may be black, gray or white.
BAND = (56, 60, 72)
BAND_INK = (245, 245, 247)
SHEET_FONT_PX = 17  # a sheet is looked at in its own size
NUMBER_FONT_PX = 12
GUTTER_PX = 3  # between frames: an outline, paper, an outline, so that it shows between black and between white frames
ROW_GAP_PX = 10
MARGIN_PX = 10
MIN_TEXT_PX = 320  # a sheet of few frames is still wide enough for a prompt in a line or two
MIN_GAP_PX = 2  # between the two clips
BAND_FONT_SHARE = 14  # pane width / font size: readable where a phone shrinks the clip to half
MIN_FONT_PX = 9
GIF_TICK_MS = 10  # a GIF counts in hundredths of a second
MAX_GIF_FPS = 50  # players slow a frame of under 2 hundredths down to 10
GIF_COLORS = 256
# What browsers play inside MP4, the widest first. yuv420p for the same reason.
MP4_ENCODERS = ("libx264", "libvpx-vp9")
# x264's assembly lets memory beyond a picture's edge sway its choices, so that bytes differ from run to run; its C code
# does not (half as fast).
MP4_OPTIONS = {
    "libx264": {"crf": "16", "preset": "medium", "x264-params": "no-asm=1"},
    "libvpx-vp9": {"crf": "24", "b": "0"},
}
FASTSTART = {"movflags": "+faststart"}
FRAGMENTED = {
    "movflags": "+empty_moov+default_base_moof",
    "frag_duration": "1000000",
    "flush_packets": "1",
}  # microseconds
BT709, LIMITED_RANGE = 1, 1  # FFmpeg's numbers; untagged, players disagree on which matrix turns YUV into RGB


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """As `durable.written_whole`, for files a user named.

    Raises:
        OutputError: the file cannot be written.
    """
    with _as_output_error(Path(path)), durable.written_whole(Path(path)) as temporary:
        yield temporary


def to_uint8(frames: Clip) -> np.ndarray:
    """RGB frames as uint8; floats are clipped to 0..1.

    Raises:
        ValueError: not RGB in the last dimension, not float or uint8, or not finite.
    """
    array = np.asarray(frames)
    if array.ndim not in (3, 4) or array.shape[-1] != 3 or 0 in array.shape:
        raise ValueError(f"frames must be (T, H, W, 3) or (H, W, 3), found {array.shape}")
    if array.dtype == np.uint8:
        return array
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"frames must be floats in 0..1 or uint8, found {array.dtype}")
    if not np.isfinite(array).all():
        raise ValueError("frames hold NaN or infinite values")
    return np.rint(np.clip(array, 0, 1) * 255).astype(np.uint8)


def upscale(frames: np.ndarray, scale: int) -> np.ndarray:
    """Every pixel as a scale x scale square: small clips stay what the model made, unsmoothed."""
    if scale < 1:
        raise ValueError(f"scale must be at least 1, found {scale}")
    return frames if scale == 1 else frames.repeat(scale, axis=-3).repeat(scale, axis=-2)


# --- contact sheet


def contact_sheet(
    rows: Sequence[tuple[str, Clip]],
    path: str | Path,
    scale: int = 4,
    every: int = 1,
    apart: int = 1,
    fps: float | None = None,
) -> None:
    """A PNG with one row per clip: its label above its frames, every `every`-th of them, numbered at the top.

    `apart` is the number of video frames from one frame of a clip to the next, for the numbers. With `fps` the numbers
    are seconds.
    """
    if not rows or every < 1:
        raise ValueError(f"a contact sheet needs rows and every >= 1, found {len(rows)} rows, every {every}")
    clips = [upscale(_clip(clip)[::every], scale) for _, clip in rows]
    width = max(MIN_TEXT_PX, *(_strip_width(clip) for clip in clips))
    labels = [_wrap(label, _font(SHEET_FONT_PX), width) for label, _ in rows]
    line, numbers = _line_height(SHEET_FONT_PX), _line_height(NUMBER_FONT_PX)
    heights = [len(text) * line + clip.shape[1] + ROW_GAP_PX for text, clip in zip(labels, clips, strict=True)]
    sheet = Image.new("RGB", (width + 2 * MARGIN_PX, MARGIN_PX + numbers + sum(heights)), PAPER)
    draw = ImageDraw.Draw(sheet)
    _draw_numbers(draw, max(clips, key=len), every * apart, fps)
    top = MARGIN_PX + numbers
    for text, clip, height in zip(labels, clips, heights, strict=True):
        for index, words in enumerate(text):
            draw.text((MARGIN_PX, top + index * line), words, fill=INK, font=_font(SHEET_FONT_PX))
        for index, frame in enumerate(clip):
            x, y = _column(clip, index), top + len(text) * line
            draw.rectangle((x - 1, y - 1, x + frame.shape[1], y + frame.shape[0]), fill=INK)
            sheet.paste(Image.fromarray(frame), (x, y))
        top += height
    with written_whole(path) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)


def _clip(clip: Clip) -> np.ndarray:
    frames = to_uint8(clip)
    if frames.ndim != 4:
        raise ValueError(f"a clip must be (T, H, W, 3), found {frames.shape}")
    return frames


def _strip_width(clip: np.ndarray) -> int:
    return len(clip) * (clip.shape[2] + GUTTER_PX) - GUTTER_PX


def _column(clip: np.ndarray, index: int) -> int:
    return MARGIN_PX + index * (clip.shape[2] + GUTTER_PX)


def _draw_numbers(draw: ImageDraw.ImageDraw, clip: np.ndarray, every: int, fps: float | None) -> None:
    """Frame numbers, or with `fps` seconds, over the columns of the longest clip, as many as have room."""
    font = _font(NUMBER_FONT_PX)
    wanted = font.getlength(f"frame {every * len(clip)} ")
    stride = max(1, int(np.ceil(wanted / (clip.shape[2] + GUTTER_PX))))
    for index in range(0, len(clip), stride):
        number = str(index * every) if fps is None else f"{index * every / fps:.4g} s"
        text = f"frame {number}" if index == 0 and fps is None else number
        draw.text((_column(clip, index), MARGIN_PX - 4), text, fill=QUIET, font=font)


# --- text


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """The face of the figures, which comes with matplotlib: the same letters on every machine, arrows and dashes
    included.
    """
    import matplotlib

    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(file), size, layout_engine=ImageFont.Layout.BASIC)


def _line_height(size: int) -> int:
    ascent, descent = _font(size).getmetrics()
    return ascent + descent + 2


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Lines no wider than `width`; a single word that is wider is shortened."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(_shorten(word, font, width))
    return lines


def _shorten(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    kept = next((n for n in range(len(text), 0, -1) if font.getlength(text[:n] + "…") <= width), 0)
    return text[:kept] + "…" if kept else ""


# --- side by side


def side_by_side(left: Clip, right: Clip, labels: tuple[str, str] = ("base", "tuned"), scale: int = 8) -> np.ndarray:
    """Two clips in a row, see `in_a_row`."""
    return in_a_row((left, right), labels, scale)


def in_a_row(clips: Sequence[Clip], labels: Sequence[str], scale: int = 8) -> np.ndarray:
    """Clips of one size as one (T, H', W', 3) uint8 clip under a caption band.

    The clips are enlarged here, before the captions are drawn, so that the letters are sharp: write the result with
    `scale=1`.
    """
    panes = [upscale(_clip(clip), scale) for clip in clips]
    if len({pane.shape for pane in panes}) != 1:
        raise ValueError(
            f"clips side by side must have one shape, found {' and '.join(str(np.shape(clip)) for clip in clips)}"
        )
    frames, height, width, _ = panes[0].shape
    gap = max(MIN_GAP_PX, scale // 2)
    band = _caption_band(labels, width, gap)
    divider = np.full((frames, height, gap, 3), BAND, dtype=np.uint8)
    row = np.concatenate([part for pane in panes for part in (divider, pane)][1:], axis=2)
    return np.concatenate([np.broadcast_to(band, (frames, *band.shape)), row], axis=1)


def _caption_band(labels: Sequence[str], pane: int, gap: int) -> np.ndarray:
    size = max(MIN_FONT_PX, pane // BAND_FONT_SHARE)
    while size > MIN_FONT_PX and any(_font(size).getlength(label) > pane for label in labels):
        size -= 1
    height = _line_height(size) + size // 3
    band = Image.new("RGB", (len(labels) * (pane + gap) - gap, height), BAND)
    draw = ImageDraw.Draw(band)
    for index, label in enumerate(labels):
        text = _shorten(label, _font(size), pane)
        center = index * (pane + gap) + pane / 2
        draw.text((center, height / 2), text, fill=BAND_INK, font=_font(size), anchor="mm")
    return np.asarray(band)


# --- gif


def write_gif(frames: Iterable[Frame], path: str | Path, fps: float, scale: int = 1) -> None:
    """An endless GIF, 256 colours per frame. Equal neighbours become one frame that is shown longer; the total time is
    kept.
    """
    if not 0 < fps <= MAX_GIF_FPS:
        raise ValueError(f"a GIF plays at up to {MAX_GIF_FPS} fps, found {fps}")
    images = [_palette_image(frame, scale) for frame in _frames(frames)]
    with written_whole(path) as temporary:
        images[0].save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=images[1:],
            duration=_gif_delays(len(images), fps),
            loop=0,
            disposal=1,
        )


def _palette_image(frame: np.ndarray, scale: int) -> Image.Image:
    """Undithered: dots would flicker, and the clips' few colours fit.

    Colours are picked before enlarging, which is cheaper.
    """
    image = Image.fromarray(frame).quantize(GIF_COLORS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    return image if scale == 1 else image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)


def _gif_delays(count: int, fps: float) -> list[int]:
    """Milliseconds per frame, rounded so that the sum stays right: 8 fps is 120, 130, 120, ..."""
    ends = [round(1000 * (i + 1) / fps / GIF_TICK_MS) * GIF_TICK_MS for i in range(count)]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def _frames(frames: Iterable[Frame]) -> Iterator[np.ndarray]:
    """The frames as uint8, checked to be some and of one size."""
    size: tuple[int, ...] | None = None
    for frame in frames:
        array = to_uint8(frame)
        size = size or array.shape
        if array.ndim != 3 or array.shape != size:
            raise ValueError(f"frames must be (H, W, 3) of one size, found {array.shape} after {size}")
        yield array
    if size is None:
        raise ValueError("no frames")


# --- mp4


def mp4_encoder() -> str:
    """The encoder `write_mp4` uses.

    Raises:
        OutputError: this build of PyAV has none that browsers play.
    """
    for name in MP4_ENCODERS:
        try:
            return av.Codec(name, "w").name
        except UnknownCodecError:
            continue
    raise OutputError(
        "mp4", "", f"PyAV has no encoder {' or '.join(MP4_ENCODERS)}", hint="install PyAV from PyPI, or write a GIF"
    )


def write_mp4(frames: Iterable[Frame], path: str | Path, fps: float, scale: int = 1) -> None:
    """An MP4 that browsers play and can start before it is loaded. Takes one frame at a time: memory does not grow with
    length.
    """
    if fps <= 0:
        raise ValueError(f"fps must be positive, found {fps}")
    encoder = mp4_encoder()
    images = (even(upscale(frame, scale)) for frame in _frames(frames))
    first = next(images)
    with written_whole(path) as temporary, _mp4_container(temporary, FASTSTART) as container:
        stream = _mp4_stream(container, encoder, fps, first)
        container.mux(_encoded(stream, first))
        for image in images:
            container.mux(_encoded(stream, image))
        container.mux(stream.encode())


class Mp4Stream:
    """An MP4 that grows while its frames are made. Up to `finish` it is `<name>.partial.mp4`, written in fragments of a
    second, so it plays at any moment, even after the process was killed. `finish` makes it an ordinary MP4 under its
    own name.

    As a context manager it finishes where the block ends well, and else keeps the partial file.
    """

    def __init__(self, path: str | Path, fps: float, scale: int = 1) -> None:
        if fps <= 0:
            raise ValueError(f"fps must be positive, found {fps}")
        self.path, self.fps, self.scale = Path(path), fps, scale
        self.partial = self.path.with_suffix(".partial.mp4")
        self.frames = 0
        self._encoder = mp4_encoder()
        self._container: Any = None
        self._stream: Any = None

    def __enter__(self) -> Mp4Stream:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.finish() if kind is None else self.close()

    def write(self, frame: Frame) -> None:
        """Add a frame, of the first one's size.

        Raises:
            OutputError: the file cannot be written.
        """
        image = even(upscale(to_uint8(frame), self.scale))
        with _as_output_error(self.partial):
            if self._container is None:
                self.partial.parent.mkdir(parents=True, exist_ok=True)
                claim(self.partial)
                self._container = _mp4_container(self.partial, FRAGMENTED)
                self._stream = _mp4_stream(self._container, self._encoder, self.fps, image)
            self._container.mux(_encoded(self._stream, image))
        self.frames += 1

    def close(self) -> None:
        """Write what the encoder still holds; the partial file is complete as far as it goes."""
        if self._stream is not None:
            stream, self._stream = self._stream, None
            with _as_output_error(self.partial), self._container:
                self._container.mux(stream.encode())

    def finish(self) -> None:
        """Turn the partial file into the finished one.

        Raises:
            ValueError: no frame was written.
            OutputError: the file cannot be written; the partial one stays.
        """
        if not self.frames:
            raise ValueError("no frames")
        self.close()
        with (
            written_whole(self.path) as temporary,
            av.open(str(self.partial)) as source,
            _mp4_container(temporary, FASTSTART) as target,
        ):
            stream, begin = (
                target.add_stream_from_template(source.streams.video[0]),
                source.streams.video[0].start_time or 0,
            )
            for packet in source.demux(video=0):
                if packet.pts is not None and packet.dts is not None:  # the last, empty one only ends the stream
                    packet.pts, packet.dts, packet.stream = packet.pts - begin, packet.dts - begin, stream
                    target.mux(packet)
        self.partial.unlink()


@contextmanager
def _as_output_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(path, "", f"cannot be written: {error.strerror or error}") from error


def _mp4_container(path: Path, movflags: dict[str, str]) -> Any:
    return av.open(str(path), "w", format="mp4", options={**movflags, "fflags": "+bitexact"})


def _mp4_stream(container: Any, encoder: str, fps: float, image: np.ndarray) -> Any:
    stream = container.add_stream(encoder, rate=Fraction(fps).limit_denominator(1001), options=MP4_OPTIONS[encoder])
    stream.height, stream.width = image.shape[:2]
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.thread_count = 1  # how x264 splits the work changes the bytes, and must not depend on the machine's cores
    context.colorspace = context.color_primaries = context.color_trc = BT709
    context.color_range = LIMITED_RANGE
    return stream


def _encoded(stream: Any, image: np.ndarray) -> Any:
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    return stream.encode(frame.reformat(format="yuv420p", dst_colorspace=BT709, dst_color_range=LIMITED_RANGE))


def even(image: np.ndarray) -> np.ndarray:
    """Odd sides repeat their last line: yuv420p keeps one colour per 2 x 2 pixels."""
    height, width = image.shape[:2]
    return np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge") if height % 2 or width % 2 else image

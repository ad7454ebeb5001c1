"""Clips as pictures: contact sheets, side-by-side pairs and GIF files; `mp4` writes videos.

A clip is (T, H, W, 3), a frame (H, W, 3), RGB; floats in 0..1 or uint8, in anything `np.asarray` takes. Equal input
gives equal bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from astro_cli.config import durable
from astro_cli.config.errors import OutputError

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
GAP_PX = 12  # between two clips beside each other
MAX_SHEET_PX = 1800  # a line of frames: what a wide screen shows
SWITCH, SWITCH_PX = (213, 94, 0), 3  # outline of the frame at which the prompt changed
BAND_FONT_SHARE = 14  # pane width / font size: readable where a phone shrinks the clip to half
MIN_FONT_PX = 9
GIF_TICK_MS = 10  # a GIF counts in hundredths of a second
MAX_GIF_FPS = 50  # players slow a frame of under 2 hundredths down to 10
GIF_COLORS = 256
BAND_COLORS = 16  # of these for captions


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """As `durable.written_whole`, for files a user named.

    Raises:
        OutputError: the file cannot be written.
    """
    with as_output_error(Path(path)), durable.written_whole(Path(path)) as temporary:
        yield temporary


@contextmanager
def as_output_error(path: Path) -> Iterator[None]:
    """Raises: OutputError, for an error of the system."""
    try:
        yield
    except OSError as error:
        raise OutputError(path, "", f"cannot be written: {error.strerror or error}") from error


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


def enlarge(frames: np.ndarray, scale: int) -> np.ndarray:
    """Frames (T, H, W, 3) uint8, `scale` times as large, by a filter without ringing (Pillow's Hamming window)."""
    if scale < 1:
        raise ValueError(f"scale must be at least 1, found {scale}")
    size = (frames.shape[2] * scale, frames.shape[1] * scale)
    if scale == 1:
        return frames
    return np.stack([np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.HAMMING)) for frame in frames])


# --- contact sheet


class SheetRow(NamedTuple):
    """A clip of a contact sheet under its label.

    Attributes:
        start: frames of the video before it.
        is_switch: the clip begins where the prompt changed; its first frame is outlined.
    """

    label: str
    clip: Clip
    start: int = 0
    is_switch: bool = False


def contact_sheet(
    rows: Sequence[SheetRow | tuple[str, Clip]],
    path: str | Path,
    scale: int = 4,
    every: int = 1,
    apart: int = 1,
    fps: float | None = None,
) -> None:
    """A PNG of clips below each other: its label above its frames, every `every`-th of them, each with its number.

    Frames that do not fit beside each other go on in the next line. `apart` is the number of video frames from one
    frame of a clip to the next, for the numbers. With `fps` the numbers are seconds of the video.
    """
    if not rows or every < 1:
        raise ValueError(f"a contact sheet needs rows and every >= 1, found {len(rows)} rows, every {every}")
    named = [row if isinstance(row, SheetRow) else SheetRow(row[0], row[1]) for row in rows]
    shown = [row._replace(clip=enlarge(_clip(row.clip)[::every], scale)) for row in named]
    width = max(MIN_TEXT_PX, *(_strip_width(row.clip) for row in shown))
    blocks = [_block(row, width, every * apart, fps) for row in shown]
    sheet = Image.new("RGB", (width + 2 * MARGIN_PX, 2 * MARGIN_PX + sum(block.height for block in blocks)), PAPER)
    top = MARGIN_PX
    for block in blocks:
        sheet.paste(block, (MARGIN_PX - 1, top))
        top += block.height
    with written_whole(path) as temporary:
        sheet.save(temporary, format="PNG")


def _block(row: SheetRow, width: int, step: int, fps: float | None) -> Image.Image:
    """A label above lines of frames, each frame under its number; a pixel of margin at the left for outlines."""
    text, size = _wrap(row.label, _font(SHEET_FONT_PX), width), _per_line(row.clip)
    line, numbers = _line_height(SHEET_FONT_PX), _line_height(NUMBER_FONT_PX)
    frames, rows, columns, _ = row.clip.shape
    pitch = numbers + rows + GUTTER_PX
    height = len(text) * line + -(-frames // size) * pitch + ROW_GAP_PX
    block = Image.new("RGB", (width + 2, height), PAPER)
    draw = ImageDraw.Draw(block)
    for index, words in enumerate(text):
        draw.text((1, index * line), words, fill=INK, font=_font(SHEET_FONT_PX))
    for index, frame in enumerate(row.clip):
        x, y = 1 + index % size * (columns + GUTTER_PX), len(text) * line + index // size * pitch
        number = row.start + index * step
        words = _number(number, fps, step, is_first=index == 0)
        color = SWITCH if row.is_switch and index == 0 else QUIET
        words = f"switch, {words}" if row.is_switch and index == 0 else words
        draw.text((x, y), _shorten(words, _font(NUMBER_FONT_PX), columns), fill=color, font=_font(NUMBER_FONT_PX))
        y += numbers
        draw.rectangle((x - 1, y - 1, x + columns, y + rows), fill=INK)
        block.paste(Image.fromarray(frame), (x, y))
        if row.is_switch and index == 0:
            draw.rectangle((x - 1, y - 1, x + columns, y + rows), outline=SWITCH, width=SWITCH_PX)
    return block


def _number(frame: int, fps: float | None, step: int, *, is_first: bool) -> str:
    """A frame's number, or with `fps` its second, as fine as the frames are apart."""
    if fps is None:
        return f"frame {frame}" if is_first else str(frame)
    return f"{frame / fps:.{1 if step >= fps else 2}f} s"


def _clip(clip: Clip) -> np.ndarray:
    frames = to_uint8(clip)
    if frames.ndim != 4:
        raise ValueError(f"a clip must be (T, H, W, 3), found {frames.shape}")
    return frames


def _per_line(clip: np.ndarray) -> int:
    """Frames of a line: as few lines as the width allows, evenly filled."""
    most = max(1, (MAX_SHEET_PX + GUTTER_PX) // (clip.shape[2] + GUTTER_PX))
    lines = -(-len(clip) // most)
    return -(-len(clip) // lines)


def _strip_width(clip: np.ndarray) -> int:
    return _per_line(clip) * (clip.shape[2] + GUTTER_PX) - GUTTER_PX


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
    panes = [enlarge(_clip(clip), scale) for clip in clips]
    if len({pane.shape for pane in panes}) != 1:
        raise ValueError(
            f"clips side by side must have one shape, found {' and '.join(str(np.shape(clip)) for clip in clips)}"
        )
    frames, height, width, _ = panes[0].shape
    band = _caption_band(labels, width, GAP_PX)
    divider = np.full((frames, height, GAP_PX, 3), BAND, dtype=np.uint8)
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


def write_gif(frames: Iterable[Frame], path: str | Path, fps: float, scale: int = 1, band: int = 0) -> None:
    """An endless GIF, 256 colours per frame. Equal neighbours become one frame that is shown longer; the total time is
    kept.

    Args:
        band: rows at the top that hold captions. They have colours of their own, so that the clips do not change them.
    """
    if not 0 < fps <= MAX_GIF_FPS:
        raise ValueError(f"a GIF plays at up to {MAX_GIF_FPS} fps, found {fps}")
    images = [_palette_image(frame, scale, band) for frame in checked_frames(frames)]
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


def _palette_image(frame: np.ndarray, scale: int, band: int) -> Image.Image:
    """Undithered: dots would flicker, and the clips' few colours fit.

    Colours are picked before enlarging, which is cheaper.
    """
    colors = GIF_COLORS - (BAND_COLORS if band else 0)
    clip = Image.fromarray(frame[band:])
    image = clip.quantize(colors, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    if band:
        image = _with_band(image, frame[:band], colors)
    return image if scale == 1 else image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)


def _with_band(clip: Image.Image, band: np.ndarray, colors: int) -> Image.Image:
    """Caption rows above a clip of `colors` colours; theirs are a ramp from the band to its ink behind these."""
    first, last = np.array(BAND, dtype=float), np.array(BAND_INK, dtype=float)
    ramp = first + (last - first) * np.linspace(0, 1, BAND_COLORS)[:, None]
    share = ((band - first) @ (last - first)) / ((last - first) @ (last - first))
    places = colors + np.rint(share.clip(0, 1) * (BAND_COLORS - 1))
    image = Image.fromarray(np.concatenate([places, np.asarray(clip)]).astype(np.uint8), mode="P")
    palette = (clip.getpalette() or [])[: 3 * colors]
    image.putpalette([*palette, *[0] * (3 * colors - len(palette)), *np.rint(ramp).astype(int).flatten().tolist()])
    return image


def _gif_delays(count: int, fps: float) -> list[int]:
    """Milliseconds per frame, rounded so that the sum stays right: 8 fps is 120, 130, 120, ..."""
    ends = [round(1000 * (i + 1) / fps / GIF_TICK_MS) * GIF_TICK_MS for i in range(count)]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def checked_frames(frames: Iterable[Frame]) -> Iterator[np.ndarray]:
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

"""Still pictures that a user gives: read upright as viewers show them, and brought to a video's size. Free of torch.

Dimensions: H, W pixel rows and columns.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from astro_cli.config.errors import AstroError
from astro_cli.config.files import Reader
from astro_cli.media.video import Frame

Fit = Literal["exact", "crop"]
FITS = get_args(Fit)
DEEP = {"I;16", "I;16B", "I;16L", "I;16N", "I", "F"}  # modes of more than 8 bits, which Pillow clips to 255
PER_BYTE = 257  # 16 bits to 8: 65,535 / 255
OPAQUE = 255
READABLE = "expected a picture such as PNG, JPEG or WebP"


class PictureFileError(AstroError):
    """A file that is no picture, or one that cannot open a video."""


def read_picture(path: str | Path) -> Frame:
    """The picture (H, W, 3) uint8 RGB, turned upright as its EXIF tag says; of an animation the first frame.

    An alpha channel that is opaque everywhere is dropped.

    Raises:
        PictureFileError: missing, no picture, damaged, without pixels, with transparent pixels, or of numbers that are
            neither 8 nor 16 bits.
    """
    path = Path(path)
    content = Reader(PictureFileError).content(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content)) as picture:
                return _rgb(path, ImageOps.exif_transpose(picture))
    except UnidentifiedImageError as error:
        raise PictureFileError(path, "", "not a picture", hint=READABLE) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureFileError(path, "", "more pixels than a video can have", hint="reduce it first") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise PictureFileError(
            path, "", f"cannot be decoded: {error}", hint="the file is damaged: save it again"
        ) from error


def _rgb(path: Path, picture: Image.Image) -> Frame:
    if not picture.width or not picture.height:
        raise PictureFileError(path, "size", f"found {picture.width}x{picture.height} pixels, expected one or more")
    if picture.mode in DEEP:
        return _of_deep(path, np.asarray(picture))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        least = int(np.asarray(picture)[..., 3].min())
        if least < OPAQUE:
            what = f"has transparent pixels (alpha down to {least} of {OPAQUE}), a video has none"
            raise PictureFileError(path, "alpha", what, hint="flatten it onto a background first")
    return np.array(picture.convert("RGB"))


def _of_deep(path: Path, gray_HW: np.ndarray) -> Frame:
    """A grey picture of 16 bits."""
    if gray_HW.dtype.kind not in "iu" or gray_HW.min() < 0 or gray_HW.max() > OPAQUE * PER_BYTE:
        raise PictureFileError(path, "mode", f"found numbers of {gray_HW.dtype}, expected 8 or 16 bits a colour")
    gray = np.round(gray_HW / PER_BYTE).astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=2)


def fitted(frame: Frame, height: int, width: int) -> Frame:
    """Scaled to cover the size, bicubic with antialiasing, and cut to its middle."""
    if frame.shape[:2] == (height, width):
        return frame
    scale = max(height / frame.shape[0], width / frame.shape[1])
    rows, columns = (max(size, round(scale * had)) for size, had in zip((height, width), frame.shape[:2], strict=True))
    scaled = np.asarray(Image.fromarray(frame).resize((columns, rows), Image.Resampling.BICUBIC))
    top, left = (rows - height) // 2, (columns - width) // 2
    return scaled[top : top + height, left : left + width]


def same_shape(rows: int, columns: int, height: int, width: int) -> bool:
    """Whether a picture covers height x width without being cut by a whole pixel of the video: one aspect."""
    scale = max(height / rows, width / columns)
    return abs(rows * scale - height) < 1 and abs(columns * scale - width) < 1


def check_shape(path: Path, rows: int, columns: int, height: int, width: int, fit: Fit) -> None:
    """Refuse a picture of another aspect where nothing is to be cut.

    Raises:
        PictureFileError: with both sizes, and what would be left of it.
    """
    if fit == "crop" or same_shape(rows, columns, height, width):
        return
    what = f"found {rows}x{columns} pixels (height x width), the video has {height}x{width}: another aspect"
    hint = "--fit crop cuts its middle out, or --size makes a video of the picture's aspect"
    raise PictureFileError(path, "size", what, hint=hint)

"""Whether a video file has all the bytes that its container promises. Reads headers, decodes nothing.

FFmpeg gives the frames that are left of a truncated WebM, AVI or GIF without a word.
Source: ISO/IEC 14496-12 (MP4), RFC 8794 and 9559 (Matroska, WebM), Microsoft's RIFF (AVI), CompuServe's GIF89a.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

BOX, BOX_LONG, TO_THE_END = 8, 1, 0  # bytes of a box's head; its size follows as 64 bits; it has no size
EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
RIFF_UNKNOWN = (0, 0xFFFFFFFF)  # sizes of a file that was written as a stream
GIF_END, GIF_EXTENSION, GIF_IMAGE = b"\x3b", b"\x21", b"\x2c"


def cut(path: Path) -> str:
    """How much is missing, in words; "" where the file is as long as it says, or does not say.

    Raises:
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(12)
        if start[:3] == b"GIF":
            return "" if _gif_is_whole(file) else "ends early: no end mark"
        promised = _promised(file, start, size)
    return f"ends early: {size} of {promised} bytes" if promised > size else ""


def _promised(file: BinaryIO, start: bytes, size: int) -> int:
    """Bytes that the file says it has, 0 where it does not say."""
    if start[4:8] in (b"ftyp", b"styp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return _boxes(file, size)
    if start[:4] == EBML:
        return _segment(file)
    if start[:4] == b"RIFF" and start[8:12] == b"AVI ":
        return _riff(file, size)
    return 0


def _boxes(file: BinaryIO, size: int) -> int:
    """MP4 and MOV: the end of the last of the boxes that follow each other."""
    end = 0
    while end + BOX <= size:
        file.seek(end)
        head = file.read(2 * BOX)
        if not head[4:8].isalnum():
            break  # no box: something was added behind the video
        length = int.from_bytes(head[:4], "big")
        if length == BOX_LONG:
            length = int.from_bytes(head[8:16], "big")
        if length == TO_THE_END or length < BOX:
            break
        end += length
    return end


def _segment(file: BinaryIO) -> int:
    """Matroska and WebM: the end of the segment behind the EBML head."""
    file.seek(len(EBML))
    head = _number(file)
    if head is None:
        return 0
    file.seek(head, 1)
    if file.read(len(SEGMENT)) != SEGMENT:
        return 0
    length = _number(file)
    return 0 if length is None else file.tell() + length


def _number(file: BinaryIO) -> int | None:
    """An EBML number: the leading zeros of its first byte say how many bytes follow. None: unknown (all bits set)."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    width = 8 - first[0].bit_length()
    value = int.from_bytes(bytes([first[0] & (0x7F >> width)]) + file.read(width), "big")
    return None if value == 2 ** (7 * (width + 1)) - 1 else value


def _riff(file: BinaryIO, size: int) -> int:
    """AVI: the end of the last of its RIFF chunks; long files have several, each at an even place."""
    end = 0
    while end + end % 2 + BOX <= size:
        file.seek(end + end % 2)
        head = file.read(BOX)
        length = int.from_bytes(head[4:], "little")
        if head[:4] != b"RIFF" or length in RIFF_UNKNOWN:
            break
        end += end % 2 + BOX + length
    return end


def _gif_is_whole(file: BinaryIO) -> bool:
    """Whether its blocks, each with its length, lead to the end mark."""
    file.seek(10)
    _skip_colours(file, 2)
    while True:
        kind = file.read(1)
        if kind == GIF_EXTENSION:
            file.seek(1, 1)
        elif kind == GIF_IMAGE:
            file.seek(8, 1)
            _skip_colours(file, 0)
            file.seek(1, 1)
        elif kind in (GIF_END, b""):
            return kind == GIF_END
        else:
            continue  # some encoders leave zeros between blocks
        while length := file.read(1):
            if length == b"\0":
                break
            file.seek(length[0], 1)


def _skip_colours(file: BinaryIO, behind: int) -> None:
    """Go behind a byte of flags, `behind` bytes and the colour table that the flags speak of."""
    flags = (file.read(1) or b"\0")[0]
    file.seek(behind + (3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0), 1)

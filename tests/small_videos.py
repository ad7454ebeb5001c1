"""Small real video files for tests, each with its own bytes, and ways to damage them. A helper of tests."""

from __future__ import annotations

import struct
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np

from astro_cli.generate.media import write_gif
from astro_cli.generate.mp4 import write_mp4

FPS = 8


@cache
def _encoded(seed: int, frames: int, size: tuple[int, int], fps: float, folder: Path) -> bytes:
    path = folder / "encoded.mp4"
    write_mp4(moving_noise(seed, frames, size), path, fps)
    data = path.read_bytes()
    path.unlink()
    return data


def moving_noise(seed: int, frames: int = 5, size: tuple[int, int] = (48, 32)) -> np.ndarray:
    """(T, H, W, 3) uint8: blocks of random colours that wander."""
    width, height = size
    tile = (
        np.random.default_rng(seed)
        .integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        .repeat(8, 0)
        .repeat(8, 1)
    )
    return np.stack([np.roll(tile, 3 * index, axis=1) for index in range(frames)])


def write_video(path: Path, seed: int = 0, frames: int = 5, size: tuple[int, int] = (48, 32), fps: float = FPS) -> Path:
    """An MP4; other arguments, other bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_encoded(seed, frames, size, fps, path.parent))
    return path


def turn(path: Path, matrix: tuple[float, ...]) -> Path:
    """Let an MP4 say that the pixel at (x, y) is shown at (a x + c y, b x + d y), as a phone does."""
    a, b, c, d = (round(number * 2**16) for number in matrix)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44  # behind the box's name, version and flags, five times and numbers, ...
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 2**30)
    path.write_bytes(bytes(data))
    return path


CODECS = {".webm": "libvpx", ".mkv": "libvpx", ".avi": "mpeg4", ".mov": "mpeg4", ".mp4": "mpeg4"}


def write_container(path: Path, frames: int = 64, size: tuple[int, int] = (64, 48)) -> Path:
    """A video in the container of the path's ending."""
    if path.suffix == ".gif":
        write_gif(moving_noise(0, frames, size), path, FPS)
        return path
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(CODECS[path.suffix], rate=FPS)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for frame in moving_noise(0, frames, size):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_truncated(path: Path, frames: int = 9) -> Path:
    """An MP4 whose header promises frames that are not there."""
    data = write_video(path, frames=frames, size=(128, 72)).read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    return path


def write_damaged(path: Path, frames: int = 9) -> Path:
    """An MP4 of full length with rubbish in the middle: all packets are there, not all decode."""
    data = bytearray(write_video(path, frames=frames, size=(128, 72)).read_bytes())
    middle = len(data) * 2 // 3
    data[middle : middle + 400] = b"\xff" * 400
    path.write_bytes(bytes(data))
    return path

"""Small real video files for tests, each with its own bytes, and ways to damage them. A helper of tests."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from astro_cli.generate.media import write_mp4

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

"""OpenCV's bilinear resize of 8-bit pictures, bit for bit, for protocols that were made with it; OpenCV itself is not
needed.

Dimensions: N frame, H, W pixel rows and columns, S side of the square result.
"""

from __future__ import annotations

import numpy as np

ONE = np.float32(2048)  # weights have 11 bits after the point


def stretch(frames_NHWC: np.ndarray, side: int) -> np.ndarray:
    """uint8 frames (N, H, W, 3) -> (N, S, S, 3), as `cv2.resize(frame, (side, side))`, without antialiasing.

    Source: OpenCV, imgproc/resize.cpp, INTER_LINEAR on 8 bits: columns first with 11-bit weights, then rows, each
        product cut to 16 bits.
    **Deviations:** none; compared with 5.0.0.
    """
    left, right, toleft, toright = _columns(frames_NHWC.shape[2], side)
    above, below, toabove, tobelow = _rows(frames_NHWC.shape[1], side)
    resized = [
        _one(frame.astype(np.int32), (left, right, toleft, toright), (above, below, toabove, tobelow))
        for frame in frames_NHWC
    ]
    return np.stack(resized)


Table = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # first and second neighbour, their weights


def _one(frame_HWC: np.ndarray, columns: Table, rows: Table) -> np.ndarray:
    left, right, toleft, toright = columns
    above, below, toabove, tobelow = rows
    wide_HSC = (frame_HWC[:, left] * toleft[:, None] + frame_HWC[:, right] * toright[:, None]) >> 4
    upper, lower = toabove[:, None, None] * wide_HSC[above] >> 16, tobelow[:, None, None] * wide_HSC[below] >> 16
    return (upper + lower + 2 >> 2).astype(np.uint8)


def _columns(length: int, side: int) -> Table:
    """Beyond the border a column is the border's alone."""
    first, share = _places(length, side)
    share = np.where((first < 0) | (first >= length - 1), np.float32(0), share)
    return _table(first, share, length)


def _rows(length: int, side: int) -> Table:
    """Beyond the border both neighbours are the border's row, with their weights."""
    return _table(*_places(length, side), length)


def _places(length: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    place = ((np.arange(side) + 0.5) * (length / side) - 0.5).astype(np.float32)
    first = np.floor(place).astype(int)
    return first, (place - first).astype(np.float32)


def _table(first: np.ndarray, share: np.ndarray, length: int) -> Table:
    low, high = (np.clip(index, 0, length - 1) for index in (first, first + 1))
    return low, high, _bits(np.float32(1) - share), _bits(share)


def _bits(weight: np.ndarray) -> np.ndarray:
    return np.rint(weight * ONE).astype(np.int32)

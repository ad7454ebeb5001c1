"""The README's animation: the frames of a contact sheet, each one and unchanged."""

from __future__ import annotations

import runpy

import numpy as np
import pytest
from PIL import Image

from tests.docs.pages import ROOT

script = runpy.run_path(str(ROOT / "scripts" / "animate_sheet.py"))
GIF = ROOT / "docs" / "images" / "base_tuned.gif"
SIZE, PROMPTS = 32, 6


def drawn(rows: list[np.ndarray]) -> np.ndarray:
    """A sheet of clips (T, H, W, 3), one in a row, each frame enlarged and in an outline, on light paper."""
    side, margin, ink = SIZE * script["ENLARGED"], script["MARGIN"], script["OUTLINE"]
    width, height = len(rows[0]) * (side + 3) - 3 + 2 * margin, len(rows) * (side + 30)
    sheet = np.full((height, width, 3), 244, dtype=np.uint8)
    for row, clip in enumerate(rows):
        for column, frame in enumerate(clip):
            top, left = row * (side + 30) + 15, margin + column * (side + 3)
            sheet[top - 1 : top + side + 1, left - 1 : left + side + 1] = ink
            large = frame.repeat(script["ENLARGED"], axis=0).repeat(script["ENLARGED"], axis=1)
            sheet[top : top + side, left : left + side] = large
    return sheet


def test_the_frames_of_a_sheet_come_back_as_they_went_in() -> None:
    rows = list(np.random.default_rng(0).integers(0, 256, (4, 9, SIZE, SIZE, 3), dtype=np.uint8))
    rows[0][:] = 20  # nearly as dark as the outline
    clips = script["clips"](drawn(rows), SIZE, 9)
    assert len(clips) == len(rows)
    assert all(np.array_equal(a, b) for a, b in zip(clips, rows, strict=True))


def test_a_clip_goes_on_in_the_next_line() -> None:
    clip = np.random.default_rng(0).integers(0, 256, (15, SIZE, SIZE, 3), dtype=np.uint8)
    [found] = script["clips"](drawn([clip[:9], clip[9:]]), SIZE, 15)
    assert np.array_equal(found, clip)
    with pytest.raises(ValueError, match="15 frames are no whole clips of 9"):
        script["clips"](drawn([clip[:9], clip[9:]]), SIZE, 9)


def test_a_picture_without_outlines_is_no_sheet() -> None:
    with pytest.raises(ValueError, match="no lines"):
        script["clips"](np.zeros((400, 400, 3), dtype=np.uint8), SIZE, 9)


def test_the_committed_animation_is_one_of_a_sheets() -> None:
    animation = Image.open(GIF)
    pane = SIZE * script["SCALE"]
    assert animation.n_frames == 33  # pyright: ignore[reportAttributeAccessIssue]
    assert animation.width >= PROMPTS * pane
    assert animation.height > len(script["NAMES"]) * pane
    assert GIF.stat().st_size < 1_500_000

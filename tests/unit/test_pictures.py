"""Pictures that open a video: read upright, refused by name, brought to the video's size; by hand-made files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from astro_cli.media.pictures import PictureFileError, check_shape, fitted, read_picture, same_shape

RED, BLUE = (200, 0, 0), (0, 0, 200)
ORIENTATION = 0x0112  # EXIF's tag


def halves(width: int = 4, height: int = 2) -> Image.Image:
    """Left half red, right half blue."""
    picture = Image.new("RGB", (width, height), RED)
    picture.paste(BLUE, (width // 2, 0, width, height))
    return picture


@pytest.mark.parametrize(
    ("tag", "top_left", "bottom_left", "shape"),
    [
        (1, RED, RED, (2, 4)),
        (2, BLUE, BLUE, (2, 4)),  # mirrored
        (3, BLUE, BLUE, (2, 4)),  # half a turn
        (6, RED, BLUE, (4, 2)),  # a quarter turn to the right: left becomes top
        (8, BLUE, RED, (4, 2)),  # to the left
    ],
)
def test_a_picture_is_upright_as_viewers_show_it(tag, top_left, bottom_left, shape, tmp_path):
    picture = halves()
    exif = picture.getexif()
    exif[ORIENTATION] = tag
    picture.save(tmp_path / "x.png", exif=exif)
    frame = read_picture(tmp_path / "x.png")
    assert frame.shape == (*shape, 3)
    assert frame.dtype == np.uint8
    assert tuple(frame[0, 0]) == top_left
    assert tuple(frame[-1, 0]) == bottom_left


def refusal(path: Path) -> str:
    with pytest.raises(PictureFileError) as caught:
        read_picture(path)
    return str(caught.value)


def test_what_is_no_picture_is_refused(tmp_path):
    (tmp_path / "a.png").write_text("hello")
    assert "a.png: not a picture" in refusal(tmp_path / "a.png")
    (tmp_path / "empty.png").write_bytes(b"")
    assert "not a picture" in refusal(tmp_path / "empty.png")
    assert "No such file" in refusal(tmp_path / "none.png")
    assert "a folder" in refusal(tmp_path)
    Image.effect_noise((64, 64), 90).convert("RGB").save(tmp_path / "b.png")
    whole = (tmp_path / "b.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    assert "cannot be decoded" in refusal(tmp_path / "cut.png")


def test_a_picture_without_pixels_is_refused(tmp_path):
    # A BMP whose header says 0 x 0 pixels.
    header = b"BM" + (54).to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little") + (40).to_bytes(4, "little")
    (tmp_path / "zero.bmp").write_bytes(
        header + bytes(8) + (1).to_bytes(2, "little") + (24).to_bytes(2, "little") + bytes(24)
    )
    assert "error: " in refusal(tmp_path / "zero.bmp")


def test_transparent_pixels_are_refused_and_opaque_alpha_is_dropped(tmp_path):
    Image.new("RGBA", (2, 2), (*RED, 255)).save(tmp_path / "opaque.png")
    assert read_picture(tmp_path / "opaque.png").tolist() == [[list(RED)] * 2] * 2
    Image.new("RGBA", (2, 2), (*RED, 40)).save(tmp_path / "clear.png")
    assert "alpha: has transparent pixels (alpha down to 40 of 255)" in refusal(tmp_path / "clear.png")
    palette = Image.new("P", (2, 2), 0)
    palette.info["transparency"] = 0
    palette.save(tmp_path / "palette.png", transparency=0)
    assert "transparent pixels" in refusal(tmp_path / "palette.png")


def test_sixteen_bits_become_eight(tmp_path):
    # 65,535 / 257 = 255; 25,700 / 257 = 100
    Image.fromarray(np.array([[0, 25700, 65535]], dtype=np.uint16)).save(tmp_path / "deep.png")
    assert read_picture(tmp_path / "deep.png")[0, :, 0].tolist() == [0, 100, 255]


def test_more_pixels_than_a_video_has_are_refused(tmp_path, monkeypatch):
    halves(40, 20).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert "more pixels than a video can have" in refusal(tmp_path / "x.png")


@pytest.mark.parametrize(
    ("rows", "columns", "same"),
    [
        (32, 32, True),
        (192, 192, True),
        (3201, 3200, True),  # 0.01 pixels of the video would be cut
        (33, 32, False),  # a row of 32 would be cut
        (720, 1280, False),
    ],
)
def test_one_aspect_is_less_than_a_pixel_off(rows, columns, same):
    assert same_shape(rows, columns, 32, 32) is same


def test_another_aspect_is_refused_or_cut_to_its_middle():
    with pytest.raises(PictureFileError) as caught:
        check_shape(Path("x.png"), 32, 48, 32, 32, "exact")
    assert "x.png: size: found 32x48 pixels (height x width), the video has 32x32" in str(caught.value)
    assert "--fit crop" in str(caught.value)
    check_shape(Path("x.png"), 32, 48, 32, 32, "crop")
    frame = np.zeros((2, 6, 3), dtype=np.uint8)
    frame[:, 2:4] = 200
    assert (fitted(frame, 2, 2) == 200).all()

"""A picture or a clip that opens the videos of `astro sample` and the Python API: what is shown, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from astro_cli.api import load_student, stream
from astro_cli.config.errors import StreamError
from astro_cli.core.rng import stream as rng_stream
from astro_cli.generate.given import Given
from astro_cli.generate.plan import Length, Switch, place, plan
from astro_cli.generate.stream import length_for
from astro_cli.media.pictures import PictureFileError
from astro_cli.shapes.grammar import parse
from astro_cli.shapes.render import random_layout, render
from eval.inputs.samples import load as load_samples

RED, BLUE = "a large red circle moves right slowly over a gray plain background", "a small blue square moves left fast"


@pytest.fixture(scope="module")
def student():
    return load_student("shapes/causal_forcing")


def write_picture(path: Path, prompt: str = RED, size: tuple[int, int] = (32, 32)) -> np.ndarray:
    """The first frame of a rendered clip of a prompt, as a file; (H, W, 3) in [0, 1]."""
    scene = parse(prompt if "background" in prompt else f"{prompt} over a gray plain background")
    frame = render([scene], random_layout([scene], [rng_stream(0, "layout")]), 1)[0, 0].permute(1, 2, 0)
    picture = Image.fromarray((frame * 255).round().byte().numpy())
    picture.resize(size).save(path)
    return frame.numpy()


def cards(folder: str = "samples") -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))]


def test_a_picture_is_the_first_frame_of_every_video(student, tmp_path):
    shown = write_picture(tmp_path / "first.png")
    blocks = list(stream(student, [RED, BLUE], image=tmp_path / "first.png", seconds=1.0))
    video = np.concatenate(blocks, 1)
    assert blocks[0].shape == (2, 1, 32, 32, 3)
    # The codec's picture of it, the same for both prompts.
    latents = student.backbone.encode(torch.from_numpy(shown).permute(2, 0, 1)[None, None].float())
    decoded = student.backbone.decode(latents)[0, 0].permute(1, 2, 0).numpy()
    assert np.abs(video[:, 0] - decoded).max() < 1 / 255  # the file has whole steps of 1 / 255
    assert np.abs(video[:, 0] - shown).mean() < 0.05
    behind = video.shape[1] - 1
    per_block = student.backbone.num_frames(student.card["video"]["block"], history=1)
    assert behind >= 7
    assert behind % per_block == 0
    assert np.abs(video[0, 1:] - video[1, 1:]).max() > 0.1  # what follows is the prompt's


def test_what_follows_depends_on_the_picture(student, tmp_path):
    write_picture(tmp_path / "red.png")
    write_picture(tmp_path / "blue.png", BLUE)
    red, blue = (list(stream(student, RED, image=tmp_path / f"{name}.png", frames=4))[1] for name in ("red", "blue"))
    assert np.abs(red - blue).max() > 0.1


def test_the_command_writes_the_picture_and_says_where_it_is_from(run_sample, tmp_path):
    write_picture(tmp_path / "first.png", size=(64, 64))
    code, err = run_sample(RED, "--image", "first.png", "--frames", "4")
    assert code == 0, err
    (card,) = cards()
    assert (card["image"], card["given_frames"], card["fit"]) == ("../first.png", 1, "exact")
    (sample,) = load_samples("samples")
    assert sample.labels["image"] == "../first.png"
    # Another picture is another video, also of the same prompt and seed.
    write_picture(tmp_path / "first.png", BLUE, size=(64, 64))
    assert run_sample(RED, "--image", "first.png", "--frames", "4")[0] == 0
    assert len(cards()) == 2


def test_a_prompt_file_names_a_picture_for_each_prompt(run_sample, tmp_path):
    write_picture(tmp_path / "a.png")
    write_picture(tmp_path / "b.png", BLUE)
    lines = [{"prompt": RED, "image": "a.png"}, {"prompt": BLUE, "image": "b.png"}]
    Path("p.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    code, err = run_sample("--prompts", "p.jsonl", "--frames", "4", "--batch", "2")
    assert code == 0, err
    assert {(card["prompt"], card["image"]) for card in cards()} == {(RED, "../a.png"), (BLUE, "../b.png")}
    code, err = run_sample("--prompts", "p.jsonl", "--frames", "4", "--image", "a.png")
    assert code == 2
    assert "--image: a.png: the prompt file names a picture on every line" in err
    Path("p.jsonl").write_text("\n".join(json.dumps(line) for line in [*lines, {"prompt": RED}]))
    code, err = run_sample("--prompts", "p.jsonl")
    assert code == 2
    assert "p.jsonl: line 3: names no image, 2 other lines do" in err
    Path("p.jsonl").write_text(json.dumps({"prompt": RED, "image": 3}))
    assert "image: found 3, expected the path of a picture" in run_sample("--prompts", "p.jsonl")[1]


def test_a_clip_goes_on(run_sample, student, tmp_path):
    assert run_sample(RED, "--out", "first")[0] == 0
    (clip,) = Path("first").glob("*.mp4")
    made = cards("first")[0]["frames"]
    code, err = run_sample(RED, "--video", str(clip), "--seconds", "1", "--out", "more")
    assert code == 0, err
    (card,) = cards("more")
    assert card["continues"] == f"../{clip}"
    assert card["given_frames"] <= made
    assert card["frames"] >= card["given_frames"] + 8
    code, err = run_sample(RED, "--video", str(clip), "--image", "x.png")
    assert code == 2
    assert "--image: x.png: found --video too" in err


def test_a_clip_of_the_last_frames_is_continued(student, tmp_path):
    """Its last frame is the last given one, whatever its length."""
    from astro_cli.generate import given
    from astro_cli.generate.mp4 import Mp4Stream

    block = student.card["video"]["block"]
    count = student.backbone.num_frames(block) + 1  # one frame more than a block: the first is left out
    frames = np.repeat(np.linspace(0.1, 0.9, count)[:, None, None, None], 32, 1).repeat(32, 2).repeat(3, 3)
    with Mp4Stream(tmp_path / "x.mp4", student.backbone.fps, 6) as file:
        for frame in frames:
            file.write(frame)
    opening = given.clip(student, tmp_path / "x.mp4")
    assert (opening.latents, opening.first_frame_alone, opening.frames) == (block, False, count - 1)
    clip = torch.from_numpy(frames).permute(0, 3, 1, 2)[None].float()
    last, first = (student.backbone.encode(part)[0] for part in (clip[:, 1:], clip[:, :-1]))
    far = (opening.latents_FCHW - first).abs().mean()
    assert (opening.latents_FCHW - last).abs().mean() < far / 3
    with Mp4Stream(tmp_path / "short.mp4", student.backbone.fps, 6) as file:
        file.write(frames[0])
        file.write(frames[-1])
    opening = given.clip(student, tmp_path / "short.mp4")
    assert (opening.latents, opening.first_frame_alone) in {(1, True), (block, False)}
    assert student.backbone.decode(opening.latents_FCHW[None])[0, -1].mean() == pytest.approx(0.9, abs=0.05)


def test_pictures_that_do_not_fit_are_refused(run_sample, tmp_path):
    write_picture(tmp_path / "wide.png", size=(48, 32))
    code, err = run_sample(RED, "--image", "wide.png")
    assert code == 2
    assert "wide.png: size: found 32x48 pixels (height x width), the video has 32x32: another aspect" in err
    assert run_sample(RED, "--image", "wide.png", "--fit", "crop", "--frames", "4")[0] == 0
    Path("no.png").write_text("hello")
    code, err = run_sample(RED, "--image", "no.png")
    assert (code, "no.png: not a picture" in err) == (2, True)
    code, err = run_sample(RED, "--image", "wide.png", "--weights", "shapes/teacher")
    assert code == 2
    assert "is a multi-step teacher and continues no frame" in err
    code, err = run_sample(RED, "--fit", "crop")
    assert code == 2
    assert "there is no --image and no --video to cut" in err
    assert not list(Path().glob("samples/*.partial.mp4"))


def test_a_clip_of_another_rate_is_refused(run_sample, student, tmp_path):
    from astro_cli.generate.mp4 import Mp4Stream

    with Mp4Stream(tmp_path / "x.mp4", 25, 6) as file:
        for _ in range(30):
            file.write(np.zeros((32, 32, 3)))
    code, err = run_sample(RED, "--video", "x.mp4")
    assert code == 2
    assert f"x.mp4: fps: found 25, the video continues it at {student.backbone.fps:g}" in err


def test_the_api_refuses_both_and_what_is_no_fit(student, tmp_path):
    write_picture(tmp_path / "wide.png", size=(48, 32))
    with pytest.raises(PictureFileError, match="another aspect"):
        stream(student, RED, image=tmp_path / "wide.png")
    with pytest.raises(StreamError, match="found video too"):
        stream(student, RED, image="a.png", video="b.mp4")
    with pytest.raises(StreamError, match="fit"):
        stream(student, RED, image=tmp_path / "wide.png", fit="pad")  # type: ignore[arg-type]


# --- lengths and switches


def opening(latents: int, *, alone: bool, frames: int = 1, continues: bool = False) -> Given:
    return Given(torch.zeros(latents, 1, 1, 1), alone, {"image": "x"}, frames, continues)


def test_lengths_behind_a_first_frame_by_hand(student):
    block, trained = student.card["video"]["block"], student.card["video"]["frames"]
    assert length_for(student, None, None, opening(1, alone=True)).latents == 1 + (trained - 1) // block * block
    frames = student.backbone.num_frames
    assert length_for(student, None, 2, opening(1, alone=True)).latents == 1 + block
    assert length_for(student, None, frames(1 + block) + 1, opening(1, alone=True)).latents == 1 + 2 * block
    with pytest.raises(StreamError, match="the first 1 are given"):
        length_for(student, None, 1, opening(1, alone=True))
    # A clip's length is added to.
    clip = opening(block, alone=False, frames=frames(block), continues=True)
    assert length_for(student, None, 1, clip).latents == 2 * block
    assert length_for(student, None, None, clip).frames >= frames(block) + frames(trained)


def test_switches_wait_for_a_made_block(student):
    backbone = student.backbone
    length = Length(7, 3, backbone, given=1, alone=True)
    assert [length.starts_at(backbone.num_frames(latent)) for latent in (1, 2, 4, 5)] == [1, 4, 4, 7]
    assert place([Switch(backbone.num_frames(4), False, "b", "x")], length) == ((4, "b"),)
    with pytest.raises(StreamError, match="before a frame of the first prompt is made"):
        place([Switch(1, False, "b", "1")], length)
    stories = plan([["a", "b"]], [0], 0, [], length, {}, [opening(1, alone=True)])
    assert stories[0].switches == ((4, "b"),)

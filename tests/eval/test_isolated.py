"""vbench's own GRiT dimensions through the real worker, whole and on clips; only GRiT is replaced, by a rule over
colours read from a file.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from astro_cli.generate.mp4 import write_mp4
from astro_cli.media.decode import frames, probe
from eval.contract import NetworkCache, Sample, Score, ScoreError, VideoInfo
from eval.metrics.catalog import find
from eval.vbench import vbench_files
from eval.vbench.clip_file import ClipFile
from eval.vbench.isolated import VARIABLE

pytest.importorskip("vbench")
pytest.importorskip("decord")
FRAMES, HEIGHT, WIDTH, FPS = 12, 64, 96, 4  # a clip of two seconds is 8 frames
RED, BLUE = (200, 20, 20), (20, 20, 200)
# vbench.third_party.grit_model with one colour channel per object: boxes of what is bright in it, in GRiT's form
# (description, box, all objects).
GRIT = """
import torch

class DenseCaptioning:
    def __init__(self, device):
        assert isinstance(device, torch.device)

    def initialize_model(self, model_weight, dense=True):
        self.dense = dense
        self.channels = torch.load(model_weight, map_location="cpu", weights_only=True)["model"]

    def initialize_model_det(self, model_weight):
        self.initialize_model(model_weight, dense=False)

    def run_caption_tensor(self, frame_HWC):
        frame_HWC, boxes = torch.as_tensor(frame_HWC).float(), {}
        if frame_HWC.min() > 240:
            raise NotImplementedError("no kernel for white")
        for name, weight_C in self.channels.items():
            rows, columns = torch.nonzero(frame_HWC @ weight_C > 100, as_tuple=True)
            if len(rows):
                boxes[name] = [int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())]
        names = [name.split()[1] for name in boxes]
        return [(name if self.dense else name.split()[1], box, names) for name, box in boxes.items()], None
"""
PACKAGE = "__path__ = [{own!r}, {real!r}]\n"


@pytest.fixture
def grit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An interpreter whose vbench is the installed one but for GRiT; tiny weights lie in VBench's layout."""
    spec = importlib.util.find_spec("vbench")
    assert spec is not None
    assert spec.origin is not None
    real, own = Path(spec.origin).parent, tmp_path / "site" / "vbench"
    (own / "third_party").mkdir(parents=True)
    for part in (".", "third_party"):
        (own / part / "__init__.py").write_text(PACKAGE.format(own=str(own / part), real=str(real / part)))
    (own / "third_party" / "grit_model.py").write_text(GRIT)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path / "site"} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv(VARIABLE, str(python))
    monkeypatch.setenv(vbench_files.CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    for name in ("grit", "bert"):
        vbench_files.path_of(name).parent.mkdir()
    vbench_files.path_of("bert").touch()
    model = {"red car": torch.tensor([1.0, 0.0, -1.0]), "blue ball": torch.tensor([-1.0, 0.0, 1.0])}
    torch.save({"model": model}, vbench_files.path_of("grit"))
    return tmp_path


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """A red square on the left throughout, a blue one on the right in the last third."""
    clip_THWC = np.full((FRAMES, HEIGHT, WIDTH, 3), 60, np.uint8)
    clip_THWC[:, 20:44, 8:32] = RED
    clip_THWC[8:, 20:44, 60:84] = BLUE
    write_mp4(clip_THWC, tmp_path / "v.mp4", FPS)
    return tmp_path / "v.mp4"


def score_of(dimension: str, path: Path, prompt: str, auxiliary: Any, **config: Any) -> Score:
    declaration = find(dimension)
    assert not [text for need in declaration.needs if (text := need.missing())]
    sample = Sample(path, "0" * 64, probe(path), "p", prompt, labels={"auxiliary_info": {dimension: auxiliary}})
    watcher = declaration.build(declaration.config(**config), NetworkCache()).watch(sample)
    for index, frame_HWC in frames(path):
        watcher.see(index, frame_HWC)
    return watcher.scores()[dimension]


RELATION = {"spatial_relationship": {"object_a": "car", "object_b": "ball", "relationship": "on the left of"}}
CASES = [
    ("object_class", "a ball", {"object": "ball"}),
    ("multiple_objects", "a car and a ball", {"object": "car and ball"}),
]
CASES += [("spatial_relationship", "a car on the left of a ball", RELATION)]


@pytest.mark.parametrize(("dimension", "prompt", "auxiliary"), CASES)
def test_vbenchs_own_statistic_whole_and_on_clips(
    grit: Path, video: Path, dimension: str, prompt: str, auxiliary: Any
) -> None:
    # 16 frames of 12: each once, the last four more times, so 4 + 4 of 16 hold the ball
    assert score_of(dimension, video, prompt, auxiliary).value == 8 / 16
    # clips 0..7 (no ball) and 4..11: the ball in the last four of eight, and in the eight repeats of the last frame, 12
    # of 16
    found = score_of(dimension, video, prompt, auxiliary, clips="two_seconds")
    assert found.details["clip_values"] == [0.0, 12 / 16]
    assert found.value == 6 / 16
    assert not list(grit.glob("astro-clip-*"))


def test_colour_leaves_out_clips_without_the_object(grit: Path) -> None:
    clip_THWC = np.full((FRAMES, HEIGHT, WIDTH, 3), 60, np.uint8)
    clip_THWC[8:, 20:44, 60:84] = BLUE
    write_mp4(clip_THWC, grit / "late.mp4", FPS)
    found = score_of("color", grit / "late.mp4", "a blue ball", {"color": "blue"}, clips="two_seconds")
    assert found.details["clip_values"] == [None, 1.0]
    assert found.value == 1.0
    assert score_of("color", grit / "late.mp4", "a green boat", {"color": "green"}).value is None


def test_colour_takes_all_descriptions_for_the_first_object(grit: Path, video: Path) -> None:
    # the car is red in all 16 frames; in the 8 that also hold the blue ball, vbench finds blue beside the first object,
    # the car
    assert score_of("color", video, "a red car", {"color": "red"}).value == 1.0
    assert score_of("color", video, "a blue car", {"color": "blue"}).value == 8 / 16


def test_a_detector_that_fails_is_no_score_of_zero(grit: Path) -> None:
    write_mp4(np.full((4, HEIGHT, WIDTH, 3), 255, np.uint8), grit / "white.mp4", FPS)
    with pytest.raises(
        ScoreError, match="GRiT failed on 16 frames, first with NotImplementedError: no kernel for white"
    ):
        score_of("object_class", grit / "white.mp4", "a ball", {"object": "ball"})


def test_files_that_vbench_does_not_read_are_refused_unless_cut(grit: Path, video: Path) -> None:
    other = video.rename(video.with_suffix(".mov"))
    with pytest.raises(ScoreError, match=r"reads no such file, allowed: \.mp4, \.gif"):
        score_of("object_class", other, *CASES[0][1:])
    assert score_of("object_class", other, *CASES[0][1:], clips="two_seconds").value == 6 / 16


@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (HEIGHT - 1, WIDTH - 1)])
def test_a_clips_file_holds_its_frames_and_equal_frames_give_equal_bytes(tmp_path: Path, size: tuple[int, int]) -> None:
    frame_HWC = np.full((*size, 3), 90, np.uint8)
    sample = Sample(tmp_path / "v.mp4", "0" * 64, VideoInfo(3, 7.0, size[1], size[0]), "p", "a cat")
    made = [_bytes(replace(sample), frame_HWC, lambda path: (probe(path), path.read_bytes())) for _ in range(2)]
    assert made[0] == made[1]
    assert made[0][0] == VideoInfo(3, 7.0, WIDTH, HEIGHT)


def _bytes(sample: Sample, frame_HWC: np.ndarray, look: Callable[[Path], Any]) -> Any:
    clip = ClipFile(sample)
    for _ in range(3):
        clip.add(frame_HWC)
    with clip as path:
        seen = look(path)
    assert not path.exists()
    return seen

"""Types of camera motion from tracks: VBench-I2V's released ones on random and hand-made tracks, and by hand."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from eval.vbench.camera import GRID, PHRASES, camera_types, prompt_motion

INFO = Path(__file__).parents[3] / "shared/data/vbench/vbench2_i2v_full_info.json"
HEIGHT, WIDTH = 64, 96
# The camera's way right and down in pixels, and by how much the picture grows.
MOVES = {
    "pan_left": (-9, 0, 1.0), "pan_right": (9, 0, 1.0), "tilt_up": (0, -9, 1.0), "tilt_down": (0, 9, 1.0),
    "zoom_in": (0, 0, 1.3), "zoom_out": (0, 0, 0.8), "static": (0, 0, 1.0),
}  # fmt: skip


class StandIn(torch.nn.Module):
    """Gives the tracks it is told, as CoTracker's predictor gives its own."""

    tracks_TN2 = torch.zeros(2, GRID * GRID, 2)

    def forward(self, video_BTCHW: torch.Tensor, grid_size: int) -> tuple[torch.Tensor, None]:
        assert grid_size == GRID
        return self.tracks_TN2[None], None


@pytest.fixture
def official(monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, StandIn]:
    """The released module, whose drawing of tracks is not in the package, around a stand-in for the network."""
    pytest.importorskip("vbench2_beta_i2v")
    drawing = ModuleType("vbench2_beta_i2v.third_party.cotracker.utils.visualizer")
    vars(drawing)["Visualizer"] = None
    monkeypatch.setitem(sys.modules, drawing.__name__, drawing)
    network = StandIn()
    monkeypatch.setattr(torch.hub, "load", lambda *_: network)
    return importlib.import_module("vbench2_beta_i2v.camera_motion"), network


def random_tracks(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Two frames: a grid, then the grid moved, grown, sheared and shaken by some of each, often by hardly anything."""
    y, x = np.meshgrid(*(np.linspace(width / 64, side - width / 64, GRID) for side in (height, width)), indexing="ij")
    start_N2 = np.stack([x, y], axis=-1).reshape(-1, 2)
    size = 0.005 * min(height, width)
    way = rng.normal(0, size * rng.choice([0, 1, 5]), 2) * rng.choice([0, 1], 2)
    grown = (start_N2 - start_N2.mean(0)) @ (
        rng.choice([0, 0.01, -0.01, 0.1]) * np.eye(2) + rng.choice([0, 0.01]) * rng.normal(size=(2, 2))
    )
    shaken = rng.normal(0, size * rng.choice([0, 0.5, 2]), start_N2.shape)
    return np.stack([start_N2, start_N2 + way + grown + shaken]).astype(np.float32)


@pytest.mark.parametrize(
    ("height", "width"), [(72, 128), (200, 300), (900, 400), (720, 1280)]
)  # 200 and 400: limits of just 1 and 2 pixels
def test_types_are_the_released_ones_on_random_tracks(official, monkeypatch, height, width):
    module, network = official
    monkeypatch.setattr(module, "load_video", lambda path, return_tensor: np.zeros((2, height, width, 3), np.uint8))
    camera = module.CameraPredict("cpu", {"repo": "", "model": ""})
    rng, seen = np.random.default_rng(height), set()
    for _ in range(200):
        tracks_TN2 = random_tracks(rng, height, width)
        network.tracks_TN2 = torch.from_numpy(tracks_TN2)
        expected = camera.predict("v.mp4")
        found = camera_types(tracks_TN2, min(height, width))
        assert sorted(found) == (sorted(expected) if expected != ["None"] else [])
        seen.add(tuple(sorted(found)))
    assert {motion for types in seen for motion in types} == set(MOVES)
    assert () in seen
    assert len(seen) > 12  # combinations, too


def test_scores_and_asked_types_are_the_released_ones(official, monkeypatch):
    """All seven types asked of tracks of all seven moves."""
    module, network = official
    monkeypatch.setattr(module, "load_video", lambda path, return_tensor: np.zeros((2, HEIGHT, WIDTH, 3), np.uint8))
    camera = module.CameraPredict("cpu", {"repo": "", "model": ""})
    names = [f"a cat, {phrase}-0.mp4" for phrase in PHRASES]
    middle_2 = np.array([(WIDTH - 1) / 2, (HEIGHT - 1) / 2])
    for motion, (right, down, growth) in MOVES.items():
        start_N2 = random_tracks(np.random.default_rng(0), HEIGHT, WIDTH)[0]
        tracks_TN2 = np.stack([start_N2, (start_N2 - middle_2) * growth + middle_2 - np.array([right, down])]).astype(
            np.float32
        )
        network.tracks_TN2 = torch.from_numpy(tracks_TN2)
        mean, _, rows = module.camera_motion(camera, names)
        seen = camera_types(tracks_TN2, HEIGHT)
        assert motion in seen
        assert [row["prompt_type"] for row in rows] == [prompt_motion(Path(name).stem) for name in names]
        assert [row["video_results"] for row in rows] == [float(prompt_motion(name) in seen) for name in names]
        assert mean == pytest.approx(len(seen) / 7)


@pytest.mark.skipif(not INFO.is_file(), reason="needs ../shared/data")
def test_every_prompt_of_the_set_asks_for_a_motion(official):
    prompts = [row["prompt_en"] for row in json.loads(INFO.read_text()) if row["dimension"] == ["camera_motion"]]
    requested = [prompt_motion(prompt) for prompt in prompts]
    assert len(prompts) == 763
    assert requested == [official[0].get_type(f"{prompt}-0.mp4") for prompt in prompts]
    assert {motion: requested.count(motion) for motion in MOVES} == dict.fromkeys(MOVES, 109)


def test_types_by_hand():
    y, x = np.meshgrid(np.linspace(8, 472, GRID), np.linspace(8, 824, GRID), indexing="ij")
    start_N2 = np.stack([x, y], axis=-1).reshape(-1, 2)

    def types(end_N2: np.ndarray) -> set[str]:
        return camera_types(np.stack([start_N2, end_N2]), 480)  # still up to 2.4 pixels

    def moved(right: float, down: float) -> np.ndarray:
        return start_N2 + np.array([right, down])

    def grown(factor: float) -> np.ndarray:
        return factor * (start_N2 - np.array([416, 240])) + np.array([416, 240])

    assert types(start_N2) == types(moved(2, 2)) == {"static"}
    assert types(moved(3, 0)) == {"pan_left"}  # the picture goes right
    assert types(moved(-3, -3)) == {"pan_right", "tilt_down"}
    # x of the top edge's point: 8 + 5/9 816 = 461.3, 45.3 beside the centre; 10 % more is 4.5 to the right, 2 % less
    # 0.9 to the left
    assert types(grown(1.1)) == {"zoom_in", "pan_left", "tilt_up"}
    assert types(grown(0.98)) == {"zoom_out"}
    half = start_N2.copy()
    half.reshape(GRID, GRID, 2)[0] += [
        9,
        0,
    ]  # the top edge alone: its pair agrees on nothing, and static is no type then
    assert types(half) == set()

"""The figures of Reward Forcing and Delta Forcing: drawn from what is there, and what is missing with its command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.report import forcing_figures
from eval.report.figure_parts import Made
from eval.report.forcing_figures import GateCurves, draw_gate, draw_latent_paths
from eval.report.paper_figures import pictures
from eval.studies.catalog import STUDIES
from tests import claim_records


def is_drawn(path: Path) -> bool:
    with Image.open(path) as image:
        gray = np.asarray(image.convert("L"))
    return bool(gray.std() > 3)


def test_every_study_has_its_figures():
    names = {paper: [each.name for each in pictures(paper, study.pairs, Made(Path("none"), [], Path("r")))]
             for paper, study in STUDIES.items()}  # fmt: skip
    assert "figure_6_window_speed.png" in names["reward-forcing"]
    assert {"figure_5_latent_paths.png", "gate_over_video.png"} <= set(names["delta-forcing"])
    assert any(name.startswith("sheet_multi") for name in names["delta-forcing"])
    assert not any("figure_6_window" in name for name in names["astrolabe"])


def test_speed_against_the_window_is_drawn_of_the_windows_there_are(tmp_path):
    records = [
        claim_records.record("reward_forcing_shapes", "throughput_streaming", [50.0, 52.0], seed) for seed in (0, 1)
    ]
    made = Made(tmp_path, records, tmp_path)
    (picture,) = forcing_figures.pictures("reward-forcing", made)
    drawn = picture.draw(tmp_path / "a.png")
    assert drawn.written
    assert is_drawn(tmp_path / "a.png")
    assert {lack.arm for lack in drawn.missing} == {
        "reward_forcing_window_15_shapes",
        "reward_forcing_window_21_shapes",
    }
    empty = forcing_figures.pictures("reward-forcing", Made(tmp_path, [], tmp_path))[0].draw(tmp_path / "b.png")
    assert not empty.written
    assert not (tmp_path / "b.png").exists()


def test_paths_and_gate_are_drawn(tmp_path):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(12, 2))
    draw_latent_paths({"a": (points, 0.8, 6), "b": (points * 2, 0.7, 6)}, tmp_path / "paths.png")
    curves = GateCurves(np.array([0.9, 0.1, 0.8]), np.array([0.1, 0.9, 0.2]), np.array([0.2, 0.3, 0.1]), (9, 15, 21))
    draw_gate(curves, rng.random((4, 8, 8, 3)).astype(np.float32), [15], tmp_path / "gate.png")
    assert is_drawn(tmp_path / "paths.png")
    assert is_drawn(tmp_path / "gate.png")


@pytest.mark.parametrize("name", ["figure_5_latent_paths.png", "gate_over_video.png"])
def test_without_runs_the_command_that_makes_them_is_named(name, tmp_path, monkeypatch):
    monkeypatch.setattr(forcing_figures, "PATHS", {"Delta Forcing": "delta_forcing_shapes"})
    picture = {each.name: each for each in forcing_figures.pictures("delta-forcing", Made(tmp_path, [], tmp_path))}[
        name
    ]
    drawn = picture.draw(tmp_path / "a.png")
    assert not drawn.written
    assert "astro ablate delta-forcing --seeds 0,1,2" in drawn.missing[0].command

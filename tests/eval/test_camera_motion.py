"""VBench-I2V's camera motion: a small tracker, loaded as CoTracker2 is, on rendered camera moves, and the suite with
it.
"""

from __future__ import annotations

import gc
import json
import sys
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from astro_cli.__main__ import main
from astro_cli.config.base import Config
from astro_cli.config.errors import CheckpointError, RunError
from astro_cli.generate.mp4 import write_mp4
from eval.contract import Declaration, Frame, MetricInfo, NetworkCache, Sample, Score, ScoreError, VideoInfo
from eval.metrics import catalog
from eval.scoring.scorers import weights_hash
from eval.vbench import vbench_files
from eval.vbench.camera import PHRASES
from eval.vbench.dimension import DimensionConfig

NAME = "camera_motion"
FRAMES, HEIGHT, WIDTH = 9, 64, 96
# Per frame: the camera's way right and down in pixels, and by how much the picture grows.
MOVES = {
    "pan_left": (-1, 0, 1.0), "pan_right": (1, 0, 1.0), "tilt_up": (0, -1, 1.0), "tilt_down": (0, 1, 1.0),
    "zoom_in": (0, 0, 1.03), "zoom_out": (0, 0, 1 / 1.03), "static": (0, 0, 1.0),
}  # fmt: skip
PHRASE_OF = {motion: phrase for phrase, motion in PHRASES.items()}

# In place of CoTracker2: matches patches around inner points from frame to frame and moves the grid by the similarity
# that fits them. What it sees
# goes through a convolution, so that it follows nothing without its weights; like the real code, importing it seeds
# torch.
HUBCONF = """
import torch
from torch import nn
from torch.nn import functional as F

torch.manual_seed(0)
RADIUS, REACH, INNER = 4, 3, 7
MARGIN = RADIUS + REACH


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.luma = nn.Conv2d(3, 1, 1, bias=False)
        nn.init.zeros_(self.luma.weight)

    def patches(self, frames):
        unfolded = F.unfold(self.luma(frames / 255), 2 * RADIUS + 1, padding=RADIUS)
        return F.normalize(unfolded - unfolded.mean(1, keepdim=True), dim=1)

    def forward(self, frames, points):
        height, width = frames.shape[-2:]
        rows, columns = (torch.linspace(MARGIN, side - 1 - MARGIN, INNER).round() for side in (height, width))
        inner = torch.cartesian_prod(rows, columns)
        ways = torch.cartesian_prod(*[torch.arange(-REACH, REACH + 1.0)] * 2)
        found, patches, at = [points], self.patches(frames), (inner @ torch.tensor([width, 1.0])).long()
        for before, after in zip(patches[:-1], patches[1:]):
            there = (at[:, None] + (ways @ torch.tensor([width, 1.0])).long()[None])
            moved = ways[(before[:, at, None] * after[:, there]).sum(0).argmax(1)]
            centre, way = inner.mean(0), moved.mean(0)
            growth = ((moved - way) * (inner - centre)).sum() / (inner - centre).square().sum()
            points = points + way.flip(0) + growth * (points - centre.flip(0))
            found.append(points)
        return torch.stack(found)


class Predictor(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = Network()

    def forward(self, video, grid_size):
        height, width = video.shape[-2:]
        margin = width / 64
        y, x = (torch.linspace(margin, side - margin, grid_size) for side in (height, width))
        points = torch.cartesian_prod(y, x).flip(1)
        tracks = self.model(video[0], points)[None]
        return tracks, torch.ones(tracks.shape[:-1])


def cotracker2(*, pretrained=True, **kwargs):
    assert not pretrained, "would be downloaded"
    return Predictor()
"""
RETURN = "return tracks, torch.ones"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of VBench's weights, with a checkout and its weights at their vbench_files."""
    monkeypatch.setenv(vbench_files.CACHE_VARIABLE, str(tmp_path / "vbench"))
    monkeypatch.delenv(vbench_files.COTRACKER_VARIABLE, raising=False)
    checkout = tmp_path / "vbench/cotracker_model/co-tracker"
    checkout.mkdir(parents=True)
    (checkout / "hubconf.py").write_text(HUBCONF)
    torch.save({"luma.weight": torch.tensor([0.3, 0.6, 0.1])[None, :, None, None]}, vbench_files.path_of("cotracker"))
    return tmp_path / "vbench"


def hubconf(old: str = "", new: str = "") -> None:
    assert old in HUBCONF
    (vbench_files.cotracker_checkout() / "hubconf.py").write_text(HUBCONF.replace(old, new) if old else new)


def clip(motion: str, seed: int = 0, frames: int = FRAMES) -> np.ndarray:
    """(T, H, W, 3) uint8: a camera's view of a smooth picture, which it begins at the middle of."""
    right, down, growth = MOVES[motion]
    noise = torch.from_numpy(np.random.default_rng(seed).uniform(0, 255, (1, 3, 24, 36)).astype(np.float32))
    picture_1CHW = F.interpolate(noise, scale_factor=8, mode="bicubic").clamp(0, 255)
    views = []
    for time in range(frames):
        y, x = (
            2 * ((torch.arange(side) - side // 2) / growth**time + way * time) / length
            for side, way, length in ((HEIGHT, down, picture_1CHW.shape[2]), (WIDTH, right, picture_1CHW.shape[3]))
        )
        where_1HW2 = torch.stack([x.expand(HEIGHT, -1), y[:, None].expand(-1, WIDTH)], dim=-1)[None]
        views.append(
            F.grid_sample(picture_1CHW, where_1HW2, align_corners=False)[0].permute(1, 2, 0).round().byte().numpy()
        )
    return np.stack(views)


def sample(prompt: str, frames: int = FRAMES) -> Sample:
    return Sample(Path("v.mp4"), "0" * 64, VideoInfo(frames, 8.0, WIDTH, HEIGHT), "p", prompt)


def build() -> Any:
    declaration = catalog.find(NAME)
    assert not [text for need in declaration.needs if (text := need.missing())]
    return declaration.build(DimensionConfig(), NetworkCache())


def score(scorer: Any, frames_THWC: np.ndarray, prompt: str) -> Score:
    watcher = scorer.watch(sample(prompt, len(frames_THWC)))
    for index, frame in enumerate(frames_THWC):
        watcher.see(index, frame)
    return watcher.scores()[NAME]


# --- the tracker


@pytest.mark.parametrize("motion", MOVES)
def test_a_rendered_move_is_seen(cache, motion):
    scorer = build()
    found = score(scorer, clip(motion), f"a cat, {PHRASE_OF[motion]}")
    assert found.value == 1.0
    assert found.details["asked"] == motion
    others = {"pan_left": "pan_right", "tilt_up": "tilt_down", "zoom_in": "zoom_out"}
    opposite = others.get(motion) or {value: key for key, value in others.items()}.get(motion, "zoom_in")
    assert score(scorer, clip(motion), f"a cat, {PHRASE_OF[opposite]}").value == 0.0
    assert opposite not in found.details["seen"]


def test_the_weights_of_the_file_track(cache):
    moved = clip("pan_left")
    assert score(build(), moved, "camera pans left").value == 1.0
    torch.save({"model": {"luma.weight": torch.zeros(1, 3, 1, 1)}}, vbench_files.path_of("cotracker"))
    assert score(build(), moved, "camera pans left").value == 0.0


def test_a_checkout_elsewhere_and_no_seed_is_touched(cache, tmp_path, monkeypatch):
    vbench_files.cotracker_checkout().rename(tmp_path / "mine")
    need = catalog.find(NAME).needs[0]
    assert str(cache / "cotracker_model/co-tracker") in need.missing()
    assert "ASTRO_COTRACKER" in need.missing()
    monkeypatch.setenv("ASTRO_COTRACKER", str(tmp_path / "mine"))
    assert need.missing() == ""
    torch.manual_seed(5)
    before = torch.get_rng_state()
    build()
    assert torch.equal(torch.get_rng_state(), before)


def test_frames_go_when_the_score_is_there(cache):
    watcher = build().watch(sample("camera static"))
    frames = list(clip("static").copy())
    seen = [weakref.ref(frame) for frame in frames]
    for index in range(FRAMES):
        watcher.see(index, frames.pop(0))
    assert all(reference() is not None for reference in seen)
    watcher.scores()
    del watcher
    gc.collect()
    assert [reference() for reference in seen] == [None] * FRAMES


def test_what_scores_is_hashed_code_included(cache):
    declaration = catalog.find(NAME)

    def now() -> str:
        return weights_hash(declaration.files(DimensionConfig()))

    first = now()
    code = vbench_files.cotracker_checkout() / "cotracker/models"
    code.mkdir(parents=True)
    assert now() == first
    (code / "core.py").write_text("STRIDE = 4\n")
    assert now() != first


# --- what is refused


def test_videos_and_prompts_that_cannot_be_scored(cache):
    scorer = build()
    with pytest.raises(ScoreError, match="asks for no camera motion: 'a cat pans'") as caught:
        scorer.watch(sample("a cat pans"))
    assert "camera zooms out" in caught.value.hint
    with pytest.raises(ScoreError, match="4, camera_motion needs 5 or more"):
        scorer.watch(sample("camera static", frames=4))


def test_missing_weights_say_where_to_put_them(cache):
    vbench_files.path_of("cotracker").unlink()
    (text,) = [text for need in catalog.find(NAME).needs if (text := need.missing())]
    assert "cotracker_model/cotracker2.pth" in text
    assert str(cache) in text
    with pytest.raises(CheckpointError, match="no such file"):
        catalog.find(NAME).build(DimensionConfig(), NetworkCache())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"updateformer.vis_conf_head.weight": torch.zeros(2)}, "keys of another model"),
        ({"luma.weight": torch.zeros(1, 4, 1, 1)}, "another size"),
        ({"luma.weight": Path("a")}, "cotracker2.pth"),
        (b"no checkpoint", "cotracker2.pth"),
    ],
)
def test_wrong_weights_are_named(cache, content, says):
    path = vbench_files.path_of("cotracker")
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(CheckpointError, match=says) as caught:
        build()
    assert caught.value.where == str(path)
    if says == "keys of another model":
        assert "CoTracker3" in caught.value.hint


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("def cotracker2(", "def cotracker3(", "Cannot find callable cotracker2"),
        ("import torch\n", "import lacks_this\n", "lacks_this"),
        ("", "def cotracker2(:", "invalid syntax"),
        ("*, pretrained=True, **kwargs", "", "unexpected keyword argument"),
        ("return Predictor()", "return torch", "gave module, expected a predictor"),
        ("return Predictor()", "return Network()", "gave Network, expected"),
    ],
)
def test_a_checkout_that_gives_no_tracker_is_named(cache, old, new, says):
    hubconf(old, new)
    with pytest.raises(RunError, match=says) as caught:
        build()
    assert caught.value.where == str(vbench_files.cotracker_checkout())
    assert "facebookresearch/co-tracker" in caught.value.hint


@pytest.mark.parametrize(("given", "says"), [
    ("return tracks[:, 1:], torch.ones", r"gave \(1, 8, 100, 2\), expected tracks of shape \(1, 9, 100, 2\)"),
    ("return tracks[..., 0], torch.ones", r"gave \(1, 9, 100\)"), ("return None, torch.ones", "gave NoneType"),
])  # fmt: skip
def test_tracks_of_another_shape_are_a_wrong_checkout(cache, given, says):
    hubconf(RETURN, given)
    with pytest.raises(RunError, match=says):
        score(build(), clip("static"), "camera static")


def test_tracks_that_are_not_finite_fail_the_video(cache):
    hubconf(RETURN, "tracks[:, 3] = float('nan'); " + RETURN)
    with pytest.raises(ScoreError, match="not finite from frame 3 on"):
        score(build(), clip("static"), "camera static")


# --- the suite

OTHERS = (
    "i2v_subject",
    "i2v_background",
    "subject_consistency",
    "background_consistency",
    "temporal_flickering",
    "motion_smoothness",
    "dynamic_degree",
    "aesthetic_quality",
    "imaging_quality",
)


class Constant:
    """A scorer, and its own watcher, that gives every video one score."""

    def __init__(self, name: str, value: float) -> None:
        self.name, self.value = name, value

    def watch(self, sample: Sample) -> Constant:
        return self

    def see(self, index: int, frame_HWC: Frame) -> None:
        """Looks at nothing."""

    def scores(self) -> dict[str, Score]:
        return {self.name: Score(self.value)}


def constant(name: str, value: float) -> Declaration:
    return Declaration((MetricInfo(name, "up", "0..1", ""),), Config, 1, lambda config, loaded: Constant(name, value))


@pytest.fixture
def astro(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Runs `astro eval vbench-i2v`, every scorer but the camera's giving 0.9."""
    real = catalog.declarations()
    known = {**real, **{name: constant(name, 0.9) for name in OTHERS}}
    monkeypatch.setattr(catalog, "declarations", lambda: known)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["astro", "eval", "vbench-i2v", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return int(caught.value.code or 0), captured.out + captured.err

    return run


@pytest.fixture
def videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five videos of each of four prompts under VBench's names: a pan right as asked, a zoom in where a zoom out is
    asked, and two others.
    """
    background = {"i2v_background", "background_consistency"}
    dimensions_of = {
        "a cat, camera pans right": [NAME],
        "a dog, camera zooms out": [NAME],
        "a cat": sorted({*OTHERS} - background),
        "a lake": [*background],
    }
    (tmp_path / "lists").mkdir()
    rows = [{"prompt_en": prompt, "dimension": dimensions} for prompt, dimensions in dimensions_of.items()]
    (tmp_path / "lists/vbench2_i2v_full_info.json").write_text(json.dumps(rows))
    monkeypatch.setenv("ASTRO_PROMPTS", str(tmp_path / "lists"))
    folder = tmp_path / "videos"
    folder.mkdir()
    for prompt, motion in zip(dimensions_of, ("pan_right", "zoom_in", "static", "static"), strict=True):
        for index in range(5):
            write_mp4(clip(motion, seed=index), folder / f"{prompt}-{index}.mp4", 8)
    return folder


def test_the_whole_suite_has_its_total(cache, astro, videos, tmp_path):
    code, shown = astro(str(videos), "--name", "mine")
    assert code == 0, shown
    lines = (tmp_path / "results/samples/vbench-i2v/camera_motion.jsonl").read_text().splitlines()
    found = {row["video"]: row for row in map(json.loads, lines)}
    assert len(found) == 10  # the other prompts are not shown to it
    assert {row["scores"][NAME] for name, row in found.items() if "pans right" in name} == {1.0}
    assert {row["scores"][NAME] for name, row in found.items() if "zooms out" in name} == {0.0}
    assert all("zoom_in" in row["details"][NAME]["seen"] for name, row in found.items() if "zooms out" in name)
    records = [
        json.loads(line)
        for path in (tmp_path / "results/records").glob("*.jsonl")
        for line in path.read_text().splitlines()
    ]
    by_metric = {record["metric"]: record for record in records}
    assert by_metric[NAME]["scores"] == [100.0, 0.0, None, None]
    # (x - low) / (high - low) of 0.9: subject (0.9 - 0.1462) / 0.8538, background (0.9 - 0.2615) / 0.7385; camera 0.5
    # at a tenth
    i2v = 100 * (0.7538 / 0.8538 + 0.6385 / 0.7385 + 0.1 * 0.5) / 2.1
    assert np.mean([value for value in by_metric["i2v"]["scores"] if value is not None]) == pytest.approx(i2v, abs=0.01)
    assert {"i2v", "quality", "total"} <= by_metric.keys()


def test_without_the_tracker_the_total_is_partial(cache, astro, videos):
    (vbench_files.cotracker_checkout() / "hubconf.py").unlink()
    code, shown = astro(str(videos), "--name", "mine")
    assert code == 3
    assert "not run: camera_motion: needs code: put a checkout of facebookresearch/co-tracker" in " ".join(
        shown.split()
    )


def test_one_lost_video_leaves_the_others(cache, astro, videos):
    hubconf(RETURN, "tracks = tracks / (video.std() > 1e-3); " + RETURN)  # an even picture: 0 / 0
    write_mp4(np.zeros((FRAMES, HEIGHT, WIDTH, 3), np.uint8), videos / "a cat, camera pans right-0.mp4", 8)
    code, shown = astro(str(videos), "--name", "mine", "--metrics", NAME)
    assert code == 3
    assert "partial (9/10)" in shown
    assert "not finite from frame 0 on" in shown


def test_its_config_is_a_dimensions(cache):
    """On VBench-Long's clips it runs, too, and each clip's frames go with its score."""
    declaration = catalog.find(NAME)
    scorer = declaration.build(DimensionConfig(clips="two_seconds"), NetworkCache())
    frames = np.concatenate([clip("pan_right", frames=16), clip("static", frames=16)])
    given = replace(sample("a cat, camera pans right", 32), info=VideoInfo(32, 8.0, WIDTH, HEIGHT))
    watcher = scorer.watch(given)
    for index, frame in enumerate(frames):
        watcher.see(index, frame)
    assert watcher.scores()[NAME].value == 0.5

"""VBench's scorers on DINO and DINOv2 from files in the released layout: likeness to an image, and slow-fast
consistency end to end.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import cosine_similarity

from astro_cli.models.dino import Dino, load_dino
from eval.contract import NetworkCache, Sample, ScoreError, VideoInfo
from eval.metrics.catalog import find
from eval.vbench import vbench_files
from eval.vbench.features import features_of
from eval.vbench.slow_fast import read_table

FPS, SECONDS = 4.0, 6
SIZE = (48, 64)


@pytest.fixture(autouse=True)
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One-layer networks: DINO with patches of 16, DINOv2 with patches of 14, LayerScale and its unused mask token."""
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path / "vbench"))
    torch.manual_seed(0)
    for name, network in (("dino", Dino(64, 1, 16, 14, scaled=False)), ("dinov2", Dino(64, 1, 14, 37, scaled=True))):
        state = {key: torch.randn(value.shape) * 0.3 for key, value in network.state_dict().items()}
        path = vbench_files.path_of(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state | ({"mask_token": torch.zeros(1, 64)} if name == "dinov2" else {}), path)
    return tmp_path


def clip(moving: bool) -> np.ndarray:
    noise = (
        np.random.default_rng(0)
        .integers(0, 255, (*(size // 8 for size in SIZE), 3), dtype=np.uint8)
        .repeat(8, 0)
        .repeat(8, 1)
    )
    return np.stack([np.roll(noise, 6 * index * moving, axis=1) for index in range(int(FPS * SECONDS))])


def score(name: str, frames: np.ndarray, labels: dict | None = None, **config: object):
    declaration = find(name)
    assert not [text for need in declaration.needs if (text := need.missing())]
    scorer = declaration.build(declaration.config(**config), NetworkCache())
    info = VideoInfo(len(frames), FPS, SIZE[1], SIZE[0])
    watcher = scorer.watch(Sample(Path("v.mp4"), "0" * 64, info, "p", "a dog", labels=labels or {}))
    for index, frame in enumerate(frames):
        watcher.see(index, frame)
    return watcher.scores()[name]


def test_a_video_of_its_image_is_all_alike(weights):
    frames = clip(moving=False)
    Image.fromarray(frames[0]).save(weights / "first.png")
    assert score("i2v_subject", frames, {"image": str(weights / "first.png")}).value == pytest.approx(1.0, abs=1e-3)


def test_the_formula_from_its_features(weights):
    """0.4 max cos(image, f_n) + 0.3 mean cos(f_n-1, f_n) + 0.3 min cos(f_n-1, f_n), written out."""
    frames = clip(moving=True)
    Image.fromarray(frames[3]).save(weights / "third.png")
    f = features_of(NetworkCache(), "dino_centre")(frames)
    steps = cosine_similarity(f[1:], f[:-1])
    found = score("i2v_subject", frames, {"image": str(weights / "third.png")}).value
    # frame 3 is the image, read as a file: its cosine is 1 up to the rounding of the resized picture
    assert found == pytest.approx(0.4 + 0.3 * steps.mean().item() + 0.3 * steps.min().item(), abs=2e-3)
    assert found < 0.999


def test_without_its_image_a_video_is_not_scored(weights):
    with pytest.raises(ScoreError, match="image"):
        score("i2v_subject", clip(moving=False), {})


def test_slow_and_fast_are_fused_as_the_packaged_table_says(weights):
    """6 s in clips of 2 s: slow from DINO within the clips, fast from DINOv2 on their first frames (0, 8, 16), half and
    half.
    """
    frames = clip(moving=True)
    alone = score("subject_consistency", frames, clips="two_seconds")
    fused = score("subject_consistency", frames, clips="two_seconds", fast="dinov2")
    firsts = features_of(NetworkCache(), "dinov2")(frames[[0, 8, 16]])
    to_last, to_first = (
        cosine_similarity(firsts[1:], firsts[:-1]),
        cosine_similarity(firsts[1:], firsts[:1].expand(2, -1)),
    )
    fast = ((to_last.clamp_min(0) + to_first.clamp_min(0)) / 2).mean().item()
    assert fused.details["slow"] == pytest.approx(alone.value, abs=1e-6)
    assert fused.details["fast"] == pytest.approx(fast, abs=1e-5)
    mapped = np.interp(fast, *read_table(vbench_files.table("subject_mapping_table.yaml")))
    assert fused.value == pytest.approx(0.5 * alone.value + 0.5 * mapped, abs=1e-4)
    still = score("subject_consistency", clip(moving=False), clips="two_seconds", fast="dinov2")
    assert still.value == pytest.approx(1.0, abs=1e-4)


def test_dinov2_reads_the_released_layout(weights):
    network = load_dino(vbench_files.path_of("dinov2"))
    assert (network.patch, network.grid, len(network.blocks)) == (14, 37, 1)
    assert network(torch.zeros(2, 3, 224, 280)).shape == (2, 64)

"""DreamSim from files in the released layout is the package's own, and what VBench makes of it is vbench's: recordings
in tests/golden.
"""

from __future__ import annotations

from pathlib import Path

import dreamsim_folder
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_networks import sample_of, show

from astro_cli.config.errors import CheckpointError
from eval.contract import NetworkCache, Score
from eval.metrics import background_consistency, i2v_background
from eval.networks import dreamsim, dreamsim_names
from eval.scoring.scorers import configured_scorers
from eval.suites.suite import load_suite
from eval.vbench import vbench_files
from eval.vbench.features import features_of, picture_features, upright
from eval.vbench.long import Long
from eval.vbench.slow_fast import SlowFast, read_table

GOLDEN = load_file(Path(__file__).parents[1] / "golden" / "dreamsim.safetensors")
FRAMES = GOLDEN["frames"].numpy()
LONG_SUITES = ("vbench-long", "vbench-long-custom")


@pytest.fixture
def folder(checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(vbench_files.CACHE_VARIABLE, str(tmp_path / "vbench"))
    monkeypatch.setattr(dreamsim_names, "PACKAGE_CACHE", tmp_path / "cache")
    dreamsim_folder.write(dreamsim_names.folder(), vbench_files.path_of("dino"))
    return dreamsim_names.folder()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    Image.fromarray(FRAMES[2]).save(tmp_path / "start.png")
    return tmp_path / "start.png"


def test_embeddings_are_the_packages(folder: Path, image: Path) -> None:
    loaded = NetworkCache()
    found_ND = features_of(loaded, "dreamsim")(FRAMES)
    torch.testing.assert_close(found_ND, GOLDEN["embeddings"], atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(
        1 - torch.cosine_similarity(found_ND[:-1], found_ND[1:]), GOLDEN["distances"], atol=2e-6, rtol=1e-5
    )
    torch.testing.assert_close(picture_features(loaded, "dreamsim")(image), GOLDEN["picture"], atol=2e-6, rtol=1e-5)


def test_pictures_are_turned_as_their_exif_says(tmp_path: Path) -> None:
    stored = Image.fromarray(FRAMES[2][:20])
    turned = Image.Exif()
    turned[0x0112] = 6  # viewers turn it a quarter clockwise
    stored.save(tmp_path / "a.png", exif=turned)
    with Image.open(tmp_path / "a.png") as picture:
        assert np.array_equal(np.asarray(upright(picture)), np.rot90(FRAMES[2][:20], -1))
    assert np.array_equal(np.asarray(upright(stored)), FRAMES[2][:20])


def test_the_adapter_counts(folder: Path) -> None:
    state = {name: torch.zeros_like(value) for name, value in dreamsim_folder.adapter_state().items()}
    save_file(state, folder / dreamsim_names.WEIGHTS[0])
    assert (features_of(NetworkCache(), "dreamsim")(FRAMES) - GOLDEN["embeddings"]).abs().max() > 0.01


def test_a_bin_adapter_is_read_too(folder: Path) -> None:
    (folder / dreamsim_names.WEIGHTS[0]).unlink()
    torch.save(dreamsim_folder.adapter_state(), folder / dreamsim_names.WEIGHTS[1])
    torch.testing.assert_close(
        features_of(NetworkCache(), "dreamsim")(FRAMES), GOLDEN["embeddings"], atol=2e-6, rtol=1e-5
    )


def test_i2v_background_is_vbenchs(folder: Path, image: Path) -> None:
    assert not [text for need in i2v_background.SCORER.needs if (text := need.missing())]
    scorer = i2v_background.SCORER.build(i2v_background.SCORER.config(), NetworkCache())
    score = show(scorer.watch(sample_of(FRAMES, image=str(image))), FRAMES)["i2v_background"]
    assert score.value == pytest.approx(GOLDEN["i2v_background"].item(), abs=2e-6)
    assert i2v_background.SCORER.reads(sample_of(FRAMES, image=str(image))) == (image,)


class _Slow:
    """Gives every clip the same score, so that the fast part is all there is to see."""

    def watch(self, sample: object) -> _Slow:
        return self

    def see(self, index: int, frame_HWC: np.ndarray) -> None: ...

    def scores(self) -> dict[str, Score]:
        return {"background_consistency": Score(0.9)}


def test_the_fast_score_is_vbenchs_and_mapped_by_the_packaged_table(folder: Path) -> None:
    table = read_table(vbench_files.table(background_consistency.TABLE))
    clips = np.repeat(FRAMES, 4, axis=0)  # 2 s at 2 fps each, so the first frames are FRAMES
    scorer = SlowFast(
        Long(_Slow(), "background_consistency", "two_seconds"), features_of(NetworkCache(), "dreamsim"), table, 0.5
    )
    score = show(scorer.watch(sample_of(clips, fps=2.0)), clips)["background_consistency"]
    assert score.details["fast"] == pytest.approx(GOLDEN["fast"].item(), abs=2e-6)
    assert score.details["fast_mapped"] == pytest.approx(np.interp(GOLDEN["fast"].item(), *table), abs=1e-6)
    assert score.value == pytest.approx((0.9 + score.details["fast_mapped"]) / 2)


@pytest.mark.parametrize("suite", LONG_SUITES)
def test_long_suites_are_slow_fast_and_say_what_that_needs(
    suite: str, checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(vbench_files.CACHE_VARIABLE, str(tmp_path / "none"))
    monkeypatch.setattr(dreamsim_names, "PACKAGE_CACHE", tmp_path / "none")
    wanted = ("subject_consistency", "background_consistency")
    subject, background = configured_scorers(load_suite(suite), metrics=wanted)
    assert any("dinov2_vitb14_pretrain.pth" in text for text in subject.missing)
    assert any(
        f"at {checkpoints / 'dreamsim'}" in text and dreamsim_names.ARCHIVE in text for text in background.missing
    )
    plain = configured_scorers(load_suite(suite), [f"{name}.fast=none" for name in wanted], wanted)
    assert not [text for configured in plain for text in configured.missing if "DreamSim" in text or "dinov2" in text]


def test_the_packages_cache_is_looked_at(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    folder.rename(cache)
    assert dreamsim_names.folder() == cache
    assert len(dreamsim_names.dreamsim_files()) == 4
    assert dreamsim_names.dreamsim_need().missing() == ""


def test_wrong_files_are_refused(folder: Path) -> None:
    adapter, clip, dino = folder / dreamsim_names.WEIGHTS[0], folder / dreamsim_names.CLIP, vbench_files.path_of("dino")
    state = dreamsim_folder.adapter_state()
    save_file({name: value for name, value in state.items() if ".1.model.blocks.1." not in name}, adapter)
    with pytest.raises(CheckpointError, match="lacks 1 of 16 layers"):
        dreamsim.load(dino, folder)
    old = {name: torch.zeros(96, 4, 1) if "lora_B" in name else value for name, value in state.items()}
    save_file(old, adapter)
    with pytest.raises(CheckpointError, match="expected \\(192, 64\\)"):
        dreamsim.load(dino, folder)
    save_file(state, adapter)
    torch.save(
        {
            "state_dict": {
                name: value for name, value in dreamsim_folder.network_state("clip").items() if name != "proj"
            }
        },
        clip,
    )
    with pytest.raises(CheckpointError, match="proj"):
        dreamsim.load(dino, folder)
    torch.save({"state_dict": Path("x")}, clip)  # an object that is no tensor
    with pytest.raises(CheckpointError, match="nothing of it ran"):
        dreamsim.load(dino, folder)


def test_the_package_itself(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own loader on the same folder, where it is installed."""
    package = pytest.importorskip("dreamsim", reason="the dreamsim package is not installed")
    from functools import partial

    from dreamsim.feature_extraction import load_clip_as_dino, load_open_clip_as_dino
    from dreamsim.feature_extraction.vision_transformer import DINOHead, VisionTransformer

    def tiny(depth: int) -> torch.nn.Module:
        norm = partial(torch.nn.LayerNorm, eps=1e-6)
        return VisionTransformer(patch_size=16, embed_dim=64, depth=depth, num_heads=1, qkv_bias=True, norm_layer=norm)

    def hub(repository: str, name: str) -> torch.nn.Module:
        network = tiny(12)
        network.load_state_dict(dreamsim_folder.network_state("dino"))
        return network

    for module in (load_clip_as_dino, load_open_clip_as_dino):
        monkeypatch.setattr(module, "vit_base", lambda patch_size: tiny(2))
    monkeypatch.setattr(torch.hub, "load", hub)
    monkeypatch.setattr(torch.hub, "set_dir", lambda folder: None)
    head = {
        f"module.head.{name}": value
        for name, value in DINOHead(768, 2048).state_dict().items()
        if name.startswith("mlp")
    }
    torch.save(
        {"student": head | {"module.head.last_layer.weight": torch.zeros(2048, 256)}},
        folder / "dino_vitb16_pretrain.pth",
    )
    model, _ = package.dreamsim(pretrained=True, device="cpu", cache_dir=str(folder))
    x_BCSS = torch.rand(2, 3, 224, 224)
    with torch.no_grad():
        ours, theirs = dreamsim.load(vbench_files.path_of("dino"), folder)(x_BCSS), model.embed(x_BCSS)
    torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=1e-5)

"""Our scores are the vbench package's own: random weights in the released files' layout, frames pushed here, files read
by `compute_*` there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from astro_cli.config.errors import CheckpointError
from astro_cli.generate.mp4 import write_mp4
from astro_cli.media.decode import frames, probe
from eval.contract import NetworkCache, Sample
from eval.metrics.catalog import find
from eval.vbench import adapter, networks, vbench_files
from eval.vbench.actions import action_names

pytest.importorskip("vbench")
pytest.importorskip("decord")
VIDEOS = Path(__file__).parents[3] / "shared" / "data" / "videos"
PROMPT, STYLE = "A person is riding a bike", "Van Gogh style"
STYLES = {"appearance_style": {"appearance_style": STYLE}}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    patch = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("cache")
    patch.setenv(vbench_files.CACHE_VARIABLE, str(folder))
    adapter.module("utils").CACHE_DIR = str(folder)
    yield folder
    patch.undo()


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    noise = np.random.default_rng(0).integers(0, 255, (16, 24, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    path = tmp_path_factory.mktemp("videos") / f"{PROMPT}-0.mp4"
    write_mp4([np.roll(noise, 5 * index, axis=1) for index in range(5)], path, 8)
    return path


def put(name: str, content: Any) -> Path:
    path = vbench_files.path_of(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


def state(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return dict(network.state_dict())


def ours(dimension: str, path: Path, loaded: NetworkCache | None = None, backend: str = "av", **config: Any) -> float:
    declaration = find(dimension)
    assert not [text for need in declaration.needs if (text := need.missing())]
    scorer = declaration.build(declaration.config(**config), loaded or NetworkCache())
    labels = {"auxiliary_info": STYLES}
    watcher = scorer.watch(Sample(path, "0" * 64, probe(path), "p", PROMPT, labels=labels))
    for index, frame in frames(path, backend):  # type: ignore[arg-type]
        watcher.see(index, frame)
    value = watcher.scores()[dimension].value
    assert value is not None
    return value


def theirs(dimension: str, path: Path, submodules: Any, folder: Path) -> float:
    info = [{"prompt_en": PROMPT, "dimension": [dimension], "video_list": [str(path)], "auxiliary_info": STYLES}]
    file = folder / "info.json"
    file.write_text(json.dumps(info))
    compute = vars(adapter.module(dimension))[f"compute_{dimension}"]
    return float(compute(str(file), torch.device("cpu"), submodules)[0])


@pytest.mark.skipif(not VIDEOS.is_dir(), reason="the real clips are not in this checkout")
@pytest.mark.parametrize("backend", ["av", "decord"])
def test_flicker_of_the_real_clips(tmp_path: Path, backend: str) -> None:
    clips = sorted(VIDEOS.glob("*.mp4"))
    assert len(clips) == 9
    for clip in clips:
        assert ours("temporal_flickering", clip, backend=backend) == pytest.approx(
            theirs("temporal_flickering", clip, [], tmp_path), abs=1e-6
        )


def archive(name: str, patch: int, embed: int) -> Path:
    """A tiny CLIP in OpenAI's own form, a TorchScript archive."""
    clip = pytest.importorskip("clip.model").CLIP(embed, 224, 1, 64, patch, 77, 49408, 64, 1, 1).eval()
    path = vbench_files.path_of(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.jit.trace(clip, (torch.zeros(1, 3, 224, 224), torch.zeros(1, 77, dtype=torch.int64)), check_trace=False).save(
        str(path)
    )
    return path


def test_clip_dimensions(cache: Path, video: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    small, large = archive("clip_b32", 32, 32), archive("clip_l14", 14, 768)
    put("aesthetic", torch.nn.Linear(768, 1).state_dict())
    loaded = NetworkCache()
    found = theirs("background_consistency", video, [str(small), False], tmp_path)
    assert ours("background_consistency", video, loaded) == pytest.approx(found, abs=1e-5)
    found = theirs("appearance_style", video, {"name": str(small)}, tmp_path)
    assert ours("appearance_style", video, loaded) == pytest.approx(found, abs=1e-5)
    found = theirs("aesthetic_quality", video, [str(large), str(vbench_files.path_of("aesthetic").parent)], tmp_path)
    assert ours("aesthetic_quality", video, loaded) == pytest.approx(found, abs=1e-5)


def test_imaging_quality(cache: Path, video: Path, tmp_path: Path) -> None:
    from pyiqa.archs.musiq_arch import MUSIQ

    torch.manual_seed(0)
    path = put("musiq", state(MUSIQ(pretrained=False)))
    found = theirs("imaging_quality", video, {"model_path": str(path)}, tmp_path)
    assert ours("imaging_quality", video) == pytest.approx(found, abs=1e-6)


def test_motion_smoothness(cache: Path, video: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = put(
        "amt",
        {
            "epoch": 1,
            "state_dict": state(vars(adapter.module("third_party.amt.networks.AMT-S"))["Model"](**networks.AMT_S)),
        },
    )
    config = Path(str(adapter.module("utils").__file__)).parent / "third_party/amt/cfgs/AMT-S.yaml"
    found = theirs("motion_smoothness", video, {"config": str(config), "ckpt": str(path)}, tmp_path)
    assert ours("motion_smoothness", video) == pytest.approx(found, abs=1e-6)


def test_dynamic_degree(cache: Path, video: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = adapter.module("third_party.RAFT.core.raft").RAFT(
        networks.Namespace(small=False, mixed_precision=False, alternate_corr=False)
    )
    path = put("raft", {f"module.{key}": value for key, value in state(network).items()})
    assert ours("dynamic_degree", video) == theirs("dynamic_degree", video, {"model": str(path)}, tmp_path)


def test_human_action(cache: Path, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    vit = adapter.module("third_party.umt.models.modeling_finetune").VisionTransformer

    def tiny(*_: Any, **__: Any) -> torch.nn.Module:
        return vit(
            patch_size=16,
            embed_dim=64,
            depth=1,
            num_heads=1,
            qkv_bias=True,
            norm_layer=lambda width: torch.nn.LayerNorm(width, eps=1e-6),
            num_classes=400,
            all_frames=16,
            tubelet_size=1,
            use_mean_pooling=True,
        )

    network = tiny()
    riding = next(i for i, name in enumerate(action_names()) if name == "riding a bike")
    monkeypatch.setattr(adapter.module("human_action"), "create_model", tiny)
    for bias in (9.0, -9.0):
        network.get_parameter("head.bias").data[riding] = bias
        path = put("umt", state(network))
        assert ours("human_action", video) == theirs("human_action", video, [str(path)], tmp_path) == float(bias > 0)


def test_viclip_dimensions(cache: Path, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    module = adapter.module("third_party.ViCLIP.viclip")
    vision, text = adapter.module("third_party.ViCLIP.viclip_vision"), adapter.module("third_party.ViCLIP.viclip_text")
    monkeypatch.setattr(
        module, "clip_joint_l14", lambda **_: vision.VisionTransformer(224, 14, 64, 1, 1, 64, num_frames=8).eval()
    )
    monkeypatch.setattr(module, "clip_text_l14", lambda **_: text.CLIP_TEXT(64, 32, 49408, 64, 1, 1, 0).eval())
    network = module.ViCLIP(pretrain=None)
    for parameter in network.parameters():
        parameter.data.normal_(0, 0.05)
    path = put("viclip", {"model": state(network)})
    for dimension in ("overall_consistency", "temporal_style"):
        found = theirs(dimension, video, {"pretrain": str(path)}, tmp_path)
        assert ours(dimension, video) == pytest.approx(found, abs=1e-6)


def test_subject_consistency(cache: Path, video: Path) -> None:
    """Their statistic and transform around our DINO, which timm's equals on a square; 16 x 24 patches of 224 x 336."""
    import timm

    torch.manual_seed(0)
    reference = timm.create_model("vit_base_patch16_224.dino", pretrained=False, depth=2).eval()
    put("dino", state(reference))
    network = networks.dino(NetworkCache())
    square = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(network(square), reference.forward_features(square)[:, 0], atol=1e-5, rtol=1e-4)
    statistic = adapter.module("subject_consistency").subject_consistency
    found, _ = statistic(network, [str(video)], torch.device("cpu"), False)
    assert ours("subject_consistency", video) == pytest.approx(found, abs=1e-5)


def test_a_wrong_file_is_refused(cache: Path) -> None:
    put("dino", {"weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"patch_embed.proj.weight"):
        networks.dino(NetworkCache())

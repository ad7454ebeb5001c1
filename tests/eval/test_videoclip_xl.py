"""VideoCLIP-XL and ViCLIP on tiny random weights in their released layouts."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from astro_cli.config.errors import CheckpointError
from eval.contract import NetworkCache, ScoreError
from eval.metrics import videoclip_xl
from eval.networks.opencv_resize import stretch
from eval.networks.pictures import IMAGENET_MEAN, IMAGENET_STD, squeezed_input
from eval.networks.viclip import VICLIP, VIDEOCLIP_XL, VisionEncoder, VisionSizes, load
from tests.tiny_networks import FEATURES, clip_state, put, sample_of, show, viclip_state, video


def xl_state(**other):
    return viclip_state(VIDEOCLIP_XL.vision, VIDEOCLIP_XL.text, 248, two_tables=True, **other)


def scorer_in(folder, **config):
    put(xl_state(), folder / "videoclip_xl" / "VideoCLIP-XL.bin")
    return videoclip_xl.SCORER.build(videoclip_xl.VideoClipConfig(**config), NetworkCache())


def test_vision_tower_is_the_released_one(tmp_path):
    released = pytest.importorskip(
        "vbench.third_party.ViCLIP.viclip_vision", reason="the vbench package is not installed"
    )
    state = viclip_state(VICLIP.vision, VICLIP.text, 32, two_tables=False)
    tower = load(put(state, tmp_path / "ViClip-InternVid-10M-FLT.pth", nest="model"), VICLIP)
    reference = released.VisionTransformer(
        input_resolution=28, patch_size=14, width=64, layers=2, heads=1, output_dim=FEATURES
    ).eval()
    reference.load_state_dict(
        {name.removeprefix(VICLIP.vision): value for name, value in state.items() if name.startswith(VICLIP.vision)}
    )
    for frames in (8, 1):
        x_BTCHW = torch.randn(2, frames, 3, 28, 28, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            theirs = F.normalize(reference(x_BTCHW.transpose(1, 2)), dim=-1)
        torch.testing.assert_close(tower.videos(x_BTCHW), theirs, rtol=0, atol=1e-5)


def test_full_width_has_the_released_names_and_shapes():
    released = pytest.importorskip(
        "vbench.third_party.ViCLIP.viclip_vision", reason="the vbench package is not installed"
    )
    theirs = released.VisionTransformer(
        input_resolution=224, patch_size=14, width=1024, layers=1, heads=16, output_dim=768
    ).state_dict()
    with torch.device("meta"):
        ours = VisionEncoder(VisionSizes(side=224, patch=14, width=1024, layers=1, frames=8, features=768)).state_dict()
    assert ours["temporal_positional_embedding"].shape == (1, 8, 1024)
    assert {name: value.shape for name, value in ours.items()} == {name: value.shape for name, value in theirs.items()}


def test_attention_is_joint_over_space_and_time(tmp_path):
    tower = load(put(xl_state(), tmp_path / "x.bin"), VIDEOCLIP_XL)
    x_BTCHW = torch.randn(1, 8, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    base = tower.videos(x_BTCHW)
    assert (tower.videos(x_BTCHW.flip(1)) - base).abs().max() > 1e-4  # the temporal table tells the order
    still = torch.zeros_like(tower.vision.temporal_positional_embedding)
    tower.vision.temporal_positional_embedding.data.copy_(still)
    torch.testing.assert_close(
        tower.videos(x_BTCHW.flip(1)), tower.videos(x_BTCHW), rtol=0, atol=1e-5
    )  # without it, a set of tokens


def test_score_is_scale_times_cosine_of_eight_frames(checkpoints):
    scorer = scorer_in(checkpoints, scale=10.0)
    frames = video(17)  # 17 // 8 = 2: frames 0, 2, ..., 14
    score = show(scorer.watch(sample_of(frames)), frames)["videoclip_xl"]
    assert score.details["frames"] == [0, 2, 4, 6, 8, 10, 12, 14]
    image = scorer.tower.videos(squeezed_input(frames[:16:2], 28)[None])[0]
    text = scorer.tower.texts(["a red circle"], "cut", "x").features_MD[0]
    assert score.details["cosine"] == pytest.approx((image @ text).item(), abs=1e-6)
    assert score.value == pytest.approx(10 * (image @ text).item(), abs=1e-5)
    assert score.details["scale"] == 10.0
    default = show(scorer_in(checkpoints).watch(sample_of(frames)), frames)["videoclip_xl"]
    assert default.value == pytest.approx(10 * score.value, rel=1e-6)


def test_fewer_than_eight_frames_are_refused(checkpoints):
    with pytest.raises(ScoreError, match="7, VideoCLIP-XL needs 8 or more"):
        scorer_in(checkpoints).watch(sample_of(video(7)))


@pytest.mark.parametrize(
    ("height", "width", "side"), [(480, 832, 224), (36, 61, 28), (28, 28, 28), (56, 56, 28), (20, 24, 28), (90, 50, 56)]
)
def test_frames_are_stretched_as_opencv_does(height, width, side):
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    frames = video(2, height, width)
    theirs = np.stack([cv2.resize(frame, (side, side)) for frame in frames])
    assert np.array_equal(stretch(frames, side), theirs)
    pixels = (theirs.astype(np.float32) / 255 - IMAGENET_MEAN) / IMAGENET_STD
    np.testing.assert_allclose(squeezed_input(frames, side).permute(0, 2, 3, 1).numpy(), pixels, atol=1e-5)


@pytest.mark.parametrize(
    ("state", "layout", "key", "text"),
    [
        (clip_state(), VIDEOCLIP_XL, "vision_model.vision_encoder.conv1.weight", "expected VideoCLIP-XL.bin"),
        (
            viclip_state(VICLIP.vision, VICLIP.text, 32, two_tables=False),
            VIDEOCLIP_XL,
            "vision_model.vision_encoder.conv1.weight",
            "not in the file",
        ),
        (
            viclip_state(VICLIP.vision, VICLIP.text, 77, two_tables=False),
            VICLIP,
            "text_encoder.positional_embedding",
            "77 text positions",
        ),
        (
            {k: v for k, v in xl_state().items() if not k.endswith("encoder.ln_post.bias")},
            VIDEOCLIP_XL,
            "",
            "1 missing (first: ln_post.bias)",
        ),
    ],
)
def test_another_checkpoint_is_refused(tmp_path, state, layout, key, text):
    with pytest.raises(CheckpointError) as caught:
        load(put(state, tmp_path / "x.bin"), layout)
    assert caught.value.key == key
    assert text in caught.value.what


def test_missing_weights_say_where_they_belong(checkpoints):
    (need,) = videoclip_xl.SCORER.needs
    assert str(checkpoints / "videoclip_xl" / "VideoCLIP-XL.bin") in need.missing()
    scorer_in(checkpoints)
    assert need.missing() == ""
    assert videoclip_xl.SCORER.files(videoclip_xl.VideoClipConfig()) == (
        checkpoints / "videoclip_xl" / "VideoCLIP-XL.bin",
    )

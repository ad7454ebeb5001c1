"""The temporal codec: Wan's geometry, causality, streams; and which codec a file of weights is taken for."""

import pytest
import torch

from astro_cli.config.errors import CheckpointError
from astro_cli.core.rng import stream
from astro_cli.models import weights
from astro_cli.models.shapes_backbone import ShapesBackbone, load_shapes_backbone
from astro_cli.shapes.video_codec import VideoCodec, VideoEncoder

FRAMES = torch.rand(2, 13, 3, 32, 32, generator=stream("video-codec"))


@pytest.fixture(scope="module")
def codec() -> VideoCodec:
    """A fitted encoder and a random decoder."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = VideoCodec(width=8)
    made.fit(FRAMES)
    return made.requires_grad_(False)


def test_the_first_frame_is_alone_and_four_follow_in_every_latent(codec):
    latents = codec.encode(FRAMES)
    assert latents.shape == (2, 4, 16, 8, 8)
    assert codec.decode(latents).shape == FRAMES.shape
    assert [codec.num_frames(count) for count in (0, 1, 2, 9)] == [0, 1, 5, 33]
    assert [codec.num_latents(count) for count in (0, 1, 2, 5, 6, 33)] == [0, 1, 2, 2, 3, 9]


@pytest.mark.parametrize("frames", [2, 4, 12])
def test_other_lengths_are_refused(codec, frames):
    with pytest.raises(ValueError, match=f"encodes 4F - 3 frames at the start, found {frames}"):
        codec.encode(FRAMES[:, :frames])
    encoder = VideoEncoder(codec)
    encoder.encode(FRAMES[:, :1])
    with pytest.raises(ValueError, match="encodes 4F frames at a time, found 5"):
        encoder.encode(FRAMES[:, :5])


def test_a_later_frame_changes_no_earlier_latent_and_a_later_latent_no_earlier_frame(codec):
    changed = FRAMES.clone()
    changed[:, 5] = 1 - changed[:, 5]  # the first frame of latent 2
    before, after = codec.encode(FRAMES), codec.encode(changed)
    torch.testing.assert_close(after[:, :2], before[:, :2], rtol=0, atol=0)
    assert (after[:, 2] - before[:, 2]).abs().max() > 1e-3
    shown, other = codec.decode_raw(before), codec.decode_raw(after)
    torch.testing.assert_close(other[:, :5], shown[:, :5], rtol=0, atol=0)
    assert (other[:, 5:9] - shown[:, 5:9]).abs().amax((0, 2, 3, 4)).min() > 1e-4


def test_streams_give_the_bits_of_the_whole(codec):
    latents = codec.encode(FRAMES)
    encoder = VideoEncoder(codec)
    parts = [encoder.encode(part) for part in FRAMES.split((1, 4, 8), dim=1)]
    torch.testing.assert_close(torch.cat(parts, 1), latents, rtol=0, atol=1e-5)
    decoder = ShapesBackbone(codec).decoder()
    frames = [decoder.push(part) for part in latents.split((2, 1, 1), dim=1)]
    assert [part.shape[1] for part in frames] == [5, 4, 4]
    torch.testing.assert_close(torch.cat(frames, 1), codec.decode(latents), rtol=0, atol=1e-5)


def test_streams_of_two_videos_do_not_mix(codec):
    first, second = VideoEncoder(codec), VideoEncoder(codec)
    first.encode(FRAMES[:1, :5])
    second.encode(FRAMES[1:, :5])
    torch.testing.assert_close(first.encode(FRAMES[:1, 5:]), codec.encode(FRAMES[:1])[:, 2:], rtol=0, atol=1e-5)


def test_the_encoder_is_the_worlds_principal_components(codec):
    # orthonormal filters; over the fitted groups the latents have mean 0, variance 1 on average, and are uncorrelated
    flat = codec.filters.flatten(1)
    torch.testing.assert_close(flat @ flat.T, torch.eye(16), rtol=0, atol=1e-5)
    latents = codec.encode(FRAMES)[:, 1:].movedim(2, -1).flatten(0, -2)
    torch.testing.assert_close(latents.mean(0), torch.zeros(16), rtol=0, atol=1e-4)
    covariance = latents.T @ latents / len(latents)
    torch.testing.assert_close(covariance.trace() / 16, torch.tensor(1.0), rtol=1e-3, atol=0)
    assert (covariance - covariance.diag().diag()).abs().max() < 1e-3
    # evened by half: the variance of a channel goes with the square root of its component's
    variance = covariance.diag() * codec.std.flatten() ** 2
    torch.testing.assert_close(
        covariance.diag() / variance.sqrt(), (covariance.diag() / variance.sqrt())[:1].expand(16), rtol=1e-3, atol=0
    )


def test_a_video_that_rests_has_the_first_frames_latent_throughout(codec):
    latents = codec.encode(FRAMES[:, :1].expand(-1, 13, -1, -1, -1))
    torch.testing.assert_close(latents, latents[:, :1].expand_as(latents))


def test_latents_move_with_the_world(codec):
    torch.testing.assert_close(codec.encode(FRAMES.roll(8, -1)), codec.encode(FRAMES).roll(2, -1))


def test_the_backbone_is_that_of_the_codec_in_the_file(tmp_path, codec):
    weights.write(tmp_path / "codec.safetensors", VideoCodec().state_dict())
    video = load_shapes_backbone(str(tmp_path / "codec.safetensors"))
    assert (video.channels, video.num_frames(9), video.num_latents(33)) == (16, 33, 9)
    backbone = ShapesBackbone(codec)
    latents, decoder = codec.encode(FRAMES), backbone.decoder()
    joined = torch.cat([decoder.push(part) for part in latents.split(1, dim=1)], 1)
    torch.testing.assert_close(joined, backbone.decode(latents), rtol=0, atol=1e-5)


def test_clips_that_continue_a_history_are_decoded_after_it(codec):
    backbone, latents = ShapesBackbone(codec), codec.encode(FRAMES)
    past = backbone.decoder().skip(latents[:, :2])
    clips = past.fork(torch.tensor([1, 0])).push(latents[[1, 0], 2:])
    torch.testing.assert_close(clips, backbone.decode(latents)[[1, 0], 5:], rtol=0, atol=1e-5)
    assert backbone.num_frames(2, history=2) == clips.shape[1] == 8
    assert backbone.num_frames(2) == 5


def test_weights_of_another_model_are_no_codec(tmp_path):
    weights.write(tmp_path / "codec.safetensors", {"mean": torch.zeros(5, 1, 1)})
    with pytest.raises(CheckpointError, match="16 latent channels"):
        load_shapes_backbone(str(tmp_path / "codec.safetensors"))

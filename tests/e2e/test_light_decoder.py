"""A light decoder: trained to the codec's pictures, used by astro sample, measured beside the codec's decoder, refused
where it does not belong.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from astro_cli.models import weights
from astro_cli.models.light_decoder import LightNetwork, load_light_decoder
from astro_cli.models.roles import Roles
from astro_cli.models.shapes_backbone import load_shapes_backbone
from astro_cli.objectives.base import Batch, RunContext
from astro_cli.objectives.light_decoder import Config, Objective
from astro_cli.shapes.video_codec import VideoCodec, decoded
from eval.records import store
from tests.command_line import run, set_options

RED = "a large red circle moves right slowly over a gray plain background"
RUN = "runs/light_decoder_shapes-seed0"


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def train(monkeypatch, *sets: str) -> int:
    values = ("stages.light.steps=2", "stages.light.batch=2", "stages.light.data.pool=4", *sets)
    return run(["pretrain", "--recipe", "light_decoder_shapes", *set_options(*values)], monkeypatch)


def run_context(codec: VideoCodec, light: LightNetwork) -> RunContext:
    roles = Roles()
    roles.add("light_decoder", light, trained=True)
    backbone = load_shapes_backbone(empty=True)
    backbone.codec = codec
    return RunContext(
        roles=roles, steps=torch.ones(1), shift=1.0, frames=3, block=3, latent_shape=(16, 2, 2), cache=None,  # type: ignore[arg-type]
        encode_text=lambda prompts: torch.zeros(len(prompts), 1, 1), decoder=backbone.decoder,
    )  # fmt: skip


def clips() -> Batch:
    latents = torch.randn(4, 3, 16, 2, 2, generator=torch.Generator().manual_seed(0)) / 8
    return Batch(seeds=[0, 1, 2, 3], prompts=[""] * 4, latents_BFCHW=latents)


def test_a_decoder_equal_to_the_codecs_has_no_loss():
    torch.manual_seed(0)
    codec = VideoCodec(width=4)
    light = LightNetwork(4, codec)
    light.network = codec.decoder  # type: ignore[assignment]
    loss = Objective(Config(), run_context(codec, light)).loss("light_decoder", clips()).loss
    assert loss.item() == pytest.approx(0, abs=1e-12)  # pictures within [0, 1], which nothing clamps


def test_the_loss_by_hand():
    """Two decoders of constant pictures, .5 and .75: 0.25 squared, whole clips and cut ones."""
    codec = VideoCodec(width=4)
    light = LightNetwork(4, codec)
    for network, value in ((codec.decoder, 0.0), (light.network, 0.5)):
        last: Any = network[-2]
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.constant_(last.bias, value)
    out = Objective(Config(cut=0.5), run_context(codec, light)).loss("light_decoder", clips())
    assert out.loss.item() == pytest.approx(0.0625)
    assert out.metrics["psnr"] == pytest.approx(12.0412, abs=1e-4)  # -10 log10 .0625


def test_latent_by_latent_it_gives_the_frames_of_the_whole_clip():
    torch.manual_seed(0)
    light = LightNetwork(4, VideoCodec(width=4))
    latents = torch.randn(1, 3, 16, 2, 2)
    whole, parts, last = light(latents), [], None
    for latent in latents.split(1, 1):
        parts.append(decoded(light.network, latent, last))
        last = latent
    assert torch.allclose(whole, torch.cat(parts, 1), atol=1e-6)
    assert whole.shape == (1, 9, 3, 8, 8)


def test_it_is_trained_sampled_with_and_measured(monkeypatch, capsys):
    assert train(monkeypatch) == 0
    rows = [json.loads(line) for line in Path(RUN, "metrics.jsonl").read_text().splitlines()]
    assert all(row["light_decoder/psnr"] > 0 for row in rows)
    sample = ["sample", RED, "--weights", "shapes/self_forcing", "--frames", "9"]
    assert run([*sample, "--decoder", RUN], monkeypatch) == 0
    (sidecar,) = (json.loads(path.read_text()) for path in Path("samples").glob("*.json"))
    assert sidecar["decoder"] == "light_decoder.safetensors"
    capsys.readouterr()
    command = ["bench", "decoder", f"{RUN}/final/light_decoder.safetensors", "--prompts", "2", "--results", "results"]
    assert run(command, monkeypatch) == 0
    out = capsys.readouterr().out
    assert "speed-up" in out
    assert "loses" in out
    records = {record.metric: record for record in store.load([Path("results/records/shapes-decoder.jsonl")])}
    assert records["psnr_loss"].direction == "down"
    assert records["psnr_loss"].mean == pytest.approx(records["psnr_codec"].mean - records["psnr"].mean)
    assert records["psnr_loss"].arm == "light_decoder_shapes"
    assert records["speed_up"].mean > 0


def test_what_is_no_light_decoder_of_this_codec_is_refused(monkeypatch, capsys):
    codec = load_shapes_backbone().codec
    light = LightNetwork(4, codec)
    state = light.state_dict()
    weights.write(Path("light.safetensors"), state)
    assert load_light_decoder("light.safetensors", codec).channels == 16
    weights.write(Path("other.safetensors"), state | {"mean": state["mean"] + 1})
    weights.write(Path("none.safetensors"), {"mean": state["mean"]})
    sample = ["sample", RED, "--frames", "1", "--decoder"]
    refusals = {
        "nowhere": "nowhere: --decoder: no such file",
        "other.safetensors": "was trained for another codec",
        "none.safetensors": "missing network.0.weight: no light decoder of this world",
    }
    for name, says in refusals.items():
        assert run([*sample, name], monkeypatch) == 2
        assert says in capsys.readouterr().err
    assert train(monkeypatch, 'backbone="wan"', "model.text_len=512", 'stages.light.data.clips="videos"') == 2
    assert "backbone: found 'wan'" in capsys.readouterr().err
    assert not Path("samples").exists()

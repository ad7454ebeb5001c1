"""CausalWan and its cache against recordings of the released models (tests/golden/PROVENANCE.md), and against diffusers' own module.

Tolerances are those of the recordings: 2e-5 on the velocity given the recorded input, 2e-4 on finished videos.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from astro_cli.cache.kv import CacheSpec, KVCache
from astro_cli.cache.sinks.ema import EmaSink
from astro_cli.core.flow import add_noise, sigma_of, warp_timesteps, x0_from_velocity
from astro_cli.models.wan.config import WanConfig
from astro_cli.models.wan.keys import original_to_diffusers
from astro_cli.models.wan.masks import block_causal_mask, teacher_forcing_mask
from astro_cli.models.wan.transformer import CausalWan

HERE = Path(__file__).parent
FLOW, OUT = 2e-5, 2e-4


def recording(name: str):
    return json.loads((HERE / f"{name}.json").read_text()), load_file(HERE / f"{name}.safetensors")


def config_of(info: dict) -> WanConfig:
    model = info["model"]
    return WanConfig(
        dim=model["dim"], ffn_dim=model["ffn_dim"], num_heads=model["num_heads"], num_layers=model["num_layers"],
        in_channels=model["in_dim"], patch=tuple(model["patch_size"][1:]), freq_dim=model["freq_dim"],
        text_dim=model["text_dim"], text_len=model["text_len"], eps=model["eps"],
    )  # fmt: skip


@pytest.fixture(scope="module")
def model() -> CausalWan:
    info, _ = recording("self_forcing")
    model = CausalWan(config_of(info)).eval().requires_grad_(False)
    model.load_state_dict(original_to_diffusers(load_file(HERE / "weights.safetensors")), strict=True)
    return model


@pytest.fixture(scope="module")
def self_forcing():
    return recording("self_forcing")


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max().item() <= tolerance


@pytest.mark.parametrize(("case", "arguments"), [
    ("mask_global", {"block": 3}), ("mask_local6", {"block": 3, "window": 6}), ("mask_i2v", {"block": 4, "first_frame_alone": True}),
])  # fmt: skip
def test_block_causal_pass(model, self_forcing, case, arguments):
    _, t = self_forcing
    timestep = torch.full((2, 21), 500.0) if case == "mask_i2v" else t["in.t_blocks"]
    mask = block_causal_mask(21, 12, **arguments)
    close(model(t["in.noise"], timestep, model.encode_text(t["in.ctx"]), mask=mask), t[f"{case}.flow"], FLOW)


def test_teacher_forcing_pass(model, self_forcing):
    _, t = self_forcing
    both = torch.cat((t["in.clean"], t["in.noise"]), 1)
    timestep = torch.cat((torch.zeros_like(t["in.t_blocks"]), t["in.t_blocks"]), 1)
    positions = [*range(21), *range(21)]
    flow = model(both, timestep, model.encode_text(t["in.ctx"]), positions=positions, mask=teacher_forcing_mask(21, 12, 3))
    close(flow[:, 21:], t["teacher_forcing.flow"], FLOW)


def test_bidirectional_pass(model, self_forcing):
    _, t = self_forcing
    timestep = t["bidirectional.t"].view(2, -1).expand(2, 21)
    close(model(t["in.noise"], timestep, model.encode_text(t["in.ctx"])), t["bidirectional.flow"], FLOW)


def test_diffusers_module_has_the_same_names_and_outputs(model, self_forcing):
    diffusers = pytest.importorskip("diffusers")
    _, t = self_forcing
    theirs = diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=4, attention_head_dim=16, in_channels=4, out_channels=4, text_dim=24, freq_dim=32,
        ffn_dim=128, num_layers=3, cross_attn_norm=True, qk_norm="rms_norm_across_heads", eps=1e-6,
    ).eval()  # fmt: skip
    theirs.load_state_dict(model.state_dict(), strict=True)
    timestep = t["bidirectional.t"].flatten()[:2]
    with torch.no_grad():
        expected = theirs(t["in.noise"].transpose(1, 2), timestep, t["in.ctx"]).sample.transpose(1, 2)
    ours = model(t["in.noise"], timestep[:, None].expand(2, 21), model.encode_text(t["in.ctx"]))
    close(ours, expected, FLOW)


CACHE_CASES = [
    ("self_forcing", "kv_global"), ("self_forcing", "kv_win9"), ("self_forcing", "kv_win6_sink3"),
    ("longlive", "ll"), ("reward_forcing", "ema_0.999"), ("reward_forcing", "ema_0.9"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "case"), CACHE_CASES)
def test_cached_generation(model, self_forcing, source, case):
    _, inputs = self_forcing
    info, t = recording(source)
    rule = info["cases"][case]
    spec = CacheSpec(rule["window"], rule["sink"], relative=rule["keys"] == "unroped_relative")
    policy = EmaSink(rule["alpha"]) if rule["policy"] == "ema" else None
    cache = KVCache(layers=3, batch=2, heads=4, head_dim=16, grid=(3, 4), spec=spec, max_frames=21, policy=policy)
    text, steps = model.encode_text(inputs["in.ctx"]), inputs["in.warped"]
    video, worst = [], 0.0
    for block in range(7):
        x = inputs["in.noise"][:, block * 3 : block * 3 + 3]
        for index, step in enumerate(steps):
            timestep = step.expand(2, 3)
            recorded = t.get(f"{case}.b{block}.s{index}.x_t", x)
            plan = cache.begin(block * 3, 3, write=True)
            flow = model(recorded, timestep, text, positions=plan.positions, cache=plan)
            if f"{case}.b{block}.s{index}.flow" in t:
                worst = max(worst, (flow - t[f"{case}.b{block}.s{index}.flow"]).abs().max().item())
            x0 = x0_from_velocity(recorded, flow, sigma_of(timestep))
            if index + 1 < len(steps):
                x = add_noise(x0, inputs["in.renoise"][block, index], sigma_of(steps[index + 1].expand(2, 3)))
        plan = cache.begin(block * 3, 3, write=True)
        model(x0, torch.zeros(2, 3), text, positions=plan.positions, cache=plan, context_only=True)
        video.append(x0)
    assert worst <= FLOW
    close(torch.cat(video, 1), t[f"{case}.out"], OUT)
    for layer in (0, 2):
        k, v = cache.chronological(layer)
        for name, found in (("k", k), ("v", v)):
            expected = t[f"{case}.cache_{name}.{layer}"]
            found = found.transpose(1, 2).reshape(expected.shape) if found.numel() == expected.numel() else found.transpose(1, 2)
            close(found[:, : expected.shape[1]], expected, OUT)


def test_warped_steps(self_forcing):
    _, t = self_forcing
    assert torch.allclose(warp_timesteps((1000, 750, 500, 250), 5.0).float(), t["in.warped"], atol=1e-3)

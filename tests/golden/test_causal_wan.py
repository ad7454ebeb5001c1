"""CausalWan, its cache and the streaming engine against recordings of the released models (PROVENANCE.md), and against
diffusers' own module.

Tolerances are those of the recordings: 2e-5 on the velocity given the recorded input, 2e-4 on finished videos and on
the cache.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from astro_cli.core.flow import warp_timesteps
from astro_cli.rollout.parity import replay
from astro_cli.rollout.recording import Recording, read_folder

HERE = Path(__file__).parent
RECORDINGS = {recording.path.stem: recording for recording in read_folder(HERE)}
CASES = [(source, case) for source, recording in RECORDINGS.items() for case in recording.info.cases]
COMPARED = {
    "mask": ["flow"],
    "teacher_forcing": ["flow"],
    "bidirectional": ["flow"],
    "cache": ["flow", "out", "cache", "counts"],
}


@pytest.fixture(scope="module")
def self_forcing() -> Recording:
    return RECORDINGS["self_forcing"]


def test_all_cases_of_the_three_releases_are_here():
    assert len(CASES) == 13
    assert ("longlive", "ll_switch_new_sink") in CASES


@pytest.mark.parametrize(("source", "case"), CASES)
def test_recording(source, case):
    result = replay(RECORDINGS[source], case)
    assert [check.quantity for check in result.checks] == COMPARED[RECORDINGS[source].info.cases[case].kind]
    assert result.passed, result


@pytest.mark.parametrize(("source", "case"), [("longlive", "ll_switch_new_sink"), ("reward_forcing", "ema_0.999")])
def test_bfloat16_stays_close(source, case):
    """bfloat16 keeps 8 bits: errors of 0.03 to 0.05 on values of order 1; below 1e-3 it would not have been
    bfloat16.
    """
    result = replay(RECORDINGS[source], case, dtype=torch.bfloat16)
    assert result.passed, result
    assert result.checks[0].error > 1e-3


@torch.no_grad()
def test_diffusers_module_has_the_same_names_and_outputs(self_forcing):
    diffusers = pytest.importorskip("diffusers")
    model, t = self_forcing.network(torch.device("cpu"), torch.float32), self_forcing.tensors
    theirs = diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=4,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        text_dim=24,
        freq_dim=32,
        ffn_dim=128,
        num_layers=3,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        eps=1e-6,
    ).eval()
    theirs.load_state_dict(model.state_dict(), strict=True)
    timestep = t["bidirectional.t"].flatten()[:2]
    expected = theirs(t["in.noise"].transpose(1, 2), timestep, t["in.ctx"]).sample.transpose(1, 2)
    ours = model(t["in.noise"], timestep[:, None].expand(2, 21), model.encode_text(t["in.ctx"]))
    assert (ours - expected).abs().max().item() <= 2e-5


def test_warped_steps(self_forcing):
    assert torch.allclose(
        warp_timesteps((1000, 750, 500, 250), 5.0).float(), self_forcing.tensors["in.warped"], atol=1e-3
    )

"""What a change of prompt does to a video: every measure by hand, its limits, and the gate as training has it."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from astro_cli.generate.arm import load_arm
from astro_cli.shapes.grammar import parse
from astro_cli.shapes.render import random_layout, render
from eval.world import gate, long_scores, shapes_interactive
from eval.world.gate import Deltas
from eval.world.shapes_interactive import HEADS, direction_imbalance, gate_drops, latent_paths, prior_share, prompt_set


def shown(**values: int) -> SimpleNamespace:
    """What the oracle saw of one clip; where nothing is said, no value of the prior's head."""
    return SimpleNamespace(**{name: torch.tensor([values.get(name, head + 1)]) for name, head in HEADS.items()})


def test_the_share_that_turns_into_the_prior_by_hand():
    # of colour, size and background one becomes the head; the texture was the head before and does not count
    before, after = shown(texture=HEADS["texture"]), shown(color=HEADS["color"])
    assert prior_share(before, after).item() == pytest.approx(1 / 3)
    assert prior_share(shown(), shown()).item() == 0.0
    assert math.isnan(prior_share(shown(**HEADS), shown()).item())


def test_the_gate_falls_where_rho_jumps():
    """Chunks from 9, 15, 21 and 27, the switch at 21. mu is the 90 % quantile of the calm ones, where w is .5."""
    rho = torch.linspace(0, 1, 16).reshape(4, 4)
    calm = Deltas(rho.flip(1), torch.zeros(4, 4), (9, 15, 21, 27))
    jumps = Deltas(rho.clone(), torch.zeros(4, 4), (9, 15, 21, 27))
    jumps.rho_BK[:, 2] = 1.1
    assert jumps.calm(21).tolist() == pytest.approx(rho[:, [0, 1, 3]].flatten().tolist())
    drops = gate_drops({"event": [jumps], "restated": [calm]}, 21)
    mu, s = gate.threshold(torch.cat([jumps.calm(21), calm.calm(21)]))
    before, after = (1 / (1 + math.exp(s * (value - mu))) for value in (rho[0, 1].item(), 1.1))
    assert drops["gate_drop_biased"][0] == pytest.approx(before - after, abs=1e-6)
    assert min(drops["gate_drop_biased"]) > 0.3
    assert max(drops["gate_drop_neutral"]) <= 0  # rho falls there


def test_the_path_of_latents_by_hand():
    # two events of two frames each at -1 and +1 of every entry: no spread, one step of RMS 2
    latents = torch.tensor([-1.0, -1.0, 1.0, 1.0])[None, :, None, None, None].expand(1, 4, 2, 3, 3)
    found = latent_paths(latents, 2, 1)
    assert found["within_event_spread"].item() == pytest.approx(0.0, abs=1e-6)
    assert found["cross_event_step"].item() == pytest.approx(2.0)


def clip(prompt: str, frames: int = 33) -> torch.Tensor:
    scenes = [parse(prompt)]
    return render(scenes, random_layout(scenes, [torch.Generator().manual_seed(0)]), frames)


@pytest.mark.parametrize(
    ("motion", "imbalance"), [("stays still", 0.0), ("moves left slowly", 1.0), ("moves up slowly", 1.0)]
)
def test_one_sided_drift_is_an_imbalance(motion, imbalance):
    frames = clip(f"a large red circle {motion} over a black plain background")
    assert direction_imbalance(frames).item() == pytest.approx(imbalance, abs=0.05)


def test_entries_leave_out_what_the_prior_would_fill_in():
    entries = [entry.split(" | ") for entry in prompt_set(12)]
    assert prompt_set(4) == prompt_set(12)[:4]
    for first, biased, restated, still in entries:
        one, event, full, resting = map(parse, (first, biased, restated, still))
        spec = one.objects[0]
        assert spec.color != "red"
        assert spec.size != "large"
        assert one.background != "gray"
        assert (event.objects[0].color, event.objects[0].size, event.background) == (None, None, None)
        assert event.objects[0].motion == full.objects[0].motion != spec.motion
        assert (full.objects[0].color, full.objects[0].size) == (spec.color, spec.size)
        assert resting.objects[0].motion.kind == "still"


def test_a_teacher_that_agrees_moves_with_the_student(monkeypatch):
    """rho is 0 where the teacher's estimate is the student's chunk, and the gate is one and the same everywhere."""
    arm = load_arm("shapes/longlive")
    monkeypatch.setattr(gate, "_estimate", lambda arm, teacher, window, *others: window)
    plan = gate.plan_of(arm, 3)
    latents = torch.randn(2, plan.end, *arm.latent_shape, generator=torch.Generator().manual_seed(0))
    moved = gate.deltas(arm, gate.teacher_of(arm), latents, (["a"] * 2, ["b"] * 2), plan.starts()[2], [0, 1])
    assert moved.starts == tuple(plan.starts()[1:])
    assert moved.rho_BK.abs().max() < 1e-5
    assert (moved.continuity_BK > 0).all()
    assert torch.allclose(moved.gates(0.5, 4.0), torch.tensor(0.880797, dtype=torch.float64), atol=1e-4)  # sigmoid(2)


def test_each_chunk_is_judged_under_the_prompt_that_it_has(monkeypatch):
    arm, prompts = load_arm("shapes/longlive"), []
    monkeypatch.setattr(gate, "_estimate", lambda arm, teacher, window, text, *others: prompts.append(text) or window)
    plan = gate.plan_of(arm, 4)
    latents = torch.zeros(1, plan.end, *arm.latent_shape)
    gate.deltas(arm, gate.teacher_of(arm), latents, (["one"], ["two"]), plan.starts()[2], [0])
    assert prompts == [["one"], ["one"], ["two"], ["two"]]


def test_drift_is_the_sample_deviation_in_points():
    # 0.2, 0.4, 0.6: deviation 0.2
    assert long_scores.drift(torch.tensor([[0.2, 0.4, 0.6], [0.5, 0.5, 0.5]])).tolist() == pytest.approx([20.0, 0.0])
    assert math.isnan(long_scores.drift(torch.tensor([[0.3]])).item())


def test_clips_of_two_seconds_are_judged():
    frames = clip("a large red circle stays still over a black plain background", 40)
    frames[:, 16:32] = frames[:, 16:32].mean((3, 4), keepdim=True)  # nothing to see
    quality = long_scores.clip_qualities(frames, 8.0, 1.0)
    assert quality.shape == (1, 2)
    assert quality[0, 0] > quality[0, 1] + 0.3


def test_a_background_that_stays_is_consistent_and_one_that_fades_is_not():
    # four fitted backgrounds a tenth brighter each: to the first .1, .2, .3, to the previous .1
    steps = torch.tensor([0.0, 0.1, 0.2, 0.3])[None, :, None, None, None].expand(1, 4, 3, 2, 2)
    first = sum(math.exp(-value / 0.15) for value in (0.1, 0.2, 0.3)) / 3
    expected = (first + math.exp(-0.1 / 0.15)) / 2
    assert long_scores.background_consistency(steps).item() == pytest.approx(expected)
    frames = clip("a small blue square moves left fast over a gray checkered background")
    steady = long_scores.background_consistency(long_scores.backgrounds(frames))
    fading = long_scores.background_consistency(
        long_scores.backgrounds(frames * torch.linspace(1, 0.4, 33)[:, None, None, None])
    )
    assert steady > 0.9 > fading + 0.1


def test_the_protocol_names_phi_and_the_gates_level():
    arm = load_arm("shapes/longlive")
    protocol = shapes_interactive.protocol(arm)
    assert (protocol["phi"], protocol["gate_sigma"]) == ("codec", 0.5)
    assert protocol["switch_latent"] % arm.card["video"]["block"] == 0
    assert 0 < protocol["switch_latent"] < shapes_interactive.num_frames(arm)

"""The oracle's structural stability by hand, and the suites of structure and of flow of the embedded world."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from astro_cli.models.shapes_backbone import ShapesBackbone
from astro_cli.shapes.flow import exact_flow
from astro_cli.shapes.grammar import parse
from astro_cli.shapes.render import GRID
from astro_cli.shapes.structure import iou, off_path, pan_residual, structural_stability
from astro_cli.shapes.video_codec import VideoCodec
from astro_cli.training.sources import layout_of, render_scenes
from eval.world import shapes_flow, shapes_structure
from eval.world.suites import FALLS

TEXT = "a large red circle moves right slowly over a gray striped background"


def test_the_overlap_with_a_template_by_hand():
    # template 1 1 0 0; frames 1 1 0 0 (IoU 1) and 1 0 1 0 (one of three cells)
    template = torch.tensor([[[[1.0, 1.0, 0.0, 0.0]]]])
    frames = torch.tensor([[[[1.0, 1.0, 0.0, 0.0]], [[1.0, 0.0, 1.0, 0.0]]]])
    assert iou(frames, template).item() == pytest.approx((1 + 1 / 3) / 2)


def test_a_lone_jump_is_off_the_path_and_a_bounce_is_not():
    steady = torch.stack((torch.arange(9.0) * 3 % 32, torch.full((9,), 5.0)), 1)[None]
    torch.testing.assert_close(off_path(steady), torch.zeros(1, 9, 2))
    jumped = steady.clone()
    jumped[0, 4, 0] += 3
    expected = torch.zeros(1, 9, 2)
    expected[0, 4, 0] = -3
    torch.testing.assert_close(off_path(jumped), expected)
    bounce = torch.tensor([0.0, 2, 4, 6, 8, 6, 4, 2, 0, 2, 4])[None, :, None].expand(1, -1, 2)
    torch.testing.assert_close(off_path(bounce), torch.zeros(1, 11, 2))
    assert off_path(steady[:, :4]).abs().max() == 0


def test_a_panning_pattern_leaves_nothing_and_a_jumping_one_does():
    wave = torch.where(torch.arange(32) % 8 < 4, 0.5, 0.3).expand(32, -1)
    panning = torch.stack([wave.roll(-step, -1) for step in range(6)])[None]
    assert pan_residual(panning).item() == pytest.approx(0, abs=1e-5)
    flipped = torch.stack([wave.roll(4 * (step // 3), -1) for step in range(6)])[None]
    assert 0.05 < pan_residual(flipped).item() < 0.1  # at rest .1, half a depth of .2; no pan explains all of it


@pytest.mark.parametrize("camera", ["", " while the camera pans left"])
def test_renders_are_stable_and_broken_clips_are_not(camera):
    good = render_scenes([parse(TEXT + camera)], [3], 9)
    swelling, jumping, collapsing = good.clone(), good.clone(), good.clone()
    swelling[:, 5:] = render_scenes([parse(TEXT.replace("large", "small") + camera)], [3], 9)[:, 5:]
    jumping[:, 4] = good[:, 4].roll(8, -2)
    collapsing[:, 5:] = (good[:, 5:] + 0.15).clamp(0, 1)
    best, *others = structural_stability(torch.cat((good, swelling, jumping, collapsing))).tolist()
    assert best > 0.9
    assert max(others) < 0.95 * best


def test_prompts_of_structure_come_in_pairs_that_differ_in_the_camera():
    prompts = shapes_structure.prompt_set(6)
    assert shapes_structure.prompt_set(4) == prompts[:4]
    for panned, rest in zip(prompts[::2], prompts[1::2], strict=True):
        assert panned.startswith(rest + " while the camera pans ")


def test_the_suite_of_structure_scores_each_camera_by_itself():
    def generate(prompts: list[str], seeds: list[int], frames: int) -> torch.Tensor:
        assert seeds[0] == seeds[1]  # a pair has the same noise
        return render_scenes([parse(prompt) for prompt in prompts], [5] * len(prompts), frames)

    backbone = SimpleNamespace(decode=lambda clips: clips)
    arm = SimpleNamespace(backbone=backbone, card={"video": {"frames": 9}}, generate=generate)
    scores = shapes_structure.evaluate(arm, 0, shapes_structure.prompt_set(4), lambda done, total: None)  # type: ignore[arg-type]
    assert [value is None for value in scores["structural_stability"]] == [False, True, False, True]
    assert [value is None for value in scores["structural_stability_rest"]] == [True, False, True, False]


def test_an_estimator_that_is_right_has_no_error_and_another_its_own():
    scene, clip = parse(TEXT), render_scenes([parse(TEXT)], [3], 3)[0]
    exact = exact_flow([scene], layout_of([scene], [3]), 3)[0]
    size = (32 + 2 * shapes_flow.RIM) * shapes_flow.LARGER
    still = lambda first, second: np.zeros((2, size, size), np.float32)  # noqa: E731
    errors = shapes_flow.flow_errors(clip, torch.zeros_like(exact), still)
    assert errors == {"epe": 0, "over_1px": 0, "over_3px": 0, "f1_all": 0}
    moving = (exact.norm(dim=1) > 0).double()  # the object's pixels, each off by its step of 1.5 or so
    errors = shapes_flow.flow_errors(clip, exact, still)
    assert errors["over_1px"] == pytest.approx(100 * moving.mean().item())
    assert errors["epe"] == pytest.approx(exact.norm(dim=1).mean().item(), rel=1e-5)
    assert errors["over_3px"] == 0


def test_the_suite_of_flow_decodes_renders_of_its_own(monkeypatch):
    shown = []
    codec = VideoCodec(width=8).requires_grad_(False)
    arm = SimpleNamespace(backbone=ShapesBackbone(codec), card={"video": {"frames": 2}})
    arm.backbone.decode = lambda latents: shown.append(latents) or torch.full((len(latents), 5, 3, 32, 32), 0.5)
    monkeypatch.setattr(shapes_flow, "dis", lambda: lambda first, second: np.zeros((2, *first.shape[:2]), np.float32))
    prompts = shapes_flow.prompt_set(3)
    scores = shapes_flow.evaluate(arm, 1, prompts, lambda done, total: None)  # type: ignore[arg-type]
    assert [len(values) for values in scores.values()] == [3, 3, 3, 3]
    assert shown[0].shape == (3, 2, 16, 8, 8)
    assert set(shapes_flow.METRICS) <= FALLS
    assert codec.world is GRID

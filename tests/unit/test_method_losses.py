"""Losses in parts, and the moving average of the role that they update."""

from __future__ import annotations

import importlib
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from astro_cli.models import lora
from astro_cli.objectives.base import Batch, LossOutput
from astro_cli.training.build import build, make_accelerator
from astro_cli.training.optim import Ema
from astro_cli.training.rundir import RunDir
from astro_cli.training.trainer import Trainer, Unwatched
from tests.probe_runs import CPU, train


def test_a_loss_in_two_parts_gives_the_gradient_of_the_sum(probe):
    results = []
    for parts in (False, True):
        run_context, backbone = build(probe(), CPU)
        objective = importlib.import_module("astro_cli.objectives.probe")
        method = objective.Objective(objective.Config(parts=parts), run_context)
        trainer = Trainer(
            probe(), run_context, backbone, RunDir(Path("unused")), make_accelerator(probe()), Unwatched()
        )
        x = torch.randn(1, 3, *run_context.latent_shape, generator=torch.Generator().manual_seed(0))
        batch = Batch([0], [""], text_BMD=run_context.encode_text([""]), latents_BFCHW=x)
        lora.adapter_state(run_context.roles.modules["student"], "default")[
            "blocks.0.attn1.to_q.lora_B.weight"
        ].data += 0.1  # away from ref
        out = trainer._back_propagate(method, "student", batch, 1)
        results.append((out, {name: p.grad for name, p in run_context.roles.trainable("student")}))
    (whole, gradient), (parted, sum_of_parts) = results
    assert parted["loss"] == pytest.approx(whole["loss"], rel=1e-6)
    assert parted["terms"] == 2.0  # the mean of 1 and 3
    assert max(g.abs().max().item() for g in gradient.values()) > 1e-6
    for name, g in gradient.items():
        assert torch.allclose(sum_of_parts[name], g, rtol=1e-4, atol=1e-9), name


def test_each_part_is_back_propagated_and_freed_before_the_next(probe):
    """Gradients of w at each part: d(w)/dw = 1, then 1 + d(2 w)/dw = 3; the first graph is gone when the second is
    built.
    """
    recipe = probe()
    run_context, backbone = build(recipe, CPU)
    w, seen, freed = torch.nn.Parameter(torch.ones(())), [], []

    def losses():
        part = w * 1.0
        kept = weakref.ref(part)
        yield LossOutput(part)
        del part
        seen.append(w.grad.item())
        freed.append(kept() is None)
        yield LossOutput(w * 2.0)

    trainer = Trainer(recipe, run_context, backbone, RunDir(Path("unused")), make_accelerator(recipe), Unwatched())
    out = trainer._back_propagate(SimpleNamespace(loss=lambda role, micro: losses()), "student", None, 1)
    assert (seen, freed, w.grad.item()) == ([1.0], [True], 3.0)
    assert out == {"loss": 3.0}


def test_the_moving_average_takes_in_the_updates_of_its_role_only(probe, tmp_path, monkeypatch):
    """Two updates of the student in four steps: the average keeps .9^2 of the start, not .9^4."""
    taken: list[tuple[int, dict[str, torch.Tensor]]] = []
    real = Ema.update

    def update(ema: Ema, updates: int) -> None:
        taken.append((updates, {name: p.detach().clone() for name, p in ema.named}))
        real(ema, updates)

    monkeypatch.setattr(Ema, "update", update)
    recipe = probe("stages.probe.ema.decay=0.9", "stages.probe.optim.student.every=2")
    trainer = train(recipe, tmp_path / "run")
    start = dict(build(recipe, CPU)[0].roles.trainable("student"))
    final = dict(trainer.run_context.roles.trainable("student"))
    assert [updates for updates, _ in taken] == [0, 1]
    assert max((taken[1][1][name] - p).abs().max().item() for name, p in start.items()) > 1e-3  # it moved
    for name, value in final.items():
        expected = 0.81 * start[name] + 0.09 * taken[0][1][name] + 0.1 * taken[1][1][name]
        assert torch.allclose(value, expected, atol=1e-6)

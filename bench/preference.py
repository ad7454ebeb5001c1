"""What DPO's gradient costs computed three ways, as ratios from one run on the embedded teacher: memory and seconds.

Bytes are those saved for backward at a time, seconds CPU seconds of forwards and backwards; the ways take turns and the
medians of the repeats are compared. The gap is the relative difference of all gradients from the joint ones, float32.
"""

from __future__ import annotations

from functools import partial

import torch

from astro_cli.objectives import dpo
from astro_cli.objectives.base import Batch, RunContext
from astro_cli.recipe import load_recipe, resolve_kind
from astro_cli.spec import PERTURBED, FormSpec
from astro_cli.training.build import build
from astro_cli.training.memory import SavedTensors
from astro_cli.training.rendered_pairs import RenderedPairs
from bench.turns import medians

SIZE, REPEATS = 4, 3
WAYS = ("joint", "decoupled", "decoupled_recompute")


def _pairs() -> tuple[RunContext, Batch, dpo.Config]:
    """A policy a little off its reference, and pairs of rendered clips."""
    recipe = load_recipe("dpo_temporal_shapes")
    run_context, backbone = build(recipe, torch.device("cpu"))
    rng, video = torch.Generator().manual_seed(0), recipe.video
    for _, parameter in run_context.roles.trainable("student"):
        parameter.data += 0.01 * torch.randn(parameter.shape, generator=rng)
    form = FormSpec(frames=video.frames, height=video.height, width=video.width)
    made = RenderedPairs(0, backbone, form, {PERTURBED[0]: SIZE}, 0.0, lambda what, done, total: None)
    pairs, seeds = made.pairs(list(range(SIZE)), [PERTURBED[0]] * SIZE), list(range(SIZE))
    batch = Batch(
        seeds,
        pairs.prompts,
        backbone.encode_text(pairs.prompts),
        pairs.chosen,
        rejected_BFCHW=pairs.rejected,
        pair_kind_B=torch.zeros(SIZE, dtype=torch.long),
    )
    config = resolve_kind("objectives", recipe.stages["dpo"].objective, "dpo")
    assert isinstance(config, dpo.Config)
    return run_context, batch, config


def _gradient(run_context: RunContext, batch: Batch, config: dpo.Config, way: str) -> tuple[torch.Tensor, int]:
    """All gradients of one step, and the most bytes saved for backward at a time."""
    objective = dpo.Objective(config.model_copy(update={"gradient": way}), run_context)
    parameters, saved = [p for _, p in run_context.roles.trainable("student")], SavedTensors()
    for parameter in parameters:
        parameter.grad = None
    losses = objective.loss("student", batch)
    while True:
        with saved.counting(run_context.roles.modules["student"].parameters()):
            out = next(losses, None)
        if out is None:
            break
        out.loss.backward()
        del out
    return torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]), saved.peak


def rows() -> list[tuple[str, str, str]]:
    """(measure, value, what is divided by what) of everything here."""
    here = _pairs()
    measured = {way: _gradient(*here, way) for way in WAYS}
    seconds = medians({way: partial(_gradient, *here, way) for way in WAYS}, REPEATS)
    (joint, joint_bytes), joint_seconds = measured["joint"], seconds["joint"]
    table = []
    for way in WAYS[1:]:
        gradient, size = measured[way]
        gap = ((gradient - joint).norm() / joint.norm()).item()
        memory = f"saved for backward {size / 2**20:.0f} MiB / joint {joint_bytes / 2**20:.0f} MiB, {SIZE} pairs"
        table += [
            (f"memory: {way}", f"{size / joint_bytes:.3f}", memory),
            (f"time: {way}", f"{seconds[way] / joint_seconds:.2f}", f"{seconds[way]:.2f} s / {joint_seconds:.2f} s"),
            (f"gradient: {way}", f"{gap:.1e}", "|difference from joint| / |joint|"),
        ]
    return table

"""What Astrolabe's memory-efficient RL saves, as ratios from one run on the embedded world: shared history, detached
clips, rewards beside the next rollout.

Seconds are CPU seconds unless they are called wall seconds. The two sides of a ratio take turns; the medians of the
repeats are compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar
from unittest import mock

import torch

from astro_cli.cache.kv import CacheSpec
from astro_cli.core.background import Background
from astro_cli.core.credit import Term
from astro_cli.core.rng import stream_seed
from astro_cli.models.backbone import Backbone
from astro_cli.objectives.base import Batch, Objective, RunContext
from astro_cli.recipe import load_recipe, resolve_kind
from astro_cli.rewards.embedded import embedded_reward
from astro_cli.rollout.grouped import decode_candidates, sample_history
from astro_cli.rollout.streaming import StreamSpec, stream
from astro_cli.training import clips
from astro_cli.training.build import build, objectives
from astro_cli.training.memory import SavedTensors
from bench.turns import medians

T = TypeVar("T")
GROUP, CHUNKS, REPEATS = 8, 9, 3  # candidates of a prompt; blocks of history
PROMPT = "a large red circle moves right slowly over a gray plain background"
CPU = torch.device("cpu")
SCHEMES = ("seq_full", "seq_detach", "clip_full", "clip_detach")


@torch.no_grad()
def shared_history(blocks: int) -> dict[str, float]:
    """Seconds for GROUP clips of `blocks` blocks after CHUNKS blocks: one history for all, and GROUP whole rollouts in
    one batch.
    """
    run_context, backbone = build(load_recipe("astrolabe_clip_detach_shapes"), CPU)
    spec = StreamSpec(run_context.steps, run_context.block, run_context.latent_shape, CacheSpec())
    text, rows = backbone.encode_text([PROMPT]), torch.zeros(GROUP, dtype=torch.long)
    start, clip, seeds = CHUNKS * run_context.block, blocks * run_context.block, list(range(GROUP))
    with run_context.roles.use("old") as policy:
        states = policy.encode_text(text)

        def shared() -> object:
            _, history = sample_history(policy, states, [1], spec, start)
            return decode_candidates(policy, states.select(rows), seeds, spec, history, rows, start, clip)

        return medians(
            {
                "shared": shared,
                "apart": lambda: list(stream(policy, states.select(rows), seeds, spec, start + clip)),
            },
            REPEATS,
        )


def _objective(recipe_name: str) -> tuple[Objective, RunContext, Backbone]:
    recipe = load_recipe(recipe_name)
    run_context, backbone = build(recipe, CPU)
    return (
        objectives(recipe)[0](resolve_kind("objectives", recipe.stages["nft"].objective, "nft"), run_context),
        run_context,
        backbone,
    )


def _batch(run_context: RunContext, backbone: Backbone, history: int, frames: int, size: int) -> Batch:
    """Random clean clips of one prompt, on a random history of `history` frames."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(size, history + frames, *run_context.latent_shape, generator=generator)
    seeds = [stream_seed("bench", row) for row in range(size)]
    return Batch(
        seeds,
        [PROMPT] * size,
        text_BMD=backbone.encode_text([PROMPT] * size),
        latents_BFCHW=latents[:, history:],
        credit=(Term(torch.linspace(-1, 1, size)),),
        history_PFCHW=latents[:1, :history] if history else None,
        group_B=torch.zeros(size, dtype=torch.long),
        group_seeds=[seeds[0]] * size,
        risk_B=torch.ones(size),
    )


def saved_bytes(scheme: str, frames: int, clip: int = 9, size: int = 4) -> int:
    """Bytes of tensors saved for backward in one pass of a training scheme over a video of `frames`."""
    objective, run_context, backbone = _objective(f"astrolabe_{scheme}_shapes")
    batch = (
        _batch(run_context, backbone, frames - clip, clip, size)
        if scheme.startswith("clip")
        else _batch(run_context, backbone, 0, frames, size)
    )
    saved = SavedTensors()
    with saved.counting(run_context.roles.modules["student"].parameters()):
        objective.loss("student", batch)
    return saved.peak


class _After(Background):
    """Work is waited for where it is handed over."""

    def submit(self, work: Callable[..., T], *arguments: object) -> Future[T]:
        done = super().submit(work, *arguments)
        done.result()
        return done


@torch.no_grad()
def scored_beside() -> dict[str, float]:
    """Wall seconds of an epoch's clips with their scores, a group at a time: scored beside the next rollout, and before
    it.
    """
    recipe = load_recipe("astrolabe_krea_shapes")
    run_context, backbone = build(recipe, CPU)
    spec = recipe.stages["nft"].experience
    assert spec is not None
    roller = clips.Roller(
        spec, run_context, backbone, [embedded_reward(key, backbone.world.pace) for key in spec.rewards]
    )
    prompts, owners = [PROMPT] * (spec.prompts * spec.group), list(range(spec.prompts))
    text, seeds = backbone.encode_text(prompts), list(range(len(prompts)))

    def collect(kind: type[Background]) -> object:
        with mock.patch.object(clips, "Background", kind):
            return roller.candidates(prompts, seeds, text, owners, run_context.block)

    return medians(
        {"beside": lambda: collect(Background), "before": lambda: collect(_After)}, REPEATS, time.perf_counter
    )


def rows() -> list[tuple[str, str, str]]:
    """(measure, value, what is divided by what) of everything here."""
    histories = {blocks: shared_history(blocks) for blocks in (1, 3)}
    saved = {scheme: saved_bytes(scheme, 30) for scheme in SCHEMES}
    longer = saved_bytes("clip_detach", 60)
    scored = scored_beside()
    mib = {scheme: f"{value / 2**20:.0f} MiB" for scheme, value in saved.items()}
    shared = [
        (
            f"{GROUP} candidates of {blocks} block{'s' * (blocks > 1)} on a history of {CHUNKS}",
            f"{seconds['apart'] / seconds['shared']:.2f}",
            (
                f"{GROUP} whole rollouts in one batch {seconds['apart']:.2f} s / one shared history "
                f"{seconds['shared']:.2f} s"
            ),
        )
        for blocks, seconds in histories.items()
    ]
    return [
        *shared,
        (
            "memory: clip + detach over clip + full",
            f"{saved['clip_detach'] / saved['clip_full']:.2f}",
            f"saved for backward, 30 frames: {mib['clip_detach']} / {mib['clip_full']}",
        ),
        (
            "memory: clip + detach over sequence + full",
            f"{saved['clip_detach'] / saved['seq_full']:.2f}",
            f"the same: {mib['clip_detach']} / {mib['seq_full']} (sequence + detach {mib['seq_detach']})",
        ),
        (
            "memory: twice the video's length",
            f"{longer / saved['clip_detach']:.3f}",
            "clip + detach, 60 frames / 30 frames",
        ),
        (
            "rewards beside the next rollout",
            f"{scored['before'] / scored['beside']:.2f}",
            f"wall seconds of an epoch's clips, before {scored['before']:.2f} s / beside {scored['beside']:.2f} s",
        ),
    ]

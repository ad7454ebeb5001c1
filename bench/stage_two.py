"""What GRPO's trained step costs, as ratios from one run on the embedded teacher: forwards, memory, ViPO's map.

Seconds are CPU seconds. The two sides of a ratio take turns; the medians of the repeats are compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from unittest import mock

import torch

from astro_cli.advantages.vipo import Advantage, Config
from astro_cli.core.credit import Term
from astro_cli.models.backbone import Backbone
from astro_cli.models.wan.transformer import CausalWan
from astro_cli.objectives import grpo
from astro_cli.objectives.base import Batch, RunContext
from astro_cli.recipe import load_recipe, resolve_kind
from astro_cli.rewards.embedded import embedded_reward
from astro_cli.training.build import build
from astro_cli.training.clips import Roller
from astro_cli.training.memory import SavedTensors
from bench.turns import medians

PROMPT = "a large red circle moves right slowly over a gray plain background"
SIZE, REPEATS = 4, 3


@dataclass
class _Run:
    """Clips of the old policy and the objective that trains on them."""

    objective: grpo.Objective
    run_context: RunContext
    backbone: Backbone
    batch: Batch
    roller: Roller


def _run(sets: list[str], update: int = 0) -> _Run:
    recipe = load_recipe("grpo_shapes", ["stages.grpo.objective.fraction=1.0", *sets])
    run_context, backbone = build(recipe, torch.device("cpu"))
    stage = recipe.stages["grpo"]
    assert stage.experience is not None
    rewards = [embedded_reward(key) for key in stage.experience.rewards]
    roller = Roller(stage.experience, run_context, backbone, rewards, record=True)
    prompts, seeds = [PROMPT] * SIZE, list(range(SIZE))
    text = backbone.encode_text(prompts)
    clips = roller.sequences(prompts, seeds, text)
    batch = Batch(
        seeds,
        prompts,
        text,
        clips.latents,
        credit=(Term(torch.linspace(-1, 1, SIZE)),),
        group_seeds=[7] * SIZE,
        trajectory=clips.trajectory,
        update=update,
    )
    config = resolve_kind("objectives", stage.objective, "grpo")
    assert isinstance(config, grpo.Config)
    return _Run(grpo.Objective(config, run_context), run_context, backbone, batch, roller)


def forwards(sets: list[str]) -> float:
    """Forwards of the transformer per trained step."""
    run, calls, forward = _run(sets), list[int](), CausalWan.forward

    def counted(self: CausalWan, *arguments: object, **options: object) -> object:
        calls.append(1)
        return forward(self, *arguments, **options)  # type: ignore[arg-type]

    with mock.patch.object(CausalWan, "forward", counted):
        steps = sum(1 for _ in run.objective.loss("student", run.batch))
    return len(calls) / steps


def saved_bytes(steps: int) -> int:
    """Most bytes saved for backward in one trained step of a rollout of so many steps."""
    run, saved = _run([f"sampler.steps={steps}"]), SavedTensors()
    losses = run.objective.loss("student", run.batch)
    for _ in range(steps - 1):
        with saved.counting(run.run_context.roles.modules["student"].parameters()):
            out = next(losses)
        out.loss.backward()
        del out
    return saved.peak


def map_share() -> dict[str, float]:
    """CPU seconds of ViPO's maps, and of the rollout and scores of the same clips."""
    run, rule = _run([]), Advantage(Config())
    text, clips = run.backbone.encode_text(run.batch.prompts), run.batch.latents_BFCHW
    assert clips is not None
    frames = run.backbone.decode(clips)
    return medians(
        {
            "map": lambda: rule.observe(clips, frames, run.backbone),
            "clips": lambda: run.roller.sequences(run.batch.prompts, run.batch.seeds, text),
        },
        REPEATS,
    )


def rows() -> list[tuple[str, str, str]]:
    """(measure, value, what is divided by what) of everything here."""
    stored, replayed = forwards([]), forwards(['stages.grpo.objective.old="replayed"'])
    short, long = saved_bytes(6), saved_bytes(12)
    seconds = map_share()
    return [
        ("forwards per trained step", f"{stored:.2f}", f"old policy stored; replayed {replayed:.2f}"),
        (
            "memory: twice the sampler's steps",
            f"{long / short:.3f}",
            f"saved for backward in one step, 12 steps {long / 2**20:.0f} MiB / 6 steps {short / 2**20:.0f} MiB",
        ),
        (
            "ViPO's maps beside rollout and scores",
            f"{seconds['map'] / seconds['clips']:.1%}",
            f"maps {seconds['map']:.3f} s / clips {seconds['clips']:.3f} s, {SIZE} clips",
        ),
    ]

"""Runs of the probe, a method outside the package, in the trainer. A helper of tests."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from astro_cli.spec import Recipe
from astro_cli.training.build import build, make_accelerator
from astro_cli.training.rundir import RunDir
from astro_cli.training.trainer import Trainer, Unwatched, Watcher

CPU = torch.device("cpu")

PROBE = """
extends = "base/shapes.toml"
name = "probe"
command = "rl"
order = ["probe"]
[lora]
rank = 2
alpha = 2
[roles.discriminator.model]
dim = 16
num_heads = 1
[stages.probe]
steps = 4
batch = 1
objective = { kind = "probe" }
optim.student = { lr = 1e-2 }
optim.discriminator = { kind = "rmsprop", lr = 1e-2, alpha = 0.9 }
"""


def train(recipe: Recipe, out: Path, *, resume: bool = False, watcher: Watcher | None = None) -> Trainer:
    run_context, backbone = build(recipe, CPU)
    run = RunDir(out)
    run.open(recipe, "", resume=resume, device="cpu")
    trainer = Trainer(recipe, run_context, backbone, run, make_accelerator(recipe), watcher or Unwatched())
    try:
        trainer.fit(resume=resume)
    finally:
        run.release()
    return trainer


def state(trainer: Trainer) -> dict[str, torch.Tensor]:
    modules = trainer.run_context.roles.modules
    return {f"{role}.{name}": value for role in sorted(modules) for name, value in modules[role].state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def rows(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]

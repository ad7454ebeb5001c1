"""`make bench`: speed and memory of the loops on this machine, as ratios from one run. Asserts nothing; times are not tests."""

from __future__ import annotations

import itertools
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from astro_cli.recipe import load_recipe
from astro_cli.rollout.streaming import new_cache, stream
from astro_cli.training.build import build, make_accelerator
from astro_cli.training.rundir import RunDir
from astro_cli.training.trainer import Trainer
from eval.arms import load_arm

LONG_FRAMES = 480  # 60 s of the embedded world
PASS_REPEATS = 30
LOOPS = {
    "rl": ("astrolabe_causal_shapes", ["stages.nft.steps=3"]),
    "dmd": ("self_forcing_shapes", ['order=["dmd"]', "stages.dmd.steps=6"]),
    "pretrain": ("teacher_shapes", ['order=["clips"]', "stages.clips.steps=6", "stages.clips.data.pool=256"]),
}


class _Silent:
    def stage(self, name: str, start: int, steps: int) -> None: ...
    def step(self, row: dict) -> None: ...
    def work(self, what: str, done: int, total: int) -> None: ...


def bench_loop(recipe_name: str, overrides: list[str]) -> dict[str, float]:
    """Means of s/step, tokens/s and time shares of a training loop, its first step left out."""
    recipe = load_recipe(recipe_name, overrides)
    setting, backbone = build(recipe, torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        run = RunDir(Path(folder) / "run")
        run.open(recipe, "", resume=False, device="cpu")
        Trainer(recipe, setting, backbone, run, make_accelerator(recipe), _Silent()).fit(resume=False)
        rows = [json.loads(line) for line in run.metrics.read_text().splitlines()][1:]
    keys = sorted({key for row in rows for key in row if key in ("seconds", "tokens_per_second") or key.startswith("share/")})
    return {key: statistics.mean(row.get(key, 0.0) for row in rows) for key in keys}


@torch.no_grad()
def bench_stream() -> dict[str, float]:
    """A 60 s video: time per block late against early, cache bytes against the formula, context pass against a denoising pass."""
    arm = load_arm("shapes/causal_forcing")
    spec, network = arm.stream_spec(LONG_FRAMES), arm.network
    text = network.encode_text(arm.backbone.encode_text(["a large red circle moves right slowly over a gray plain background"]))
    cache = new_cache(network, 1, spec, LONG_FRAMES)
    times, began = [], time.perf_counter()
    for block in stream(network, text, [0], spec, LONG_FRAMES, cache=cache):
        arm.backbone.decode(block)
        times.append(time.perf_counter() - began)
        began = time.perf_counter()
    full = times[(spec.cache.window or 0) // spec.block :]
    tenth = len(full) // 10
    tokens = network.tokens_per_frame(*spec.latent_shape[1:])
    formula = 2 * network.config.num_layers * (spec.cache.window or 0) * tokens * network.config.dim * 4
    x, timestep = torch.randn(1, spec.block, *spec.latent_shape), torch.full((1, spec.block), 500.0)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _, context_only in itertools.product(range(PASS_REPEATS), (False, True)):
        plan = cache.begin(LONG_FRAMES - spec.block, spec.block, write=True)
        began = time.perf_counter()
        network(x, timestep, text, positions=plan.positions, cache=plan, context_only=context_only)
        seconds[context_only].append(time.perf_counter() - began)
    return {
        "frames per second (one video, codec included)": LONG_FRAMES / sum(times),
        "time per block, last tenth / first tenth after the window fills": sum(full[-tenth:]) / sum(full[:tenth]),
        "cache bytes / formula": cache.bytes / formula,
        "context pass / denoising pass": statistics.median(seconds[True]) / statistics.median(seconds[False]),
    }


def main() -> None:
    console = Console()
    table = Table("loop", "s/step", "tokens/s", "share of rollout", "reward", "teacher", "train", title="training loops (means, first step left out)")
    for name, (recipe, overrides) in LOOPS.items():
        row = bench_loop(recipe, overrides)
        shares = [f"{row.get(f'share/{part}', 0.0):.0%}" for part in ("rollout", "reward", "teacher", "train")]
        table.add_row(name, f"{row['seconds']:.2f}", f"{row['tokens_per_second']:,.0f}", *shares)
    console.print(table)
    streaming = Table("measure", "value", title=f"streaming {LONG_FRAMES} frames")
    for what, value in bench_stream().items():
        streaming.add_row(what, f"{value:.3g}")
    console.print(streaming)


if __name__ == "__main__":
    main()

"""`make bench`: speed and memory of the loops on this machine, as ratios from one run."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from astro_cli.core import threads
from astro_cli.generate.arm import load_arm
from astro_cli.recipe import load_recipe
from astro_cli.training.build import build, make_accelerator
from astro_cli.training.rundir import RunDir
from astro_cli.training.trainer import Trainer, Unwatched
from bench import long as bench_long
from bench import preference as bench_preference
from bench import ratios as bench_ratios
from bench import rl as bench_rl
from bench import scoring as bench_eval
from bench import stage_two as bench_stage_two
from bench import stream as bench_stream

LONG_LATENTS = 123  # 60 s of the embedded world
LOOPS = {
    "rl": ("astrolabe_causal_shapes", ["stages.nft.steps=3"]),
    "grpo": ("grpo_streaming_shapes", ["stages.grpo.steps=3"]),
    "dmd": ("self_forcing_shapes", ['order=["dmd"]', "stages.dmd.steps=6"]),
    "pretrain": ("teacher_shapes", ['order=["clips"]', "stages.clips.steps=6", "stages.clips.data.pool=256"]),
}

# Title, what the last column says, and the rows of what each module measures.
DIVIDED = "what it divides"
TABLES = (
    (
        "the product's streaming loop, the released one and the floor, CPU seconds of one thread (dim 384, 3 heads)",
        DIVIDED,
        bench_ratios.rows,
    ),
    (
        "the streaming engine, CPU seconds of one thread (dim 256, 8 layers, window 12, sink 3, block 3)",
        DIVIDED,
        bench_stream.rows,
    ),
    ("reinforcement learning on the embedded world", DIVIDED, bench_rl.rows),
    ("streaming long tuning on the embedded world", DIVIDED, bench_long.rows),
    ("GRPO on the embedded teacher", DIVIDED, bench_stage_two.rows),
    ("DPO on the embedded teacher: one gradient three ways", DIVIDED, bench_preference.rows),
    ("scoring videos", "what it is", bench_eval.rows),
)


def bench_loop(recipe_name: str, overrides: list[str]) -> dict[str, float]:
    """Means of s/step, tokens/s and time shares of a training loop, its first step left out."""
    recipe = load_recipe(recipe_name, overrides)
    run_context, backbone = build(recipe, torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        run = RunDir(Path(folder) / "run")
        run.open(recipe, "", resume=False, device="cpu")
        Trainer(recipe, run_context, backbone, run, make_accelerator(recipe), Unwatched()).fit(resume=False)
        rows = [json.loads(line) for line in run.metrics.read_text().splitlines()][1:]
    keys = sorted(
        {key for row in rows for key in row if key in ("seconds", "tokens_per_second") or key.startswith("share/")}
    )
    means = {}
    for key in keys:
        means[key] = statistics.mean(row.get(key, 0.0) for row in rows)
    return means


@torch.no_grad()
def bench_video() -> dict[str, float]:
    """A 60 s video of the embedded world, codec included: frames per second, and CPU time per block late against
    early.
    """
    arm = load_arm("shapes/causal_forcing")
    prompts = ["a large red circle moves right slowly over a gray plain background"]
    decoder = arm.backbone.decoder()
    times, began, since = [], time.process_time(), time.perf_counter()
    for block in arm.stream(prompts, [0], LONG_LATENTS):
        decoder.push(block)
        times.append(time.process_time() - began)
        began = time.process_time()
    seconds = time.perf_counter() - since
    spec = arm.stream_spec(LONG_LATENTS)
    full = times[(spec.cache.window or 0) // spec.block :]
    tenth = len(full) // 10
    return {
        "frames per second (one video, codec included)": arm.backbone.num_frames(LONG_LATENTS) / seconds,
        "CPU time per block, last tenth / first tenth after the window fills": sum(full[-tenth:]) / sum(full[:tenth]),
    }


def main() -> None:
    console = Console()
    threads.fit(threads.SMALL)
    table = Table(
        "loop",
        "s/step",
        "tokens/s",
        "share of rollout",
        "reward",
        "teacher",
        "train",
        title="training loops on one core (means, first step left out)",
    )
    for name, (recipe, overrides) in LOOPS.items():
        row = bench_loop(recipe, overrides)
        shares = [f"{row.get(f'share/{part}', 0.0):.0%}" for part in ("rollout", "reward", "teacher", "train")]
        table.add_row(name, f"{row['seconds']:.2f}", f"{row['tokens_per_second']:,.0f}", *shares)
    console.print(table)
    streaming = Table("measure", "value", title=f"streaming {LONG_LATENTS} latent frames")
    for what, value in bench_video().items():
        streaming.add_row(what, f"{value:.3g}")
    console.print(streaming)
    for title, last, rows in TABLES:
        measured = Table("measure", "value", last, title=title)
        for row in rows():
            measured.add_row(*row)
        console.print(measured)


if __name__ == "__main__":
    main()

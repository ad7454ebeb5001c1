"""What `gpu_check.sh` runs: each check is a command of its own with a time limit; the results go into one JSON file and
one text table. A check that fails, or that no time is left for, is named, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from astro_cli.config import toml
from astro_cli.config.durable import write_json, write_text
from astro_cli.recipe import load_recipe

ROOT = Path(__file__).resolve().parent.parent
ASTRO = [sys.executable, "-m", "astro_cli"]
PARTS = ("parity", "sharding", "training", "speed")
SHOWN = 300  # characters of a failed check's last lines
SPEEDS: dict[str, list[str]] = {
    "plain": [],
    "tiny decoder": ["--decoder", "DECODER"],
    "flash": ["--attention", "flash", "--noise", "device"],
    "cudnn": ["--attention", "cudnn", "--noise", "device"],
    "flash, graphs": ["--attention", "flash", "--noise", "device", "--graphs"],
    "flash, compiled, graphs": ["--attention", "flash", "--noise", "device", "--compile", "--graphs"],
    "the same, FP8 layers": [
        "--attention", "flash", "--noise", "device", "--compile", "--graphs", "--linear", "fp8",
    ],
    "FP8 cache": ["--noise", "device", "--kv", "fp8"],
}  # fmt: skip
ON_CPU = ("plain", "tiny decoder", "FP8 cache")


@dataclass
class Check:
    """One command and what came of it."""

    part: str
    name: str
    command: list[str]
    output: Path | None = None
    seconds: float = 0.0
    state: str = "not run: no time left"
    data: dict[str, Any] = field(default_factory=dict)


def checks(arguments: argparse.Namespace) -> Iterator[Check]:
    """All that is asked for, in the order of what is worth most."""
    out, device = arguments.out, "cpu" if arguments.cpu else "cuda"
    parts = arguments.only.split(",")
    if "parity" in parts:
        for dtype in ("float32", "bfloat16"):
            command = [*ASTRO, "doctor", "parity", "tests/golden", "--device", device, "--dtype", dtype, "--json"]
            yield Check("parity", dtype, command)
    if "speed" in parts:
        size = "tiny" if arguments.tiny else "full"
        folder = out / f"random_{size}"
        yield Check("speed", "write random weights", [sys.executable, "scripts/random_wan.py", str(folder), size])
        video = ["--size", "32x48", "--frames", "12"] if arguments.tiny else ["--size", "480x832", "--frames", "48"]
        kind = ["--dtype", "fp32" if arguments.cpu else "bf16", "--device", device, "--window", "21", "--sink", "3"]
        if arguments.tiny:
            kind[-4:] = ["--window", "9", "--sink", "3"]
        for name in ON_CPU if arguments.cpu else SPEEDS:
            written = out / f"speed_{name.replace(', ', '_').replace(' ', '_')}.json"
            options = [str(folder / "taew2_1.safetensors") if word == "DECODER" else word for word in SPEEDS[name]]
            common = ["bench", "sample", "--wan", str(folder), *video, *kind, "--prompt", "a red circle moves right"]
            yield Check("speed", name, [*ASTRO, *common, *options, "--out", str(written)], written)
    if "training" in parts:
        for kind, recipe, command, stages in objectives():
            steps = [word for stage in stages for word in ("--set", f"stages.{stage}.steps=2")]
            run = [*ASTRO, command, "--recipe", recipe, *steps, "--out", str(out / "runs" / recipe)]
            yield Check("training", f"{kind} ({recipe})", run)
    if "sharding" in parts:
        test = ["tests/numerics/test_sharding.py", "-q", "-p", "no:cacheprovider"]
        yield Check("sharding", "two processes", [sys.executable, "-m", "pytest", *test])


def objectives() -> Iterator[tuple[str, str, str, list[str]]]:
    """(objectives, recipe, command, stages): recipes of the embedded world that together have every objective."""
    recipes = {}
    for name in toml.list_recipes():
        recipe = load_recipe(name)
        if recipe.backbone == "shapes":
            recipes[recipe.name] = recipe
    missing = {stage.objective["kind"] for recipe in recipes.values() for stage in recipe.stages.values()}
    while missing:
        name = max(recipes, key=lambda name: len(missing & _kinds(recipes[name])) / len(recipes[name].stages))
        recipe = recipes[name]
        yield ", ".join(sorted(missing & _kinds(recipe))), name, recipe.command, list(recipe.stages)
        missing -= _kinds(recipe)


def _kinds(recipe: Any) -> set[str]:
    return {stage.objective["kind"] for stage in recipe.stages.values()}


def run(check: Check, left: float, environment: dict[str, str]) -> None:
    """Run a check within the time that is left."""
    if left <= 0:
        return
    began = time.perf_counter()
    try:
        done = subprocess.run(check.command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=left)
        check.state = "ok" if done.returncode == 0 else f"failed ({done.returncode}): {done.stderr.strip()[-SHOWN:]}"
        if done.returncode and not done.stderr.strip():
            check.state += done.stdout.strip()[-SHOWN:]
    except subprocess.TimeoutExpired as late:
        check.state = f"failed: took longer than {late.timeout:.0f} s"
    check.seconds = time.perf_counter() - began
    if check.output is not None and check.output.is_file():
        check.data = json.loads(check.output.read_text(encoding="utf-8"))


def table(done: list[Check]) -> str:
    """The checks as text, speeds with their numbers."""
    rows = [["part", "check", "seconds", "loop", "decoded", "first frame", "MiB", "state"]]
    for check in done:
        numbers = ["", "", "", ""]
        if check.data:
            numbers = [
                f"{check.data['loop_frames_per_second']:.2f}",
                f"{check.data['frames_per_second']:.2f}",
                f"{check.data['first_frame_seconds']:.2f}",
                f"{check.data['peak_memory_bytes'] / 2**20:,.0f}",
            ]
        state = check.state.replace("\n", " ")
        rows.append([check.part, check.name, f"{check.seconds:.1f}", *numbers, state])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cpu", action="store_true", help="run on the CPU, as far as it goes")
    parser.add_argument("--tiny", action="store_true", help="tiny random weights instead of those of 1.3B")
    parser.add_argument("--out", type=Path, default=Path("gpu_check"))
    parser.add_argument("--only", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--minutes", type=float, default=8.0, help="for all checks")
    parser.add_argument("--limit", type=float, default=240.0, help="seconds of one check")
    arguments = parser.parse_args()
    unknown = [part for part in arguments.only.split(",") if part not in PARTS]
    if unknown:
        print(f"error: --only: {unknown[0]}: allowed: {', '.join(PARTS)}", file=sys.stderr)
        return 2
    if arguments.out.exists() and not (arguments.out.is_dir() and not any(arguments.out.iterdir())):
        print(
            f"error: {arguments.out}: found files there\nhint: name another folder with --out",
            file=sys.stderr,
        )
        return 2
    arguments.out = arguments.out.resolve()
    arguments.out.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | ({"CUDA_VISIBLE_DEVICES": ""} if arguments.cpu else {})
    end, done = time.perf_counter() + 60 * arguments.minutes, []
    for check in checks(arguments):
        run(check, min(arguments.limit, end - time.perf_counter()), environment)
        print(f"{check.part}: {check.name}: {check.state} ({check.seconds:.1f} s)", flush=True)
        done.append(check)
        rows = [asdict(each) | {"output": str(each.output or "")} for each in done]
        write_json(arguments.out / "gpu_check.json", {"checks": rows})
        write_text(arguments.out / "gpu_check.txt", table(done))
    print(table(done), end="")
    return 0 if all(check.state == "ok" for check in done) else 1


if __name__ == "__main__":
    sys.exit(main())

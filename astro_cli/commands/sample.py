"""`astro sample`: stream videos from a student to MP4, with a contact sheet and a JSON sidecar."""

from __future__ import annotations

import re
import resource
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from astro_cli.config.errors import PromptError

SHEET_FRAMES = 12
PIXEL_SCALE = 6  # a 32-pixel world is hard to see unscaled


def sample(
    prompts: Annotated[list[str] | None, typer.Argument(help="Prompts; '-' or none reads them from standard input.")] = None,
    weights: Annotated[str, typer.Option("--weights", "-w", help="Packaged base, run folder or weights file.")] = "shapes/causal_forcing",
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Length of each video.")] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Length in frames, instead of seconds.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed; prompt i uses seed + i.")] = 0,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the videos.")] = Path("samples"),
) -> None:
    """Stream videos: MP4, PNG contact sheet and JSON sidecar per prompt. Time and memory per frame do not grow with length.

    Example: astro sample "a large red circle moves right slowly over a gray plain background" --seconds 4
    """
    from eval.arms import load_arm

    texts = list(prompts or [])
    if not texts or texts == ["-"]:
        texts = [line.strip() for line in sys.stdin if line.strip()]
    if not texts or not all(text.strip() for text in texts):
        raise PromptError("prompt", "", "empty", hint='for example: astro sample "a large red circle moves right slowly"')
    arm = load_arm(weights)
    arm.backbone.encode_text(texts)  # refuse a wrong word before the first frame
    block = arm.card["video"]["block"]
    wanted = frames or round((seconds or arm.card["video"]["frames"] / arm.backbone.fps) * arm.backbone.fps)
    clip = arm.card["video"]["frames"]
    count = -(-wanted // block) * block
    if arm.card["sampling"] != "few_step" and count != clip:
        raise PromptError("--seconds", str(wanted), f"{arm.name} is a multi-step teacher and makes clips of {clip} frames", hint="sample a student")
    console = Console(stderr=True, highlight=False)
    for index, text in enumerate(texts):
        with Progress(console=console, disable=not console.is_terminal) as progress:
            bar = progress.add_task(text[:60], total=count)
            sidecar = _one(arm, text, seed + index, count, out, lambda done, bar=bar, progress=progress: progress.update(bar, completed=done))
        console.print(f"{sidecar['video']}: {sidecar['frames']} frames, {sidecar['frames_per_second']:.1f} frames/s", soft_wrap=True)


def _one(arm: Any, text: str, seed: int, count: int, out: Path, progress: Any) -> dict[str, Any]:
    """Stream one video to disk; returns its sidecar."""
    import numpy as np

    from astro_cli.models.weights import digest, write_json
    from eval.media import contact_sheet, write_mp4

    stem = f"{re.sub(r'[^a-z0-9]+', '-', text.lower())[:60].strip('-')}-seed{seed}"
    out.mkdir(parents=True, exist_ok=True)
    kept, times = [], []
    every = max(1, count // SHEET_FRAMES)

    def pictures():
        began, done = time.perf_counter(), 0
        for block in _blocks(arm, text, seed, count):
            clip = arm.backbone.decode(block)[0].permute(0, 2, 3, 1).numpy()
            times.append(time.perf_counter() - began)
            for frame in clip:
                if done % every == 0 and len(kept) < SHEET_FRAMES:
                    kept.append(frame)
                done += 1
                yield frame
            progress(done)
            began = time.perf_counter()

    video = out / f"{stem}.mp4"
    write_mp4(pictures(), video, arm.backbone.fps, PIXEL_SCALE)
    contact_sheet([(text, np.stack(kept))], out / f"{stem}.png", PIXEL_SCALE)
    tenth = max(1, len(times) // 10)
    sidecar = {
        "video": str(video), "prompt": text, "seed": seed, "frames": count, "fps": arm.backbone.fps, "weights": arm.name,
        "weights_hash": digest(arm.path), "recipe_hash": arm.card["recipe_hash"], "frames_per_second": count / sum(times),
        "first_block_seconds": times[0], "last_to_first_tenth": sum(times[-tenth:]) / sum(times[:tenth]),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }  # fmt: skip
    write_json(out / f"{stem}.json", sidecar)
    return sidecar


def _blocks(arm: Any, text: str, seed: int, count: int) -> Any:
    """Latent blocks as they are made; a multi-step teacher gives one block, its whole clip."""
    if arm.card["sampling"] == "few_step":
        return arm.stream([text], [seed], count)
    return iter([arm.generate([text], [seed], arm.card["video"]["frames"])])

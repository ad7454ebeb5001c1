"""Clips of a running training, written into its folder as GIF with a line of text beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from astro_cli.config.durable import write_json, written_whole

SHORT_SIDE = 128  # smaller clips are enlarged to at least half of this


@dataclass(frozen=True)
class ClipSample:
    """A clip worth looking at: its name ("best"), frames (T, 3, H, W) in [0, 1], prompt and weighted reward."""

    name: str
    frames_TCHW: torch.Tensor
    prompt: str
    reward: float


def write_samples(folder: Path, step: int, samples: Sequence[ClipSample], fps: float) -> list[Path]:
    """Write `<step>-<name>.gif` for each, and `<step>.json` with prompts and rewards; whole files or none. Returns the
    GIFs.
    """
    paths = []
    for sample in samples:
        path = folder / f"{step:06d}-{sample.name}.gif"
        pixels = (sample.frames_TCHW.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        scale = max(1, SHORT_SIDE // min(pixels.shape[1:3]))
        size = (pixels.shape[2] * scale, pixels.shape[1] * scale)
        first, *rest = [Image.fromarray(frame).resize(size, Image.Resampling.NEAREST) for frame in pixels]
        paths.append(path)
        with written_whole(path) as temporary:
            first.save(temporary, format="GIF", save_all=True, append_images=rest, duration=round(1000 / fps), loop=0)
    write_json(
        folder / f"{step:06d}.json",
        {sample.name: {"prompt": sample.prompt, "reward": sample.reward} for sample in samples},
    )
    return paths

"""How fast a student streams, under stated conditions: the protocol of `astro bench sample`.

    1. cold: a first block from prompt to frames, with what libraries and compilers do once
    2. warm: the same again; its time is the latency to the first frame
    3. the window fills, and `warm_up` blocks more; not timed
    4. loop: `frames` latent frames, without decoding; the device is waited for before and after
    5. decoded: as many again, each block decoded to frames in main memory beside the next one's loop

A frame is a pixel frame. Encoding to MP4 is not part of it.
**Deviations**: papers state one number and not which of these it is.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from astro_cli.config.errors import StreamError
from astro_cli.generate.acceleration import device_name
from astro_cli.generate.arm import Arm
from astro_cli.generate.memory_use import peak_memory, reset_peak
from astro_cli.generate.pipeline import BlockClock, Pipeline
from astro_cli.rollout.engine import Streamer
from astro_cli.rollout.next_frame import NextFrameStreamer

WARM_UP = 4  # blocks at a full window: two passes of each kind before graphs are recorded, and then some
SLOW, FAST = 0.9, 0.1  # quantiles of a block's time


@dataclass(frozen=True)
class Speed:
    """What was measured.

    Attributes:
        loop_frames_per_second, frames_per_second: without and with decoding.
        block_seconds: of the loop, median and the two quantiles.
        first_frame_seconds, cold_first_frame_seconds: from prompt to the first block's frames.
        peak_memory_bytes: most that the device held; on a CPU the process.
        kv_error: relative error (RMS) that an FP8 cache makes in the latents of a first full window; None of another.
    """

    loop_frames_per_second: float
    frames_per_second: float
    block_seconds: dict[str, float]
    first_frame_seconds: float
    cold_first_frame_seconds: float
    peak_memory_bytes: int
    kv_error: float | None
    conditions: dict[str, Any]

    def data(self) -> dict[str, Any]:
        """Flat, as it is stored."""
        table = asdict(self)
        return table.pop("conditions") | table


@torch.no_grad()
def measure(arm: Arm, prompt: str, seed: int, frames: int, warm_up: int = WARM_UP) -> Speed:
    """Time a stream of one video.

    Args:
        frames: latent frames to time, whole blocks.

    Raises:
        StreamError: the arm does not stream.
    """
    if not arm.streams:
        what = f"{arm.name} is a multi-step teacher and does not stream"
        raise StreamError("bench sample", "", what, hint="measure a student")
    arm.check_fits(None, 1)
    reset_peak(arm.network.device)
    with arm.acceleration.on():
        cold = _first(arm, prompt, seed)[0]
        reset_peak(arm.network.device)  # the cold stream is gone
        warm, streamer = _first(arm, prompt, seed)
        block = streamer.spec.block
        while streamer.frame < streamer.cache.slots:
            streamer.next_block()
        for _ in range(warm_up):
            streamer.next_block()
        blocks, history = -(-frames // block), streamer.frame
        made = arm.backbone.num_frames(blocks * block, history)
        loop, each = _loop(streamer, blocks)
        decoded = _decoded(arm, streamer, blocks)
        peak, conditions = peak_memory(), _conditions(arm, streamer, warm_up, blocks * block, made)
        del streamer
        error = kv_error(arm, prompt, seed) if arm.acceleration.kv == "fp8" else None
    spread = {"median": statistics.median(each), "low": _quantile(each, FAST), "high": _quantile(each, SLOW)}
    return Speed(made / loop, made / decoded, spread, warm, cold, peak, error, conditions)


def _first(arm: Arm, prompt: str, seed: int) -> tuple[float, Streamer | NextFrameStreamer]:
    """Seconds from a prompt to the frames of the first block, and the stream."""
    wait(arm.network.device)
    began = time.perf_counter()
    streamer = arm.streamer([prompt], [seed], None)
    arm.decoder().push(streamer.next_block()).cpu()
    return time.perf_counter() - began, streamer


def _loop(streamer: Streamer | NextFrameStreamer, blocks: int) -> tuple[float, list[float]]:
    """Seconds of so many blocks, and of each."""
    device = streamer.network.device
    clock = BlockClock(device)
    wait(device)
    began = time.perf_counter()
    for _ in range(blocks):
        clock.start()
        streamer.next_block()
        clock.stop()
    wait(device)
    return time.perf_counter() - began, clock.seconds()


def _decoded(arm: Arm, streamer: Streamer | NextFrameStreamer, blocks: int) -> float:
    """Seconds until the last of so many blocks is frames in main memory."""
    decoder = arm.decoder()
    decoder.push(streamer.next_block())  # the decoder's own first step
    wait(arm.network.device)
    began = time.perf_counter()
    with Pipeline(decoder.push, lambda clips: None, arm.network.device, lambda clips, moment: None) as pipeline:
        for _ in range(blocks):
            pipeline.push(streamer.next_block())
    return time.perf_counter() - began


def kv_error(arm: Arm, prompt: str, seed: int) -> float:
    """Relative error (root mean square) of the latents of a first full window, against the cache in the model's dtype,
    on the same noise. Each block is made from the blocks before it, so errors may add up.
    """
    parts = {}
    for kind in ("same", "fp8"):
        chosen = replace(arm, acceleration=replace(arm.acceleration, kv=kind, graphs=False))
        streamer = chosen.streamer([prompt], [seed], None)
        blocks = [streamer.next_block()]
        while streamer.frame < streamer.cache.slots:
            blocks.append(streamer.next_block())
        parts[kind] = torch.cat(blocks, 1).float()
    difference = parts["fp8"] - parts["same"]
    return (difference.pow(2).mean().sqrt() / parts["same"].pow(2).mean().sqrt()).item()


def _conditions(
    arm: Arm, streamer: Streamer | NextFrameStreamer, warm_up: int, latents: int, frames: int
) -> dict[str, Any]:
    video, config = arm.card["video"], arm.network.config
    return {
        "weights": arm.name,
        "parameters": sum(parameter.numel() for parameter in arm.network.parameters()),
        "dim": config.dim,
        "layers": config.num_layers,
        "height": video["height"] * arm.backbone.cell,
        "width": video["width"] * arm.backbone.cell,
        "steps": len(streamer.spec.steps),
        "block": streamer.spec.block,
        "cache": streamer.spec.cache.model_dump(),
        "window_full": streamer.cache.rolls,
        "latent_frames": latents,
        "frames": frames,
        "warm_up_blocks": warm_up,
        "decoder": arm.decoder_name,
        "dtype": str(arm.network.dtype).removeprefix("torch."),
        "device": arm.network.device.type,
        "device_name": device_name(arm.network.device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        **arm.acceleration.protocol(),
        **arm.errors,
    }


def _quantile(values: list[float], share: float) -> float:
    return torch.tensor(values, dtype=torch.float64).quantile(share).item()


def wait(device: torch.device) -> None:
    """Until a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)

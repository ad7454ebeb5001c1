"""A light decoder beside the codec's decoder: how much faster it is, and what its pictures lose on held-out renders.

Latents get the noise that a diffusion model leaves (`shapes_flow`). Speed is that of one stream, latent by latent; both
decoders take turns, so that what the machine does besides slows both alike.
Source: AAPT (arXiv 2506.09350), supplement E: nearly three times as fast, "without visible quality degradation".
Dimensions: B clip, T frame, F latent frame, C channel, H, W.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch

from astro_cli.config.errors import CheckpointError
from astro_cli.config.files import Reader
from astro_cli.core.rng import sample_noise, stream
from astro_cli.models.decoding import StreamingDecoder
from astro_cli.models.hashes import digest
from astro_cli.models.light_decoder import LightDecoder
from astro_cli.models.shapes_backbone import ShapesBackbone
from astro_cli.shapes.grammar import parse
from astro_cli.shapes.render import random_layout, render
from astro_cli.training.environment import environment
from eval.records.writer import RecordWriter
from eval.world import shapes
from eval.world.oracle_scores import noise_seeds, prompt_set_hash
from eval.world.shapes_flow import NOISE

NAME = "shapes-decoder"
VERSION = 1
LATENTS = 9
BATCH = 16
SIDE = 32  # pixels
RUNS = 40  # streams timed, of both together


@torch.no_grad()
def measure(backbone: ShapesBackbone, light: LightDecoder, prompts: int, seed: int = 0) -> dict[str, list[float]]:
    """ "psnr" and "psnr_codec" of every clip by the light decoder and the codec's, in dB, "psnr_loss" between them, and
    "speed_up", a ratio for every two streams.
    """
    texts, seeds = shapes.prompt_set(prompts), noise_seeds(seed, prompts)
    by: dict[str, list[float]] = {"psnr": [], "psnr_codec": []}
    latents = torch.zeros(0)
    for start in range(0, prompts, BATCH):
        rows = slice(start, start + BATCH)
        scenes = [parse(text) for text in texts[rows]]
        layout = random_layout(scenes, [stream(each, "layout") for each in seeds[rows]], world=backbone.world)
        frames = render(scenes, layout, backbone.num_frames(LATENTS))
        latents = backbone.encode(frames)
        latents = latents + NOISE * latents.std() * sample_noise(tuple(latents.shape[1:]), seeds[rows], "latent_noise")
        for key, decoder in (("psnr", light.decoder()), ("psnr_codec", backbone.decoder())):
            mse_B = (decoder.push(latents) - frames).square().flatten(1).mean(1)
            by[key] += (-10 * mse_B.log10()).tolist()
    lost = [codec - own for own, codec in zip(by["psnr"], by["psnr_codec"], strict=True)]
    return by | {"psnr_loss": lost, "speed_up": speed_ups(backbone, light, latents[:1])}


def speed_ups(backbone: ShapesBackbone, light: LightDecoder, latents_1FCHW: torch.Tensor) -> list[float]:
    """Time of the codec's decoder over that of the light one, for every two streams; the first two warm up."""
    ratios = []
    for run in range(RUNS // 2 + 1):
        took: dict[bool, float] = {}
        for is_light in (run % 2 == 0, run % 2 == 1):
            took[is_light] = _seconds(light.decoder() if is_light else backbone.decoder(), latents_1FCHW)
        ratios.append(took[False] / took[True])
    return ratios[1:]


def _seconds(decoder: StreamingDecoder, latents_1FCHW: torch.Tensor) -> float:
    began = time.perf_counter()
    for latent in latents_1FCHW.split(1, 1):
        decoder.push(latent)
    return time.perf_counter() - began


def write_records(
    measured: dict[str, list[float]], backbone: ShapesBackbone, light: LightDecoder, seed: int, results: Path
) -> Path:
    """Append what was measured as records of the decoder's run; returns their file.

    Raises:
        CheckpointError: no readable card beside the decoder's weights.
        RecordError, OutputError: see `RecordWriter.append`.
    """
    card = Reader(CheckpointError, what="no readable card").table(light.source.with_suffix(".json"))
    prompts, here = len(measured["psnr"]), environment("cpu", seed)
    hashes = str(card["recipe_hash"]), digest(light.source), prompt_set_hash(shapes.prompt_set(prompts))
    writer = RecordWriter(results, NAME, "shapes", str(card["recipe"]), int(card["seed"]), *hashes)
    frames = backbone.num_frames(LATENTS)
    protocol = {
        "benchmark_version": VERSION,
        "num_frames": frames,
        "fps": backbone.fps,
        "resolution": [SIDE, SIDE],
        "prompts": prompts,
        "latent_noise": NOISE,
        "noise_seed": seed,
        "versions": here["versions"],
        "device": here["device"],
        "threads": torch.get_num_threads(),
    }
    for metric, values in measured.items():
        direction = "down" if metric == "psnr_loss" else "up"
        writer.append(writer.record(metric, direction, values, protocol, here))
    return writer.path

"""`astro bench`: measures this machine. `sample` times how fast a student streams, `decoder` what a light decoder saves
and loses; the protocols are in `generate.speed` and `eval.world.decoders`.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean, median
from typing import Annotated, Any

import typer

from astro_cli.commands import student_options as options
from astro_cli.commands.acceleration_options import Make, with_acceleration
from astro_cli.commands.console import echo, echo_aligned, loading
from astro_cli.commands.limits import MOST_FRAMES, MOST_PROMPTS
from astro_cli.commands.threads_option import with_threads
from astro_cli.config.errors import StreamError
from astro_cli.config.seeds import LARGEST

bench_app = typer.Typer(
    name="bench",
    no_args_is_help=True,
    help="Measure how fast this machine streams, and what a light decoder saves.\n\n"
    "Example: astro bench sample --weights shapes/causal_forcing --frames 24",
)
PROMPT = "a large red circle moves right slowly over a gray plain background"
MIB = 2**20


def sample(
    weights: options.WeightsOption = None,
    frames: Annotated[int, typer.Option(min=1, max=MOST_FRAMES, help="Pixel frames to time, at least.")] = 48,
    recipe: options.RecipeOption = None,
    lora: options.LoraOption = None,
    wan: options.WanOption = None,
    size: options.SizeOption = None,
    window: options.WindowOption = None,
    sink: options.SinkOption = None,
    dtype: options.DtypeOption = options.Dtype.fp32,
    device: options.DeviceOption = options.Device.auto,
    decoder: options.DecoderOption = None,
    warm_up: Annotated[int, typer.Option(min=0, max=1000, help="Blocks at a full window that are not timed.")] = 4,
    prompt: Annotated[str, typer.Option(help="What the video shows; speed does not depend on it.")] = PROMPT,
    seed: Annotated[int, typer.Option(min=0, help="Of the noise, and of the record.")] = 0,
    results: Annotated[Path | None, typer.Option(help="Record it below this folder, for the tables.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write it to this JSON file as well.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="JSON on stdout instead of a table.")] = False,
    *,
    acceleration: Make,
) -> None:
    """Time one stream at a full window: frames per second of the loop and with decoding, latency to the first frame,
    peak memory, and the conditions they hold under.

    Example: astro bench sample --weights shapes/causal_forcing --frames 24
    """
    if window == 0:
        raise StreamError("--window", "0", "a stream is timed at a full window", hint="for example --window 12")
    with loading("weights"):
        arm = options.load(
            weights, recipe, lora, wan, dtype, device, options.cache_fields(window, sink), acceleration(), decoder
        )
    arm = options.resize(arm, size)
    from astro_cli.generate.speed import measure

    if not arm.streams:
        what = f"{arm.name} is a multi-step teacher and does not stream"
        raise StreamError("bench sample", "", what, hint="measure a student, for example shapes/causal_forcing")
    spec = arm.stream_spec(None)
    spec.check(1, None)
    per_latent = arm.backbone.num_frames(1, 1)
    with loading("the window, then timing"):
        speed = measure(arm, prompt, seed, -(-frames // per_latent), warm_up).data()
    if results is not None:
        _record(arm, seed, prompt, speed, results)
    if out is not None:
        from astro_cli.config.durable import write_json

        write_json(out, speed)
    echo(json.dumps(speed, indent=2, sort_keys=True)) if json_ else echo_aligned(_rows(speed))


def _record(arm: Any, seed: int, prompt: str, speed: dict[str, Any], results: Path) -> None:
    from eval.records.speed import write_speed

    write_speed(arm, seed, prompt, speed, results)


def _rows(speed: dict[str, Any]) -> list[list[str]]:
    """What a reader wants to know, in lines."""
    block, full = speed["block_seconds"], "full" if speed["window_full"] else "holds the whole video"
    rows = [
        ["loop", f"{speed['loop_frames_per_second']:.2f} frames/s", f"{speed['frames']} frames, no decoding"],
        [
            "with decoding",
            f"{speed['frames_per_second']:.2f} frames/s",
            f"by the {speed['decoder']}, beside the loop; no MP4",
        ],
        [
            "a block",
            f"{block['median']:.4f} s",
            f"median; 10 % below {block['low']:.4f}, 10 % above {block['high']:.4f}",
        ],
        [
            "first frame",
            f"{speed['first_frame_seconds']:.3f} s",
            f"from the prompt; cold {speed['cold_first_frame_seconds']:.3f} s",
        ],
        ["peak memory", f"{speed['peak_memory_bytes'] / MIB:,.0f} MiB", _of_memory(speed)],
        ["window", f"{speed['cache']['window']} latent frames", f"{full}, after {speed['warm_up_blocks']} more blocks"],
        ["passes", f"{speed['steps']} a block of {speed['block']}", f"{speed['height']} x {speed['width']} pixels"],
        ["attention", speed["attention"], _error(speed, "attention_error", "largest difference from plain attention")],
        ["linear layers", speed["linear"], _error(speed, "linear_error", "largest relative error of a layer")],
        ["cache", speed["kv"], _error(speed, "kv_error", "relative error of the latents")],
        ["graphs", "CUDA" if speed["graphs"] else "none", "compiled" if speed["compile"] else "not compiled"],
        ["dtype", speed["dtype"], f"noise by the {speed['noise']}"],
        ["device", speed["device_name"], f"{speed['threads']} threads, torch {speed['torch']}"],
    ]
    return [["what", "value", "how"], *rows]


def _of_memory(speed: dict[str, Any]) -> str:
    return "allocated on the device" if speed["device"] == "cuda" else "resident size of the process"


def _error(speed: dict[str, Any], key: str, what: str) -> str:
    return f"{what}: {speed[key]:.1e}" if speed.get(key) is not None else ""


def decoder(
    path: Annotated[str, typer.Argument(metavar="DECODER", help="Run of light_decoder_shapes, or its weights file.")],
    codec: Annotated[
        str | None, typer.Option(help="Codec whose pictures it learnt. Default: the packaged one.")
    ] = None,
    prompts: Annotated[int, typer.Option(min=1, max=MOST_PROMPTS, help="Held-out clips.")] = 64,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST, help="Of scenes and noise.")] = 0,
    results: Annotated[Path | None, typer.Option(help="Record it below this folder.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="JSON on stdout instead of a table.")] = False,
) -> None:
    """Compare a light decoder of the embedded world with the codec's decoder: speed-up of a stream, and what its
    pictures lose in PSNR on held-out clips.

    Example: astro bench decoder runs/light_decoder_shapes-seed0
    """
    with loading("both decoders, then timing"):
        from astro_cli.models.light_decoder import load_light_decoder
        from astro_cli.models.shapes_backbone import load_shapes_backbone
        from eval.world import decoders

        backbone = load_shapes_backbone(codec)
        light = load_light_decoder(path, backbone.codec)
        measured = decoders.measure(backbone, light, prompts, seed)
    if results is not None:
        decoders.write_records(measured, backbone, light, seed, results)
    shown = {key: median(values) if key == "speed_up" else fmean(values) for key, values in measured.items()}
    if json_:
        echo(json.dumps(shown, indent=2, sort_keys=True))
        return
    rows = [
        ["codec", f"{shown['psnr_codec']:.2f} dB", f"mean PSNR of {prompts} held-out clips"],
        ["light decoder", f"{shown['psnr']:.2f} dB", f"loses {shown['psnr_loss']:.2f} dB"],
        [
            "speed-up",
            f"{shown['speed_up']:.2f}",
            f"median of {len(measured['speed_up'])} pairs of streams, decoding alone",
        ],
    ]
    echo_aligned([["what", "value", "how"], *rows])


bench_app.command("decoder")(with_threads(decoder))
bench_app.command("sample")(with_threads(with_acceleration(sample)))

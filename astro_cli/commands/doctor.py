"""`astro doctor`: what this machine has and lacks. Looks and reports; installs, downloads and loads nothing."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from astro_cli.commands.console import plain_console
from astro_cli.commands.parity import parity
from astro_cli.commands.world import world
from astro_cli.models.zoo.places import checkpoints_folder
from astro_cli.rewards import scorer_places

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")  # a container's memory limit, which the machine's total does not show
GIB = 2**30
PACKAGES = (
    "torch", "diffusers", "peft", "accelerate", "transformers", "safetensors", "pydantic", "numpy", "pandas", "av", "matplotlib",
    "open-clip-torch", "decord", "vbench", "tensorboard",
)  # fmt: skip
NOTE = "The embedded world needs none of the optional parts. Wan 2.1 needs its transformer, VAE and text encoder, its rewards HPSv3 and VideoAlign."


@dataclass(frozen=True)
class Part:
    """A part astro does without: found where `module` is installed, a file in the checkpoints folder matches one of `files`, and nothing `lacks`."""

    key: str
    label: str
    kind: str  # "scorer" or "checkpoint"
    enables: str
    files: tuple[str, ...] = ()  # glob patterns below the folder, safetensors first; none: the module is enough
    module: str | None = None
    lacks: Callable[[], str] = lambda: ""  # what else it needs and where to put it


OPTIONAL = (
    Part("hpsv3", "HPSv3", "scorer", "HPSv3 columns; visual-quality reward of Wan recipes", ("HPSv3.safetensors",),
         lacks=scorer_places.missing_hpsv3),
    Part("videoalign", "VideoAlign", "scorer", "MQ columns; motion and alignment rewards of Wan recipes",
         ("VideoReward/**/adapter_model.safetensors", "VideoReward/**/model.pth"), lacks=scorer_places.missing_videoalign),
    Part("vbench", "VBench", "scorer", "Total, Quality and Semantic columns on Wan 2.1 videos", module="vbench"),
    Part("wan_transformer", "Wan 2.1 T2V 1.3B transformer", "checkpoint", "the teacher and critic of Wan distillation",
         ("Wan2.1-T2V-1.3B*/transformer/*.safetensors", "Wan2.1-T2V-1.3B*/diffusion_pytorch_model*.safetensors")),
    Part("wan_vae", "Wan 2.1 VAE", "checkpoint", "decoding and encoding of Wan 2.1 videos",
         ("Wan2.1*/vae/*.safetensors", "Wan2.1_VAE.safetensors", "Wan2.1_VAE.pth")),
    Part("umt5", "UMT5-XXL text encoder", "checkpoint", "prompts of Wan recipes",
         ("Wan2.1*/text_encoder/*.safetensors", "models_t5_umt5-xxl-enc-bf16.safetensors", "models_t5_umt5-xxl-enc-bf16.pth")),
    Part("self_forcing", "Self-Forcing student", "checkpoint", "recipe astrolabe_self_forcing",
         ("self_forcing_dmd.safetensors", "self_forcing_dmd.pt")),
    Part("causal_forcing", "Causal-Forcing student, chunk-wise", "checkpoint", "recipe astrolabe_causal",
         ("chunkwise/causal_forcing.safetensors", "chunkwise/causal_forcing.pt")),
    Part("longlive", "LongLive student with its LoRA", "checkpoint",
         "recipe astrolabe_longlive (astro zoo import longlive --lora longlive_lora)", ("longlive-merged/*.safetensors",)),
)  # fmt: skip


doctor_app = typer.Typer(name="doctor", invoke_without_command=True)
doctor_app.command("parity")(parity)
doctor_app.command("world")(world)
JsonOption = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]


@doctor_app.callback()
def doctor_group(context: typer.Context, json_: JsonOption = False) -> None:
    """Report versions, device, memory, packaged bases, and which optional parts are here; `parity` replays recordings of the released models,
    `world` measures what a base of the embedded world has learned.

    Optional checkpoints are looked for below the folder ASTRO_CHECKPOINTS names, by default ~/.cache/astro.

    Example: astro doctor --json
    """
    if context.invoked_subcommand is None:
        doctor(json_)


def doctor(json_: JsonOption = False) -> None:
    """Print the report, as tables or as JSON."""
    report = examine()
    if json_:
        typer.echo(json.dumps(report, indent=2))
    else:
        show(report)


def examine() -> dict[str, Any]:
    """The whole report; its keys are a stable interface."""
    devices = find_devices()
    folder = checkpoints_folder()
    return {
        "versions": versions(),
        "devices": devices,
        "machine": machine(),
        "bases": bases() if devices else [],
        "checkpoints": str(folder),
        "optional": [look_for(part, folder) for part in OPTIONAL],
        "note": NOTE,
    }


def versions() -> dict[str, str | None]:
    """Version of python, astro and the packages that matter; None where one is not installed. Imports none of them."""
    return {"python": platform.python_version(), "astro": version("astro-cli")} | {name: version(name) for name in PACKAGES}


def version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def find_devices() -> list[dict[str, Any]]:
    """The CPU, then CUDA devices, with their memory in GiB; nothing where torch cannot be imported."""
    try:
        import torch
    except (ImportError, OSError):  # a broken installation is what this command is for
        return []
    found: list[dict[str, Any]] = [{"kind": "cpu", "name": platform.processor() or platform.machine(), "memory_gib": None}]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        found.append({"kind": "cuda", "name": properties.name, "memory_gib": gib(properties.total_memory)})
    return found


def machine() -> dict[str, Any]:
    """Cores this process may use, threads torch will use, memory, and free disk in the current folder."""
    import psutil  # comes with accelerate

    memory, limit = psutil.virtual_memory(), memory_limit()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cores": cores, "threads": threads(), "ram_total_gib": gib(min(memory.total, limit)),
        "ram_available_gib": gib(min(memory.available, limit)), "disk_free_gib": gib(shutil.disk_usage(Path.cwd()).free),
    }  # fmt: skip


def threads() -> int | None:
    try:
        import torch
    except (ImportError, OSError):
        return None
    return torch.get_num_threads()


def memory_limit() -> float:
    """Bytes a container may use; infinite outside one."""
    text = CGROUP_LIMIT.read_text().strip() if CGROUP_LIMIT.is_file() else "max"
    return float(text) if text.isdigit() else float("inf")


def gib(size: float) -> float:
    return round(size / GIB, 1)


def bases() -> list[dict[str, Any]]:
    """Packaged bases with what their cards say."""
    from astro_cli.models import weights

    found = []
    for name in weights.packaged():
        card_file = weights.PACKAGED / f"{name}.json"
        card = json.loads(card_file.read_text(encoding="utf-8")) if card_file.is_file() else {}
        size = (weights.PACKAGED / f"{name}.safetensors").stat().st_size
        known = {key: card.get(key) for key in ("recipe", "recipe_hash", "seed", "commit", "scores")}
        found.append({"name": name, "bytes": size, **known})
    return found


def look_for(part: Part, folder: Path) -> dict[str, Any]:
    """Whether a part is here; `missing` says what to add."""
    path = next((path for pattern in part.files for path in sorted(folder.glob(f"**/{pattern}"))), None)
    missing = ""
    if part.module is not None and util.find_spec(part.module) is None:
        missing = f"the package {part.module}"
    elif part.files and path is None:
        missing = part.files[0]
    else:
        missing = part.lacks()
    return {
        "key": part.key, "kind": part.kind, "label": part.label, "found": not missing, "path": str(path) if path else None,
        "missing": missing, "enables": part.enables,
    }  # fmt: skip


def show(report: dict[str, Any]) -> None:
    """The report as tables on stdout."""
    console = plain_console()
    table(console, "versions", ("package", "version"), [(name, found or "not installed") for name, found in report["versions"].items()])
    table(console, "machine", ("what", "value"), machine_rows(report))
    rows = [(base["name"], base["recipe"] or "?", "?" if base["seed"] is None else str(base["seed"]), scores_text(base["scores"]))
            for base in report["bases"]]  # fmt: skip
    table(console, "packaged bases", ("name", "recipe", "seed", "scores"), rows)
    parts = [(part["label"], "yes" if part["found"] else "no", part["enables"], part["missing"]) for part in report["optional"]]
    table(console, f"optional parts, files in {report['checkpoints']}", ("part", "here", "enables", "missing"), parts)
    console.print(report["note"])


def machine_rows(report: dict[str, Any]) -> list[tuple[str, str]]:
    spec = report["machine"]
    devices = [f"{each['kind']} {each['name']}" + (f", {each['memory_gib']} GiB" if each["memory_gib"] else "") for each in report["devices"]]
    return [
        ("devices", "; ".join(devices) or "none: torch cannot be imported"),
        ("cores / threads", f"{spec['cores']} / {spec['threads'] or '?'}"),
        ("memory", f"{spec['ram_total_gib']} GiB, {spec['ram_available_gib']} GiB available"),
        ("disk, current folder", f"{spec['disk_free_gib']} GiB free"),
    ]


def scores_text(scores: dict[str, Any] | None) -> str:
    """ "colour 0.99, motion 0.98"; what is no number is left to --json."""
    numbers = [(key, value) for key, value in (scores or {}).items() if isinstance(value, int | float)]
    return ", ".join(f"{key} {value:.4g}" for key, value in numbers) or "none recorded"


def table(console: Console, title: str, headers: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    grid = Table(title=title, title_justify="left")
    for header in headers:
        grid.add_column(header, overflow="fold")
    for row in rows:
        grid.add_row(*row)
    if not rows:
        grid.add_row("none", *[""] * (len(headers) - 1))
    console.print(grid)

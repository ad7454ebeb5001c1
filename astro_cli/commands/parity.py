"""`astro doctor parity`: replays recordings of the released models on this machine and prints how close it comes.

Computes in `rollout.parity`.
"""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from astro_cli.commands.console import echo, echo_aligned, loading
from astro_cli.config.errors import EXIT_RUN, StreamError

if TYPE_CHECKING:
    from astro_cli.rollout.parity import CaseResult

HEADERS = ("recording", "case", "compared", "largest error", "tolerance", "verdict")


class ReplayDevice(StrEnum):
    cpu = "cpu"
    cuda = "cuda"


class ReplayDtype(StrEnum):
    float32 = "float32"
    bfloat16 = "bfloat16"


def parity(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="Folder of recordings: JSON descriptors, safetensors tensors, one weights file."
        ),
    ],
    device: Annotated[ReplayDevice, typer.Option(help="Where to replay.")] = ReplayDevice.cpu,
    dtype: Annotated[
        ReplayDtype, typer.Option(help="Of the weights and the cache; bfloat16 has a tolerance of its own.")
    ] = ReplayDtype.float32,
    json_: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    """Replay every recorded case and compare: largest error, tolerance, verdict. Exit code 1 if a case fails, 2 for an
    unusable folder.

    Example: astro doctor parity tests/golden
    """
    with loading("torch"):
        import torch

        from astro_cli.core import threads
        from astro_cli.rollout.parity import check_folder

    threads.fit(threads.SMALL)  # recordings are of tiny networks
    if device is ReplayDevice.cuda and not torch.cuda.is_available():
        raise StreamError("--device", "cuda", "no CUDA device is available", hint="use --device cpu")
    kind = {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype.value]
    with loading(f"and replaying the recordings of {folder}"):
        results = list(check_folder(folder, torch.device(device.value), kind))
    failed = [result for result in results if not result.passed]
    if json_:
        cases = [as_json(result) for result in results]
        echo(json.dumps({"device": device.value, "dtype": dtype.value, "passed": not failed, "cases": cases}, indent=2))
    else:
        show(results)
        echo(f"{len(results) - len(failed)} of {len(results)} cases pass ({device.value}, {dtype.value})")
    if failed:
        raise typer.Exit(EXIT_RUN)


def as_json(result: CaseResult) -> dict[str, Any]:
    """A result as plain data; an error that is no number is given as text, which JSON has no number for."""
    checks = [
        {
            "compared": check.quantity,
            "largest_error": check.error if check.error < float("inf") else str(check.error),
            "tolerance": check.tolerance,
            "passed": check.passed,
        }
        for check in result.checks
    ]
    return {"recording": result.source, "case": result.case, "passed": result.passed, "checks": checks}


def show(results: list[CaseResult]) -> None:
    """One line per case and compared quantity, in columns."""
    rows = [
        [
            result.source,
            result.case,
            check.quantity,
            f"{check.error:.1e}",
            f"{check.tolerance:.0e}",
            "ok" if check.passed else "FAIL",
        ]
        for result in results
        for check in result.checks
    ]
    echo_aligned([[*HEADERS], *rows])

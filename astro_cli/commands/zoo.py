"""`astro zoo`: lists, imports and verifies released checkpoints on this disk. `list` needs no torch."""

from __future__ import annotations

import json
from enum import StrEnum
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any

import typer

from astro_cli.commands.console import echo, echo_aligned, loading
from astro_cli.commands.recipe import JsonOption
from astro_cli.config.errors import EXIT_RUN, CheckpointError
from astro_cli.config.files import Reader
from astro_cli.zoo.entries import ENTRIES, Release
from astro_cli.zoo.places import CHECKPOINTS_VARIABLE, MANIFEST, checkpoints_folder, imported, locate, released, target

IMPORTED, HERE, MISSING = "imported", "here", "missing"
LORA_HELP = "LoRA to merge: file, folder, name or hub id, at a strength (default 1); repeatable, they add up."

zoo_app = typer.Typer(
    name="zoo", no_args_is_help=True, help="List, import and verify released checkpoints.\n\nExample: astro zoo list"
)
SourceArgument = Annotated[
    str, typer.Argument(metavar="NAME|PATH", help="A name of `astro zoo list`, or a file or folder.")
]


class StoredDtype(StrEnum):
    bf16 = "bf16"
    fp16 = "fp16"
    fp32 = "fp32"


@zoo_app.command("list")
def list_(json_: JsonOption = False) -> None:
    """List the released checkpoints astro knows, which are here, and where a missing one belongs.

    Example: astro zoo list
    """
    rows = [row(entry) for entry in ENTRIES]
    if json_:
        echo(json.dumps({"checkpoints": str(checkpoints_folder()), "entries": rows}, indent=2))
        return
    columns = ("name", "state", "what", "format", "nesting", "licence", "repo", "file")
    of_row = itemgetter(*columns)
    echo_aligned([list(columns), *(list(map(str, of_row(each))) for each in rows)])
    folder = f"{checkpoints_folder()} ({CHECKPOINTS_VARIABLE})"
    echo(
        (
            f"a missing FILE of OWNER/REPO belongs at REPO/FILE below {folder}; `astro zoo import NAME` converts "
            "what is here"
        ),
        err=True,
    )


def row(entry: Release) -> dict[str, Any]:
    """What `list` says of an entry; `path` is where it is, or where its file belongs."""
    done, raw = imported(entry), released(entry)
    return {
        "name": entry.name,
        "state": IMPORTED if done else HERE if raw else MISSING,
        "kind": entry.kind,
        "what": entry.what,
        "repo": entry.repo,
        "file": entry.file,
        "format": entry.format,
        "nesting": entry.nesting,
        "licence": entry.licence,
        "path": str(done or raw or target(entry)),
    }


@zoo_app.command("import")
def import_(
    source: SourceArgument,
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="DIR", help="Folder to write; default: NAME in the checkpoints folder."),
    ] = None,
    lora: Annotated[list[str] | None, typer.Option("--lora", metavar="SOURCE[:STRENGTH]", help=LORA_HELP)] = None,
    dtype: Annotated[StoredDtype | None, typer.Option("--dtype", help="Cast to; default as stored.")] = None,
    ema: Annotated[
        bool | None,
        typer.Option("--ema/--no-ema", help="Only, or never, the moving average; default as the release does."),
    ] = None,
) -> None:
    """Convert a checkpoint into one folder: safetensors in diffusers' names, config.json, manifest.json. Whole or not
    at all.

    Example: astro zoo import self_forcing --dtype bf16
    """
    with loading(source):
        from astro_cli.commands.progress import RunProgress
        from astro_cli.models.importing import import_checkpoint

    with RunProgress() as progress:
        folder, new = import_checkpoint(
            source, to, lora=lora or [], dtype=dtype.value if dtype else None, ema=ema, report=progress.work
        )
    manifest = Reader(CheckpointError).table(folder / MANIFEST)
    echo(folder)
    echo(
        (
            f"{'imported' if new else 'there already'}: {manifest['nesting']}, {manifest['names']}, "
            f"{manifest['parameters']:,} parameters"
        ),
        err=True,
    )
    echo(f"licence: {manifest['licence']}", err=True)


@zoo_app.command()
def verify(source: SourceArgument, json_: JsonOption = False) -> None:
    """Check names, shapes, dtype and sha256 of an import, or names and shapes of a release; exit code 1 if something is
    wrong.

    Example: astro zoo verify self_forcing
    """
    with loading(source):
        from astro_cli.commands.progress import RunProgress
        from astro_cli.models.verify import problems

        path = locate(source)
    with RunProgress() as progress:
        faults = problems(path, progress.work)
    whole = (path / MANIFEST).is_file()
    if json_:
        echo(json.dumps({"path": str(path), "ok": not faults, "manifest": whole, "problems": faults}, indent=2))
    elif faults:
        for line in faults:
            echo(f"wrong  {line}")
    else:
        echo(f"ok  {path}" + ("" if whole else "  (no manifest: bytes not checked)"))
    if faults:
        raise typer.Exit(EXIT_RUN)

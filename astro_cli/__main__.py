"""The `astro` command line: registers commands and turns users' errors into messages. Heavy packages are imported by
the command that needs them."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Annotated

import typer

from astro_cli.commands.ablate import ablate
from astro_cli.commands.acceleration_options import with_acceleration
from astro_cli.commands.bench import bench_app
from astro_cli.commands.claims import claims
from astro_cli.commands.doctor import doctor_app
from astro_cli.commands.evaluate import eval_app
from astro_cli.commands.figures import figures
from astro_cli.commands.plan import plan_app
from astro_cli.commands.recipe import recipe_app
from astro_cli.commands.report import report
from astro_cli.commands.reproduce import reproduce
from astro_cli.commands.sample import sample
from astro_cli.commands.study import study_app
from astro_cli.commands.table import table
from astro_cli.commands.threads_option import with_threads
from astro_cli.commands.training_commands import distill, long_tune, prefer, pretrain, rl, sft
from astro_cli.commands.usage import run_app
from astro_cli.commands.zoo import zoo_app
from astro_cli.config.errors import EXIT_RUN, AstroError, OutputError, RunError, is_out_of_memory
from astro_cli.core import processes


def print_version(is_given: bool) -> None:
    if is_given:
        from importlib import metadata  # slow to import

        typer.echo(f"astro {metadata.version('astro-cli')}")
        raise typer.Exit


app = typer.Typer(
    name="astro",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.callback()
def astro(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Distil, align and evaluate streaming video models, and print the papers' tables with measured numbers.

    Example: astro table astrolabe-1
    """


for name, command in {
    "pretrain": with_threads(pretrain),
    "distill": with_threads(distill),
    "rl": with_threads(rl),
    "long-tune": with_threads(long_tune),
    "sft": with_threads(sft),
    "prefer": with_threads(prefer),
    "sample": with_threads(with_acceleration(sample)),
    "ablate": with_threads(ablate),
    "table": table,
    "claims": claims,
    "figures": with_threads(figures),
    "report": with_threads(report),
    "reproduce": with_threads(reproduce),
}.items():
    app.command(name)(command)
app.add_typer(eval_app)
app.add_typer(study_app)
app.add_typer(recipe_app)
app.add_typer(zoo_app)
app.add_typer(doctor_app)
app.add_typer(bench_app)
app.add_typer(plan_app)


# What to do about a system error that can happen to any command: a full disk ends a run, a path that cannot be is a
# wrong command line.
AGAIN = "a started run continues with --resume, an evaluation with the same command"
HINTS = {
    errno.ENOSPC: f"free space; {AGAIN}",
    errno.EDQUOT: f"your quota is used up: free space; {AGAIN}",
    errno.EFBIG: "the file system or `ulimit -f` allows no file of this size: choose another folder",
    errno.EIO: f"the disk reports an error: choose another one; {AGAIN}",
    errno.ENOMEM: "free memory, or use smaller batches and sizes",
    errno.EMFILE: "too many open files: raise `ulimit -n`",
    errno.EACCES: "choose a folder that can be read and written",
    errno.EPERM: "choose a folder that can be read and written",
    errno.EROFS: "choose a folder that can be written",
    errno.ESTALE: f"the network's file system lost the file; {AGAIN}",
}
WRONG_PATHS = {
    errno.ENAMETOOLONG: "file names hold at most 255 bytes, paths 4,096",
    errno.ENOTDIR: "a part of the path before the last is a file",
    errno.EISDIR: "a file is expected there, it is a folder",
    errno.EINVAL: "regular files are read, no folders, pipes or devices",
    errno.ELOOP: "the path's symbolic links lead in a circle",
    errno.EEXIST: "a file is there already, and a folder is expected",
}


def main() -> None:
    """Entry point: runs the app; an `AstroError`, a wrong command line included, becomes its message and exit code,
    never a traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not where it is closed, or a test's
            stream.reconfigure(errors="backslashreplace")  # file names need not be text that the terminal can show
    os.environ["PYTHONSAFEPATH"] = "1"  # processes started from here import nothing from the current folder
    processes.end_with_starter()
    try:
        sys.exit(run_app(app))
    except AstroError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader of our output has ended, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_RUN)
    except OSError as error:
        if error.errno not in (*HINTS, *WRONG_PATHS):
            raise
        hint = HINTS.get(error.errno) or WRONG_PATHS[error.errno]
        kind = OutputError if error.errno in WRONG_PATHS else RunError
        shown = kind(error.filename or "output", "", str(error.strerror), hint=hint)
        print(shown, file=sys.stderr)
        sys.exit(shown.exit_code)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        print(
            RunError("memory", "", str(error).partition("\n")[0] or "used up", hint=HINTS[errno.ENOMEM]),
            file=sys.stderr,
        )
        sys.exit(EXIT_RUN)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(EXIT_RUN)


if __name__ == "__main__":
    main()

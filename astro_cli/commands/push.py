"""`--push-to-hub`: a finished run's weights with a model card, in one commit of a Hugging Face repository.

Everything goes through `hub_api`, the one place that makes the hub's client.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from astro_cli.commands.console import echo
from astro_cli.config.errors import OutputError, RunError
from astro_cli.config.files import Reader
from astro_cli.zoo import hub

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi

    from astro_cli.training.rundir import RunDir

OPTION = "--push-to-hub"
PushOption = Annotated[
    str | None,
    typer.Option(OPTION, metavar="OWNER/NAME", help="Push final/ with a model card when done; needs a token."),
]
CARD, README, RECIPE = "card.json", "README.md", "recipe.toml"


def hub_api() -> HfApi:
    """The hub's client with the user's token (`hf auth login`, or HF_TOKEN).

    Raises:
        OutputError: there is no token.
    """
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        raise OutputError(OPTION, "", "no token of the Hugging Face hub", hint="hf auth login, or set HF_TOKEN")
    return HfApi()


def check_name(repo: str) -> None:
    """Refuse what names no repository.

    Raises:
        OutputError: it has another form than OWNER/NAME.
    """
    hub_id = hub.parse(repo)
    if hub_id is None or str(hub_id) != hub_id.repo:
        raise OutputError(OPTION, repo, "expected OWNER/NAME", hint=f"for example {OPTION} you/my-student")


def check_push(repo: str) -> None:
    """Refuse what cannot be pushed before anything is trained: a name that is none, no token, a token that is refused.

    Raises:
        OutputError: a wrong name, or no token.
        RunError: the hub does not answer, or refuses the token.
    """
    check_name(repo)
    _answer(repo, hub_api().whoami, "nothing was trained: check the token (`hf auth whoami`) or the network")


def push(run: RunDir, repo: str, results: Path) -> str:
    """Push a finished run; returns the commit's address.

    Args:
        results: folder of the records that the card shows.

    Raises:
        OutputError: the run is not finished, one of its files is damaged, or its card lists none.
        RunError: the hub does not take it; the run is whole on the disk.
    """
    if not run.finished:
        raise OutputError(run.path, OPTION, "the run is not finished", hint="--resume continues it")
    if fault := run.final_fault():
        raise OutputError(run.path, OPTION, fault, hint="--resume writes the final weights again")
    card = run.final / CARD
    if not Reader(OutputError).table(card).get("files"):
        hint = "written by an earlier version; delete it, and --resume writes the final weights again"
        raise OutputError(card, "files", "found none, expected the final weights' files", hint=hint)
    api, kept = hub_api(), "the run is whole on the disk: the same command with --resume pushes it"
    _answer(repo, lambda: api.create_repo(repo, exist_ok=True), kept)
    message = f"astro {run.recipe().command}: {run.recipe().name}, seed {run.recipe().seed}"
    commit = _answer(
        repo,
        lambda: api.create_commit(repo_id=repo, operations=operations(run, repo, results), commit_message=message),
        kept,
    )
    return str(commit.commit_url)


def operations(run: RunDir, repo: str, results: Path) -> list[CommitOperationAdd]:
    """What is pushed: every file of the run's card, the card, the resolved recipe and the model card."""
    from huggingface_hub import CommitOperationAdd

    from eval.records.store import load_results
    from eval.report.model_card import model_card, recipe_text

    names = [*Reader(OutputError).table(run.final / CARD)["files"], CARD]
    texts = {
        README: model_card(run, repo, load_results(results) if (results / "records").is_dir() else []),
        RECIPE: recipe_text(run.recipe()),
    }
    files = [CommitOperationAdd(name, str(run.final / name)) for name in sorted(names)]
    return files + [CommitOperationAdd(name, text.encode()) for name, text in texts.items()]


def push_and_say(path: Path, repo: str, results: Path) -> None:
    """Push the run in a folder, from the main process only."""
    from accelerate import PartialState

    from astro_cli.training.rundir import RunDir

    if PartialState().is_main_process:
        echo(f"pushed: {push(RunDir(path), repo, results)}", err=True)


def _answer(repo: str, call: Any, hint: str) -> Any:
    """What the hub answers.

    Raises:
        RunError: it does not, or refuses.
    """
    try:
        return call()
    except Exception as error:  # the client raises its own errors, those of the network library and of the system
        what = str(error).strip().partition("\n")[0] or type(error).__name__
        raise RunError(OPTION, repo, what, hint=hint) from error

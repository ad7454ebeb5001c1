"""`--push-to-hub`: refused before anything without a token; one commit with all of final/, the recipe and a model card;
what was pushed is loaded from the Hugging Face cache. The hub is a fake that keeps what it is given.
"""

from __future__ import annotations

from types import SimpleNamespace

import huggingface_hub
import pytest
import yaml

from astro_cli import load_student, train
from astro_cli.commands import push
from astro_cli.config.errors import OutputError, RunError
from astro_cli.recipe import load_recipe
from astro_cli.training.rundir import RunDir
from eval.records.store import Record
from eval.report.model_card import base_of, model_card

REPO = "you/my-student"
SMALL = [f"stages.nft.{key}" for key in ("experience.prompts=2", "experience.group=2", "batch=4")]


class Hub:
    """Keeps what is committed; refuses everything where it is told to."""

    def __init__(self, refusal: str = "") -> None:
        self.refusal, self.created, self.files, self.message = refusal, [], {}, ""

    def whoami(self) -> dict[str, str]:
        if self.refusal:
            raise ConnectionError(self.refusal)
        return {"name": "you"}

    def create_repo(self, repo: str, *, exist_ok: bool) -> None:
        assert exist_ok
        self.created.append(repo)

    def create_commit(self, *, repo_id: str, operations, commit_message: str) -> SimpleNamespace:
        assert repo_id in self.created
        for operation in operations:
            with operation.as_file() as file:
                self.files[operation.path_in_repo] = file.read()
        self.message = commit_message
        return SimpleNamespace(commit_url=f"https://huggingface.co/{repo_id}/commit/1")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunDir:
    out = tmp_path_factory.mktemp("push") / "run"
    return train("astrolabe_causal_shapes", overrides=SMALL, steps=1, out=out, progress=False)


@pytest.fixture
def the_hub(monkeypatch) -> Hub:
    fake = Hub()
    monkeypatch.setattr(push, "hub_api", lambda: fake)
    return fake


def record(run: RunDir, arm: str, weights: str, scores: list[float]) -> Record:
    return Record(
        benchmark="shapes",
        backbone="shapes",
        arm=arm,
        seed=0,
        metric="vq",
        direction="up",
        scores=scores,
        recipe_hash="a" * 16,
        weights_hash=weights,
        prompt_set_hash="b" * 16,
        protocol={"prompts": 2},
        commit="c" * 40,
        dirty=False,
    )


def test_without_a_token_nothing_begins(astro, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    arguments = ("rl", "--recipe", "astrolabe_causal_shapes", "--out", str(tmp_path / "run"), "--push-to-hub", REPO)
    code, _, err = astro(*arguments)
    assert code == 2
    assert err.splitlines() == [
        "error: --push-to-hub: no token of the Hugging Face hub",
        "hint: hf auth login, or set HF_TOKEN",
    ]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("repo", ["my-student", "you/my-student/final", "you/my-student@main", "", "../x/y"])
def test_a_name_that_is_none_is_refused(repo, the_hub) -> None:
    with pytest.raises(OutputError, match="expected OWNER/NAME"):
        push.check_push(repo)


def test_a_refusal_of_the_hub_is_said_before_training(monkeypatch) -> None:
    monkeypatch.setattr(push, "hub_api", lambda: Hub("401 Unauthorized"))
    with pytest.raises(RunError, match="401 Unauthorized") as caught:
        push.check_push(REPO)
    assert caught.value.hint.startswith("nothing was trained: check the token")


def test_a_name_that_is_none_is_refused_by_a_dry_run_too(astro) -> None:
    code, out, err = astro("rl", "--recipe", "astrolabe_causal_shapes", "--push-to-hub", "noowner", "--dry-run")
    assert (code, out) == (2, "")
    assert err.splitlines()[0] == "error: --push-to-hub: noowner: expected OWNER/NAME"


def test_a_card_without_files_is_refused_before_a_repository_is_made(tmp_path, the_hub) -> None:
    run = RunDir(tmp_path)
    run.final.mkdir()
    (run.final / push.CARD).write_text('{"recipe": "of an earlier version"}')
    assert run.finished
    with pytest.raises(OutputError, match="files: found none") as caught:
        push.push(run, REPO, tmp_path)
    assert "--resume writes the final weights again" in caught.value.hint
    assert the_hub.created == []


def test_a_refusal_after_training_says_that_the_run_is_whole(run, the_hub, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(the_hub, "create_commit", lambda **_: (_ for _ in ()).throw(ConnectionError("no route")))
    with pytest.raises(RunError, match="no route") as caught:
        push.push(run, REPO, tmp_path)
    assert caught.value.hint.startswith("the run is whole on the disk")


def test_an_unfinished_run_is_not_pushed(tmp_path, the_hub) -> None:
    with pytest.raises(OutputError, match="not finished"):
        push.push(RunDir(tmp_path), REPO, tmp_path)
    assert the_hub.created == []


def test_a_finished_run_is_pushed_whole_and_loads_from_the_cache(astro, run, the_hub, hub_cache) -> None:
    sets = [f"--set={override}" for override in SMALL]
    arguments = ("rl", "--recipe", "astrolabe_causal_shapes", *sets, "--steps", "1", "--out", str(run.path))
    code, _, err = astro(*arguments, "--resume", "--push-to-hub", REPO)
    assert code == 0, err
    assert err.splitlines()[-1] == f"pushed: https://huggingface.co/{REPO}/commit/1"
    here = {path.relative_to(run.final).as_posix(): path for path in run.final.rglob("*") if path.is_file()}
    assert the_hub.files.keys() == here.keys() | {"README.md", "recipe.toml"}
    assert all(the_hub.files[name] == path.read_bytes() for name, path in here.items())
    assert the_hub.message == "astro rl: astrolabe_causal_shapes, seed 0"
    hub_cache.put(REPO, the_hub.files)
    assert load_student(REPO).weights_hash() == load_student(run.path).weights_hash()
    assert load_student(f"{REPO}@main").card == load_student(run.path).card
    adapter = load_student(lora=f"{REPO}/lora:0.5")
    assert adapter.weights_hash() != load_student().weights_hash()


def test_the_card_says_base_licence_recipe_and_the_row(run) -> None:
    own = load_student(run.path)
    records = [
        record(run, "causal_forcing_shapes", "d" * 16, [0.5, 0.7]),
        record(run, own.name, own.weights_hash(), [0.6, 0.9]),  # + 0.1 and + 0.2
        record(run, own.name, "e" * 16, [0.0, 0.0]),  # of other weights
    ]
    card = model_card(run, REPO, records[:2])
    _, header, text = card.split("---\n", 2)
    assert yaml.safe_load(header) == {
        "library_name": "astro-cli",
        "license": "apache-2.0",
        "pipeline_tag": "text-to-video",
        "tags": ["rl", "shapes", run.recipe().paper],
    }
    assert "| base | `shapes/causal_forcing` |" in text
    assert "| licence of the base | Apache-2.0 |" in text
    assert f"hash `{run.recipe().hash()}`" in text
    assert "| shapes | vq | 0.600 | 0.750 | +0.150 [" in text
    assert f"hf download {REPO}" in text
    assert 'name = "astrolabe_causal_shapes"' in text
    assert "Not evaluated" in model_card(run, REPO, records[2:])


@pytest.mark.parametrize(
    ("recipe", "file", "repo", "licence"),
    [
        ("astrolabe_self_forcing", "checkpoints/self_forcing_dmd.pt", "gdhe17/Self-Forcing", "Apache-2.0 (code)"),
        ("astrolabe_causal", "chunkwise/causal_forcing.pt", "zhuhz22/Causal-Forcing", "Apache-2.0 (code)"),
    ],
)
def test_a_released_base_is_named_with_its_repository_and_licence(recipe, file, repo, licence, hub_cache) -> None:
    hub_cache.put(repo, {file: b""})
    base = base_of(load_recipe(recipe))
    assert (base.repo, base.licence) == (repo, licence)

"""Where transformer checkpoints are found, and what is said of those that are not here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from released_layouts import (
    CONFIG,
    LAYOUTS,
    forward,
    network,
    original,
    refusal,
    write_original,
    write_pickle,
)
from safetensors.torch import save_file

from astro_cli.config.errors import CheckpointError
from astro_cli.models.checkpoint import load_transformer

pytestmark = pytest.mark.usefixtures("nowhere")


def test_files_below_the_checkpoints_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(tmp_path))
    monkeypatch.chdir(tmp_path.parent)
    wanted = network(1).state_dict()
    path = write_pickle(
        tmp_path / "Self-Forcing" / "checkpoints" / "self_forcing_dmd.pt", {"generator_ema": original(wanted)}
    )
    # by the recipe's relative path, by part of it, by another ending, by the release's name
    for source in (
        "checkpoints/self_forcing_dmd.pt",
        "self_forcing_dmd.pt",
        "checkpoints/self_forcing_dmd.safetensors",
        "self_forcing",
    ):
        assert load_transformer(source, config=CONFIG).source == path
    folder = write_original(tmp_path / "models" / "Wan2.1-T2V-1.3B", wanted)
    for source in ("Wan2.1-T2V-1.3B", "wan_1.3b", str(folder)):
        assert load_transformer(source).source.parent == folder


def test_what_is_not_here_says_where_it_belongs(monkeypatch, tmp_path):
    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(tmp_path))
    text = refusal("longlive")
    assert (
        "put models/longlive_base.pt of Efficient-Large-Model/LongLive-1.3B at "
        f"{tmp_path}/LongLive-1.3B/models/longlive_base.pt"
    ) in text
    assert "did you mean 'self_forcing'?" in refusal("selfforcing")
    assert "no such checkpoint" in refusal("")
    assert "no such checkpoint" in refusal(tmp_path / "no.pt")


def test_a_finished_run_gives_its_student(tmp_path):
    wanted = network(1)
    (tmp_path / "run" / "final").mkdir(parents=True)
    save_file(wanted.state_dict(), tmp_path / "run" / "final" / "student.safetensors")
    (tmp_path / "run" / "final" / "student.json").write_text(json.dumps({"model": CONFIG.model_dump(mode="json")}))
    found = load_transformer(tmp_path / "run")
    assert found.config == CONFIG
    assert torch.equal(found.state["proj_out.weight"], wanted.proj_out.weight)


def test_a_recipe_on_wan_starts_from_a_released_file(monkeypatch, tmp_path):
    from astro_cli.recipe import load_recipe
    from astro_cli.training import build

    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(tmp_path))
    config = CONFIG.model_copy(update={"text_len": 512})
    wanted = network(1, config)
    write_pickle(tmp_path / "chunkwise" / "causal_forcing.pt", {"generator": original(wanted.state_dict(), "model.")})
    fields = {**config.model_dump(mode="json"), "patch": [2, 2]}
    recipe = load_recipe("astrolabe_causal", [f"model.{key}={value}" for key, value in fields.items()])
    assert recipe.base.student == "chunkwise/causal_forcing.safetensors"
    assert torch.equal(forward(build._network(recipe, "student").eval()), forward(wanted))
    shutil.rmtree(tmp_path / "chunkwise")
    with pytest.raises(CheckpointError, match=r"not imported, and neither below"):
        build._network(recipe, "student")


def test_the_table_has_every_transformer_entry_of_section_9():
    from astro_cli.zoo.entries import ENTRIES, of_path

    assert len({entry.name for entry in ENTRIES}) == len(ENTRIES)
    for entry in ENTRIES:
        path = Path("some") / entry.folder / entry.file
        owner = of_path(path) or of_path(path.parent) or of_path(path.parent.parent)
        assert owner == entry
    assert LAYOUTS.keys() >= {"Self-Forcing", "LongLive", "Reward Forcing", "MemFlow", "Krea 14B"}

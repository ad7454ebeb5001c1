"""The list of what a command on Wan needs: marks, places, and lines that bring what is missing."""

import shlex

import pytest

from astro_cli.config.errors import CheckpointError
from astro_cli.recipe import load_recipe
from astro_cli.training.build import wanted_roles
from astro_cli.training.needs import check_needs
from astro_cli.zoo import needs
from astro_cli.zoo.places import locate


@pytest.fixture
def folder(tmp_path, monkeypatch, hub_cache):
    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(recipe: str) -> CheckpointError:
    loaded = load_recipe(recipe)
    with pytest.raises(CheckpointError) as caught:
        check_needs(loaded, wanted_roles(loaded))
    return caught.value


def test_every_missing_part_is_in_one_list_with_the_line_that_brings_it(folder):
    error = refused("astrolabe_causal")
    first, *lines = error.what.splitlines()
    assert first == "5 of 5 parts are not on this machine"
    marks = [line.strip().removeprefix("[ ] ").split(":")[0] for line in lines if "[ ]" in line]
    assert marks == ["student", "Wan 2.1 folder", "prompts", "reward vq", "reward mq, ta"]
    downloads = [shlex.split(line) for line in lines if line.strip().startswith("hf download")]
    assert ["zhuhz22/Causal-Forcing", "chunkwise/causal_forcing.pt"] in [line[2:4] for line in downloads]
    assert error.hint == "without any weights, in the embedded world: astro rl --recipe astrolabe_causal_shapes"


def test_what_is_here_is_marked_with_its_place(folder):
    (folder / "prompts").mkdir()
    prompts = folder / "prompts" / "vidprom_filtered.txt"
    prompts.write_text("a red ball\n")
    what = refused("astrolabe_causal").what
    assert "4 of 5 parts" in what
    assert "[x] prompts: prompts/vidprom_filtered.txt" in what


def test_a_line_puts_a_release_where_it_is_then_found(hub_cache):
    need = needs.weights("student", "causal_forcing")
    assert need.here is None
    _, _, repo, file = shlex.split(need.bring[0])
    snapshot = hub_cache.put(repo, {file: b""})
    assert needs.weights("student", "causal_forcing").here == snapshot / file == locate("causal_forcing")


def test_the_embedded_world_needs_nothing(folder):
    recipe = load_recipe("astrolabe_causal_shapes")
    check_needs(recipe, wanted_roles(recipe))


def test_a_release_that_is_written_wrong_is_named(folder):
    assert "did you mean 'self_forcing'?" in needs.weights("student", "self_forcng").bring[0]

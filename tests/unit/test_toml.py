"""Reading recipes: extends, merging, --set and origins. What the keys mean is tested with the recipes."""

from __future__ import annotations

from pathlib import Path

import pytest

from astro_cli.config import toml
from astro_cli.config.errors import RecipeError


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes recipe files by name into an empty current folder."""
    monkeypatch.chdir(tmp_path)

    def files(**texts: str) -> None:
        for name, text in texts.items():
            (tmp_path / f"{name}.toml").write_text(text, encoding="utf-8")

    return files


def test_extends_goes_through_the_whole_chain(write):
    write(a="x = 1\ny = 1\nz = 1", b='extends = "a.toml"\ny = 2\nz = 2', c='extends = "b"\nz = 3')
    document = toml.load("c")
    assert document.data == {"x": 1, "y": 2, "z": 3}
    assert document.path == "c.toml"
    assert document.origins == {"x": "a.toml", "y": "b.toml", "z": "c.toml"}


def test_a_parent_is_looked_for_beside_the_child_first(write, tmp_path):
    write(base="x = 1")
    folder = tmp_path / "sub"
    folder.mkdir()
    (folder / "base.toml").write_text("x = 2")
    (folder / "child.toml").write_text('extends = "base.toml"')
    assert toml.load("sub/child.toml").data == {"x": 2}


def test_a_cycle_is_refused_with_its_path(write):
    write(a='extends = "b.toml"', b='extends = "c.toml"', c='extends = "a.toml"')
    with pytest.raises(RecipeError, match="extends itself") as caught:
        toml.load("a.toml")
    assert caught.value.hint == "a.toml -> b.toml -> c.toml -> a.toml"


def test_a_missing_parent_names_the_file_that_wants_it(write):
    write(child='extends = "selfforcing_shapes.toml"')
    with pytest.raises(RecipeError) as caught:
        toml.load("child.toml")
    error = caught.value
    assert (error.where, error.key) == ("child.toml", "extends")
    assert "'self_forcing_shapes.toml'" in error.hint


@pytest.mark.parametrize("parent", ["3", '["a", "b"]'])
def test_extends_takes_one_name(write, parent):
    write(child=f"extends = {parent}")
    with pytest.raises(RecipeError, match=r"child\.toml: extends"):
        toml.load("child.toml")


def test_tables_merge_and_arrays_are_replaced(write):
    write(
        base='steps = [4, 3, 2, 1]\n[stages.a]\noptim = { lr = 1, betas = [0.9, 0.99] }\nobjective = { kind = "x" }\n',
        child='extends = "base"\nsteps = [9]\n[stages.a.optim]\nbetas = [0.5]\n[stages.b]\nlr = 7\n',
    )
    assert toml.load("child").data == {
        "steps": [9],
        "stages": {"a": {"optim": {"lr": 1, "betas": [0.5]}, "objective": {"kind": "x"}}, "b": {"lr": 7}},
    }


def test_a_value_replaces_a_table_and_a_table_a_value(write):
    write(base="[t]\nx = 1\n[u]\ny = { z = 1 }", child='extends = "base"\nt = 5\nu.y = 2')
    document = toml.load("child", ["t.x=3"])
    assert document.data == {"t": {"x": 3}, "u": {"y": 2}}
    assert document.origin("t.x") == "--set t.x=3"
    assert (
        document.origin("u.y.z") == "child.toml"
    )  # y's table is gone, and with it the base as origin of what was in it


def test_origins_are_per_key(write):
    write(base="[s.a]\nlr = 1\nclip = 1\neps = 1", child='extends = "base"\n[s.a]\nlr = 2')
    document = toml.load("child", ["s.a.clip=3"])
    assert {key: document.origin(f"s.a.{key}") for key in ("lr", "clip", "eps")} == {
        "lr": "child.toml",
        "clip": "--set s.a.clip=3",
        "eps": "base.toml",
    }
    assert document.origin("nowhere") == "child.toml"  # a missing key is the recipe's own fault


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("k=3", 3),
        ("k=1e-3", 1e-3),
        ("k=true", True),
        ("k=[1, 2]", [1, 2]),
        ('k="3"', "3"),
        ("k={ kind = 'nft' }", {"kind": "nft"}),
        ("k=shapes", "shapes"),
        ("k=a/b c.txt", "a/b c.txt"),
        ("k=x=y", "x=y"),
        ("k= 3 ", 3),
        ("k=", ""),
    ],
)
def test_set_reads_toml_values_and_bare_words(write, text, value):
    write(r="k = 0")
    found = toml.load("r", [text]).data["k"]
    assert found == value
    assert type(found) is type(value)


def test_the_last_set_wins(write):
    write(r="k = 0")
    document = toml.load("r", ["k=1", "k=2"])
    assert document.data["k"] == 2
    assert document.origin("k") == "--set k=2"


@pytest.mark.parametrize("text", ["k", "=1", "", "a..b=1", ".a=1", "a.=1"])
def test_a_malformed_set_is_refused(write, text):
    write(r="k = 0")
    with pytest.raises(RecipeError, match="expected KEY=VALUE"):
        toml.load("r", [text])


def test_damaged_files_are_named(write, tmp_path):
    write(bad="x = [")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    for name, what in (("bad", "not valid TOML"), ("binary", "cannot be read")):
        with pytest.raises(RecipeError, match=what) as caught:
            toml.load(name)
        assert caught.value.where == f"{name}.toml"


@pytest.mark.parametrize("name", ["astrolabe_causal", "astrolabe_causal.toml", "astrolabe/astrolabe_causal.toml"])
def test_bare_names_are_found_from_anywhere(write, name):
    assert toml.find_recipe(name) == toml.recipes_dir() / "astrolabe" / "astrolabe_causal.toml"


def test_the_current_folder_comes_first(write):
    write(astrolabe_causal="x = 1")
    assert toml.find_recipe("astrolabe_causal") == Path("astrolabe_causal.toml")


def test_a_name_without_its_ending_lists_those_that_begin_so(write):
    with pytest.raises(RecipeError) as caught:
        toml.find_recipe("self_forcing.toml")
    assert caught.value.hint.startswith("did you mean 'self_forcing_ode_shapes.toml' or ")


@pytest.mark.parametrize("name", ["", ".", "/", "x**", "[a", "causal.toml", "\0"])
def test_odd_names_are_just_not_found(write, name):
    with pytest.raises(RecipeError, match="no such recipe"):
        toml.find_recipe(name)


def test_a_table_given_by_set_replaces_the_one_that_was_there(write):
    write(base="[e]\nrewards = { vq = 1.0, mq = 1.0 }\nn = 1", child='extends = "base"\n[e.rewards]\nmq = 2.0')
    assert toml.load("child").data["e"] == {"rewards": {"vq": 1.0, "mq": 2.0}, "n": 1}
    assert toml.load("child", ["e.rewards={ta=3.0}"]).data["e"] == {"rewards": {"ta": 3.0}, "n": 1}
    assert toml.load("child", ["e.rewards={}", "e.rewards.vq=4.0"]).data["e"] == {"rewards": {"vq": 4.0}, "n": 1}
    assert toml.load("child", ["e.rewards={ta=3.0}"]).origin("e.rewards.ta") == "--set e.rewards={ta=3.0}"

"""Command lines that cannot be understood: one form of message for all commands, and the exits that are no errors."""

from __future__ import annotations

from importlib import metadata

import pytest
import typer

from astro_cli import __main__

FLICKER = ("eval", "temporal-flickering")


@pytest.mark.parametrize(
    ("arguments", "what", "hint"),
    [
        (
            FLICKER,
            "DIR: missing; temporal-flickering scores a folder of videos",
            "astro eval check DIR --suite temporal-flickering says what a folder lacks",
        ),
        (
            (*FLICKER, "x", "-n", "a", "--jobs", "0"),
            "--jobs: input should be greater than or equal to 1, found '0'",
            "astro eval temporal-flickering --help",
        ),
        (
            (*FLICKER, "x", "-n", "a", "-j", "many"),
            "--jobs: input should be a valid integer",
            "astro eval temporal-flickering --help",
        ),
        (
            (*FLICKER, "x", "-n", "a", "--decoder", "foo"),
            "--decoder: 'foo' is not one of 'auto', 'av', 'decord'",
            "astro eval temporal-flickering --help",
        ),
        (("eval", "check"), "folder: missing", "astro eval check --help"),
        (("eval", "gsb", "a", "b"), "astro eval gsb: got unexpected extra argument(s) (b)", "astro eval gsb --help"),
        (("rl", "--foo"), "--foo: no such option", "astro rl --help"),
        (("table", "--format"), "--format: requires an argument", "astro --help"),
        (("eval", "check", "x", "--quick=1"), "--quick: does not take a value", "astro --help"),
        (("table", "--form", "x"), "--form: no such option", "did you mean --format? astro table --help"),
        (("recipe", "shw"), "astro recipe: no such command 'shw'", "astro recipe --help"),
        (("tabl",), "astro: no such command 'tabl'. Did you mean 'table'", "astro --help"),
    ],
)
def test_the_message_has_the_form_of_all_errors(astro, arguments, what, hint):
    code, out, err = astro(*arguments)
    assert (code, out) == (2, "")
    first, second = err.splitlines()
    assert first.startswith(f"error: {what}")
    assert second.startswith("hint: ")
    assert second.endswith(hint)


def test_a_training_command_without_a_recipe_lists_its_own(astro):
    code, out, err = astro("distill")
    assert (code, out) == (2, "")
    first, *listed, hint = err.splitlines()
    assert first == "error: --recipe: missing; the recipes of this command:"
    names = [line.split()[0] for line in listed]
    assert {"self_forcing_shapes", "causal_forcing_shapes"} <= set(names)
    assert not [name for name in names if name.startswith("astrolabe")]
    assert hint == "hint: astro distill --recipe self_forcing_shapes.toml"


def test_a_suite_with_a_variant_for_own_videos_names_it(astro):
    code, _, err = astro("eval", "vbench-long")
    assert code == 2
    assert "of the prompt set 'vbench', 5 a prompt" in err
    assert "your own videos and prompts: astro eval vbench-long-custom DIR" in err


def test_the_version_is_printed(astro):
    code, out, err = astro("--version")
    assert (code, err) == (0, "")
    assert out.split() == ["astro", metadata.version("astro-cli")]


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_exits_0_and_has_an_example(astro, option):
    code, out, err = astro(option)
    assert (code, err) == (0, "")
    assert "Example: astro " in out


@pytest.mark.parametrize("group", [(), ("eval",), ("recipe",)])
def test_a_group_without_arguments_prints_its_help(group, astro):
    code, out, err = astro(*group)
    assert (code, err) == (2, "")
    assert "Usage: " in out


@pytest.mark.parametrize(
    ("raised", "code", "says"),
    [
        (typer.Exit(3), 3, ""),
        (KeyboardInterrupt(), 1, "interrupted"),
        (EOFError(), 1, "interrupted"),
        (typer.Abort(), 1, "interrupted"),
    ],
)
def test_exits_of_commands_are_kept(raised, code, says, astro, monkeypatch):
    app = typer.Typer()

    @app.callback()
    def group() -> None:
        return

    @app.command("stop")
    def stop() -> None:
        raise raised

    monkeypatch.setattr(__main__, "app", app)
    found, out, err = astro("stop")
    assert (found, out, err.strip()) == (code, "", says)


LONG = "x" * 300  # over a file name's 255 bytes


@pytest.mark.parametrize(
    "arguments",
    [
        (*FLICKER, LONG, "--name", "a"),
        ("eval", "check", LONG),
        ("table", "astrolabe-1", "--results", LONG),
        ("report", "--out", f"{LONG}.html"),
        ("rl", "--recipe", LONG),
    ],
)
def test_a_name_too_long_for_a_file_is_a_wrong_command_line(astro, arguments):
    code, _, err = astro(*arguments)
    assert code == 2
    assert LONG in err.splitlines()[0]
    assert "255 bytes" in err.splitlines()[1]


def test_a_file_where_a_folder_belongs_is_a_wrong_command_line(astro, tmp_path):
    (tmp_path / "file").touch()
    code, _, err = astro("report", "--out", "file/page.html")
    assert code == 2
    assert err.splitlines()[0].startswith("error: ")
    assert "hint: " in err

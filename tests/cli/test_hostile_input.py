"""What an attacker may put into names, variables, files and streams ends in a message, and reaches nothing."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from astro_cli import __main__
from astro_cli.config.errors import AstroError, printable
from eval.renderers.markdown import pipe_table

ROOT = Path(__file__).parents[2]
DRY = ("rl", "--recipe", "astrolabe_causal_shapes", "--dry-run")
CLEAR = "\x1b[2J"
RED = "a large red circle moves right slowly"


def started(*arguments: str, **options) -> subprocess.CompletedProcess[bytes]:
    """`astro ...` in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    command = [sys.executable, "-m", "astro_cli", *arguments]
    return subprocess.run(command, capture_output=True, timeout=120, check=False, env=environment, **options)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            "stages.nft.optim.student.betas=[1.0, 1.0]",
            "betas: found [1.0, 1.0], expected two numbers from 0 to below 1",
        ),
        ("stages.nft.optim.student.betas=[0.9, -0.1]", "betas: found [0.9, -0.1]"),
        ("cache.sink=100", "cache.sink: found 100 without a window"),
        ("model.text_len=1", "model.text_len: found 1, expected 32"),
        ("model.text_dim=54", "model.text_dim: found 54, expected 55"),
        ("model.in_channels=5", "model.in_channels: found 5, expected 16"),
        ("video.fps=1e22", "video.fps: found 1e+22, expected less than or equal to 1000"),
        ("video.fps=9", "video.fps: found 9.0, expected 8"),
        ("video.fps=nan", ": video.fps: found nan, expected a finite number"),
        ("model.num_layers=1000000000", "model.num_layers: found 1000000000, expected less than or equal to 512"),
        ("video.height=1000000", "video.height: found 1000000, expected less than or equal to 8192"),
        ("seed=9223372036854775808", "seed: found 9223372036854775808"),
        ("seed=" + "7" * 5000, ": seed: found an integer of more than 4300 digits"),
        ("seed=" + "7" * 400, ": seed: found an integer of"),
        ("name=" + "[" * 10_000 + "]" * 10_000, ": name: nested too deeply"),
        (".".join("a" * 5_000) + "=1", "expected KEY=VALUE"),
        ("stages.nft.steps=10000000000000", "stages.nft.steps: found 10000000000000"),
    ],
    ids=lambda value: value[:40],
)
def test_a_value_that_cannot_be_is_refused_before_a_dry_run(astro, change, says):
    code, out, err = astro(*DRY, "--set", change)
    assert (code, out) == (2, "")
    assert says in err


def test_sizes_that_the_machine_cannot_hold_are_refused_before_anything_is_allocated(astro, monkeypatch):
    from astro_cli.training import build

    monkeypatch.setattr(build, "build", lambda *_: pytest.fail("built"))
    code, _, err = astro(*DRY[:-1], "--set", "video.height=8192", "--set", "video.width=8192", "--out", "run")
    assert code == 2
    assert "memory: cache of" in err
    assert "this machine has" in err
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--seconds", "inf"), "--seconds"),
        (("--seconds", "nan"), "--seconds: "),
        (("--ema", "nan"), "--ema: "),
        (("--seconds", "1e300"), "--seconds"),
        (("--frames", "1" + "0" * 30), "--frames"),
        (("--seed", "1" + "0" * 30), "--seed"),
        (("--seeds", "7" * 5000), "--seeds"),
        (("--seeds", "9223372036854775808"), "--seeds: 9223372036854775808: expected at most 9223372036854775807"),
        (("--size", "99999999999x8"), "--size"),
        (("--size", "999936x999936"), "--size: 999936x999936: expected HEIGHTxWIDTH in multiples of"),
        (("--switch", "9" * 400 + "s:a small blue square moves left"), "--switch"),
        (("--weights", "~nouser/x"), "~nouser/x"),
        (("--prompts", "/dev/zero"), "/dev/zero: --prompts: "),
        (("--prompts", "."), "--prompts: "),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else None,
)
def test_numbers_and_paths_of_sample_that_cannot_be(astro, arguments, says):
    prompts = () if "--prompts" in arguments else (RED,)
    code, _, err = astro("sample", *prompts, *arguments)
    assert code == 2
    assert says in err
    assert not Path("samples").exists()


def test_a_size_of_videos_that_memory_cannot_hold(astro):
    code, _, err = astro("sample", RED, "--size", "32768x32768")
    assert code == 2
    assert "its keys and values take" in err


# --- what reaches the terminal


def test_control_characters_in_errors_are_written_out():
    error = AstroError(f"a{CLEAR}.toml", "key\nerror: forged", "found '\x9b31m\u202e'", hint=f"try {CLEAR}")
    assert str(error) == (
        "error: a\\u001b[2J.toml: key\\u000aerror: forged: found '\\u009b31m\\u202e'\nhint: try \\u001b[2J"
    )
    assert printable("ein Bär, 猫\tund\nmehr") == "ein Bär, 猫\tund\nmehr"


def test_names_of_files_and_keys_cannot_move_the_cursor(astro):
    Path(f"mine{CLEAR}.toml").write_text('extends = "astrolabe_causal_shapes"\n"key\\u001b[2J" = 1\n')
    code, out, err = astro("recipe", "check", f"mine{CLEAR}.toml")
    assert code == 2
    assert "\x1b" not in out + err
    assert "\\u001b[2J" in out + err


def test_names_in_records_cannot_move_the_cursor(astro):
    from eval.records import store

    record = store.Record(
        benchmark="shapes", backbone="shapes", arm=f"arm{CLEAR}", seed=0, metric="vq", direction="up",
        scores=[0.5, 0.25], recipe_hash="r", weights_hash="w", prompt_set_hash="p", protocol={}, commit="c",
        dirty=False,
    )  # fmt: skip
    store.append(store.record_path(Path("results"), "shapes"), record)
    store.append(store.record_path(Path("results"), "shapes"), record.model_copy(update={"arm": "other"}))
    code, out, err = astro("eval", "compare", f"arm{CLEAR}", "other", "--results", "results")
    assert code == 0
    assert "\x1b" not in out + err
    assert "arm" in out


def test_html_in_a_cell_is_text():
    cells = ["<script>alert(1)</script>", "<!-- x", "p < 0.05", "<ins>80.0</ins>", "[a](javascript:b)"]
    assert pipe_table(["a"] * 5, [cells], "lllll")[2] == (
        "| &lt;script>alert(1)&lt;/script> | &lt;!-- x | p < 0.05 | <ins>80.0</ins> | [a]\\(javascript:b) |"
    )


def test_a_records_norm_cannot_bring_html_into_a_markdown_table(astro):
    from eval.records import store

    for arm in ("self_forcing_shapes", "astrolabe_self_forcing_shapes"):
        record = store.Record(
            benchmark="shapes", backbone="shapes", arm=arm, seed=0, metric="vq", direction="up", scores=[0.5, 0.25],
            recipe_hash="r", weights_hash="w", prompt_set_hash="p", protocol={"norm": "<script>x</script>"}, commit="c",
            dirty=False,
        )  # fmt: skip
        store.append(store.record_path(Path("results"), "shapes"), record)
    code, out, _ = astro("table", "astrolabe-1", "--format", "markdown", "--results", "results")
    assert code == 0
    assert "norm &lt;script>x&lt;/script>" in out
    assert "<script" not in out


# --- processes, streams and variables


def test_processes_of_a_study_import_nothing_from_the_current_folder(tmp_path, monkeypatch):
    from eval.papers.ablation import Job
    from eval.studies.grid_run import GridRun

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    (tmp_path / "typer.py").write_text("open('taken', 'w').write('x')\nraise SystemExit(0)\n")
    grid = GridRun(tmp_path / "results", tmp_path / "logs")
    (tmp_path / "logs").mkdir()
    job = Job("", 0, None, None, "job", "finished", ())
    assert grid._call(job, "train", ["recipe", "show", "nothing"]).startswith("exit code 2")
    assert not (tmp_path / "taken").exists()


def test_scoring_processes_import_nothing_from_the_current_folder(astro, monkeypatch):
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    astro("recipe", "list")
    assert os.environ["PYTHONSAFEPATH"] == "1"


@pytest.mark.parametrize(
    ("number", "code", "says"),
    [
        (errno.ENOSPC, 1, "free space"), (errno.EDQUOT, 1, "your quota is used up"), (errno.EFBIG, 1, "`ulimit -f`"),
        (errno.EIO, 1, "the disk reports an error"), (errno.ELOOP, 2, "lead in a circle"),
    ],
)  # fmt: skip
def test_errors_of_the_disk_are_messages(number, code, says, astro, monkeypatch):
    def fails(app):
        raise OSError(number, os.strerror(number), f"a{CLEAR}")

    monkeypatch.setattr(__main__, "run_app", fails)
    found, _, err = astro("recipe", "list")
    assert found == code
    assert says in err
    assert "error: a\\u001b[2J: " in err


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory")],
)
def test_memory_that_is_used_up_is_a_message(error, astro, monkeypatch):
    def fails(app):
        raise error

    monkeypatch.setattr(__main__, "run_app", fails)
    code, _, err = astro("recipe", "list")
    assert code == 1
    assert "error: memory: " in err


def test_a_full_disk_below_the_library_keeps_its_number(tmp_path, monkeypatch):
    from safetensors import SafetensorError

    from astro_cli.models import weights

    def full(*_, **__):
        raise SafetensorError("Error while serializing: I/O error: File too large (os error 27)")

    monkeypatch.setattr(weights, "save_file", full)
    with pytest.raises(OSError, match="File too large") as caught:
        weights.write(tmp_path / "a.safetensors", {"a": torch.zeros(1)})
    assert caught.value.errno == errno.EFBIG


def test_closed_standard_input_is_no_prompt(tmp_path):
    done = started("sample", cwd=tmp_path, preexec_fn=lambda: os.close(0))
    assert done.returncode == 2
    assert b"prompt: empty" in done.stderr
    assert b"Traceback" not in done.stderr


def test_an_endless_standard_input_ends_in_a_message(tmp_path):
    with open("/dev/zero", "rb") as zero:
        done = started("sample", cwd=tmp_path, stdin=zero)
    assert done.returncode == 2
    assert b"standard input: more than" in done.stderr


def test_variables_and_names_that_are_not_utf8(tmp_path):
    folder = os.fsencode(tmp_path) + b"/\xff"
    os.mkdir(folder)
    done = started("zoo", "list", cwd=folder, env={"ASTRO_CHECKPOINTS": os.fsdecode(folder)})  # type: ignore[call-overload]
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False)
    assert b"\\udcff" in done.stdout + done.stderr


@pytest.mark.parametrize("variable", ["OMP_NUM_THREADS", "ASTRO_CORES"])
@pytest.mark.parametrize("value", ["\u00b2", "9" * 5000, "-1", "0", "x"])
def test_numbers_of_threads_that_are_none(variable, value, monkeypatch):
    from astro_cli.core import threads

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv(variable, value)
    assert threads.choose(threads.SMALL).number == 1
    assert 1 <= threads.choose(threads.LARGE).number <= (os.cpu_count() or 1)


@pytest.mark.parametrize("variable", ["ASTRO_CHECKPOINTS", "XDG_CACHE_HOME", "ASTRO_PROMPTS"])
def test_a_home_that_is_unknown_is_a_folder_that_is_not_there(variable, astro, monkeypatch):
    monkeypatch.setenv(variable, "~nouser/x")
    code, _, _ = astro("eval", "list")
    assert code == 0


def test_a_reader_that_ends_early_is_no_error(tmp_path):
    command = f"{sys.executable} -m astro_cli recipe list --json | head -c 10"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, timeout=60, check=False, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert b"Traceback" not in done.stderr
    assert b"BrokenPipe" not in done.stderr


# --- files that are written


def test_a_link_at_the_partial_file_is_not_written_through(tmp_path):
    import numpy as np

    from astro_cli.generate.mp4 import Mp4Stream

    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "a.partial.mp4").symlink_to(victim)
    with Mp4Stream(tmp_path / "a.mp4", 8.0) as stream:
        stream.write(np.zeros((16, 16, 3), np.uint8))
    assert victim.read_text() == "mine"
    assert (tmp_path / "a.mp4").stat().st_size > 100


def test_two_imports_into_one_folder(tmp_path):
    from astro_cli.config.errors import OutputError
    from astro_cli.models.importing import _alone

    with (
        _alone(tmp_path / "a"),
        _alone(tmp_path / "b"),
        pytest.raises(OutputError, match="another process is importing into this folder"),
        _alone(tmp_path / "a"),
    ):
        pass
    with _alone(tmp_path / "a"):
        pass


def test_a_records_file_that_is_a_pipe_is_no_wait(tmp_path):
    from eval.records import jsonl

    os.mkfifo(tmp_path / "a.jsonl")
    with pytest.raises(AstroError, match="is a pipe, expected a file"):
        jsonl.append(tmp_path / "a.jsonl", [b"{}\n"])

"""Runs whose folder is damaged: resumed to the same bits from what is whole, or refused naming the file; never a
half-read log.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from test_bad_input import message
from test_training import RL, run, same_bits, without_times

from tests.tiny_world import TINY

NEWEST, OLDER = "00000005", "00000003"  # after the stage, and after its third of four epochs


def arguments(tiny_base: Path, out: Path) -> list[str]:
    sets = [*TINY, f"base.student={tiny_base}"]
    return [*RL, *(part for item in sets for part in ("--set", item)), "--out", str(out)]


@pytest.fixture(scope="module")
def whole(tiny_base, tmp_path_factory) -> Path:
    """A finished run."""
    out = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        assert run(arguments(tiny_base, out), patch) == 0
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == [OLDER, NEWEST]
    return out


@pytest.fixture
def resume(whole, tiny_base, tmp_path, monkeypatch):
    """A copy of the run without its final weights, and what resumes it (returns the exit code)."""
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    shutil.rmtree(out / "final")

    def again() -> int:
        return run([*arguments(tiny_base, out), "--resume"], monkeypatch)

    return out, again


def test_a_run_killed_before_its_final_weights_leaves_the_trained_ones(whole, resume):
    out, again = resume
    assert again() == 0
    assert same_bits(out / "final" / "student.safetensors", whole / "final" / "student.safetensors")


def torn_meta(out: Path) -> None:
    (out / "checkpoints" / NEWEST / "meta.json").write_text('{"stage":0')


def no_network(out: Path) -> None:
    (out / "checkpoints" / NEWEST / "network-student.safetensors").unlink()


def flipped_bit(out: Path) -> None:
    path = out / "checkpoints" / NEWEST / "network-student.safetensors"
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)


def another_stage(out: Path) -> None:
    path = out / "checkpoints" / NEWEST / "meta.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"stage": 99}))


def torn_row(out: Path) -> None:
    lines = (out / "metrics.jsonl").read_text().splitlines(keepends=True)
    (out / "metrics.jsonl").write_text("".join(lines[:3]) + lines[3][:40])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (torn_meta, "meta.json"),
        (no_network, "network-student.safetensors"),
        (torn_row, "metrics.jsonl"),
        (flipped_bit, "network-student.safetensors"),
        (another_stage, "meta.json"),
    ],
)
def test_a_damaged_newest_checkpoint_is_passed_over(damage, says, whole, resume, capsys):
    out, again = resume
    damage(out)
    assert again() == 0
    warning = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: "))
    assert says in warning
    assert "older checkpoint" in warning
    assert same_bits(out / "final" / "student.safetensors", whole / "final" / "student.safetensors")
    assert without_times(out / "metrics.jsonl") == without_times(whole / "metrics.jsonl")


@pytest.mark.parametrize("kept", [300, None])
def test_rows_that_no_checkpoint_has_are_not_glued(kept, whole, resume, capsys):
    out, again = resume
    torn = None if kept is None else (whole / "metrics.jsonl").read_bytes()[:kept]
    (out / "metrics.jsonl").unlink()
    if torn is not None:
        (out / "metrics.jsonl").write_bytes(torn)
    assert again() == 2
    assert "metrics.jsonl: line 1: found 0 whole rows" in message(capsys)
    assert not (out / "final").exists()
    assert torn is None or (out / "metrics.jsonl").read_bytes() == torn


def without_environment(out: Path) -> None:
    (out / "environment.json").unlink()


def torn_environment(out: Path) -> None:
    (out / "environment.json").write_text("{")


@pytest.mark.parametrize("damage", [without_environment, torn_environment])
def test_a_run_without_its_environment_can_finish(damage, whole, resume, capsys):
    out, again = resume
    damage(out)
    assert again() == 0
    assert "environment.json: cannot be read" in capsys.readouterr().err
    assert final_bytes(out) == final_bytes(whole)


def final_bytes(out: Path) -> dict[str, bytes]:
    """Every file a finished run leaves."""
    paths = (path for path in (out / "final").rglob("*") if path.is_file())
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.parametrize("name", ["student.safetensors", "lora/adapter_model.safetensors", "card.json", "student.json"])
@pytest.mark.parametrize("gone", [True, False], ids=["gone", "flipped"])
def test_damaged_final_weights_are_written_again(name, gone, whole, tiny_base, tmp_path, monkeypatch):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    path = out / "final" / name
    path.unlink() if gone else path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert run([*arguments(tiny_base, out), "--resume"], monkeypatch) == 0
    assert final_bytes(out) == final_bytes(whole)


def test_a_finished_run_of_another_base_is_not_taken_for_this_one(whole, tiny_base, tmp_path, monkeypatch, capsys):
    out, base = tmp_path / "run", tmp_path / "base.safetensors"
    shutil.copyfile(tiny_base, base)
    shutil.copyfile(tiny_base.with_suffix(".json"), base.with_suffix(".json"))
    assert run([*arguments(base, out), "--set", "stages.nft.steps=1"], monkeypatch) == 0
    data = bytearray(base.read_bytes())
    data[-3] ^= 1
    base.write_bytes(data)
    assert run([*arguments(base, out), "--set", "stages.nft.steps=1", "--resume"], monkeypatch) == 2
    assert "base.student changed since the run began" in message(capsys)


def test_old_meta_data_without_a_list_of_groups_is_read(whole, resume, capsys):
    out, again = resume
    shutil.rmtree(out / "checkpoints" / NEWEST)
    meta = out / "checkpoints" / OLDER / "meta.json"
    own = ("stage", "step", "rows")
    meta.write_text(json.dumps({key: value for key, value in json.loads(meta.read_text()).items() if key in own}))
    (out / "checkpoints" / OLDER / "source.safetensors").rename(out / "kept")
    assert again() == 2
    assert "source.safetensors: missing" in message(capsys)
    (out / "kept").rename(out / "checkpoints" / OLDER / "source.safetensors")
    assert again() == 0
    assert same_bits(out / "final" / "student.safetensors", whole / "final" / "student.safetensors")


def test_a_damaged_recipe_and_a_file_as_folder_are_named(resume, tiny, tmp_path, monkeypatch, capsys):
    out, again = resume
    (out / "resolved.json").write_text("x")
    assert again() == 2
    assert "resolved.json" in message(capsys)
    (tmp_path / "file").write_text("mine")
    assert run([*RL, *tiny, "--out", str(tmp_path / "file")], monkeypatch) == 2
    assert "is a file, expected a folder" in message(capsys)
    assert run([*RL, *tiny, "--out", str(tmp_path / "nowhere"), "--resume"], monkeypatch) == 2
    assert "there is no run to continue" in message(capsys)
    assert not (tmp_path / "nowhere").exists()

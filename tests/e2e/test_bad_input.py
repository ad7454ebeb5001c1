"""What users get wrong ends in a message with a hint and the right exit code, and leaves nothing half-written."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_training import RL

from astro_cli.objectives import nft
from tests.command_line import run, run_and_interrupt


def message(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    assert any(line.startswith("error: ") for line in captured.err.splitlines())
    return captured.err


@pytest.mark.parametrize("damage", ["truncated", "text", "resized", "pickle"])
def test_bad_base_checkpoints(damage, tiny, tiny_base, tmp_path, monkeypatch, capsys):
    bad = tmp_path / ("bad.pt" if damage == "pickle" else "bad.safetensors")
    if damage == "truncated":
        bad.write_bytes(tiny_base.read_bytes()[:-100])
    elif damage == "text":
        bad.write_text("not weights")
    elif damage == "pickle":
        torch.save({"a": torch.zeros(1)}, bad)
    else:
        state = load_file(tiny_base)
        save_file(state | {"proj_out.weight": torch.zeros(3, 3)}, bad)
    out = tmp_path / "run"
    assert run([*RL, *tiny, "--set", f"base.student={bad}", "--out", str(out)], monkeypatch) == 2
    text = message(capsys)
    assert bad.name in text
    assert "hint: " in text
    assert not out.exists()


def test_a_folder_with_another_recipes_run_is_refused(tiny, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    assert run([*RL, *tiny, "--out", str(out), "--steps", "1"], monkeypatch) == 0
    before = sorted(path.name for path in out.rglob("*"))
    capsys.readouterr()
    assert run([*RL, *tiny, "--out", str(out), "--steps", "2"], monkeypatch) == 2
    assert "holds a run of" in message(capsys)
    assert run([*RL, *tiny, "--out", str(out), "--steps", "1"], monkeypatch) == 2
    assert "--resume" in message(capsys)
    assert sorted(path.name for path in out.rglob("*")) == before


def test_a_folder_with_other_files_is_refused(tiny, tmp_path, monkeypatch, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert run([*RL, *tiny, "--out", str(tmp_path)], monkeypatch) == 2
    assert "not empty" in message(capsys)


@pytest.mark.parametrize(("prompt", "says"), [
    ("a small red cirle moves right", "circle"), ("a small red circle moves over", "expected"), ("", "empty"),
])  # fmt: skip
def test_bad_prompts(prompt, says, tiny_base, tmp_path, monkeypatch, capsys):
    if says == "expected":
        from astro_cli.config.errors import PromptError
        from astro_cli.shapes.grammar import parse

        with pytest.raises(PromptError, match="expected"):
            parse(prompt)
        return
    assert run(["sample", prompt, "--weights", str(tiny_base), "--out", str(tmp_path / "s")], monkeypatch) == 2
    assert says in message(capsys)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(("damage", "says"), [
    (lambda value: value * float("nan"), "error: reward: mq: 8 non-finite scores for 8 clips"),
    (lambda value: value[:-1], "error: reward: mq: shape (7,) for 8 clips"),
], ids=["not finite", "one score short"])  # fmt: skip
def test_a_reward_with_bad_scores_stops_the_run_and_leaves_its_checkpoint(
    damage, says, tiny, tmp_path, monkeypatch, capsys
):
    from astro_cli.rewards import shapes

    out, scored = tmp_path / "run", []
    original = shapes.MotionQuality.score

    def broken(self, frames, prompts):
        scored.append(1)
        value = original(self, frames, prompts)
        return value if len(scored) < 3 else damage(value)

    monkeypatch.setattr(shapes.MotionQuality, "score", broken)
    assert run([*RL, *tiny, "--out", str(out)], monkeypatch) == 1
    assert says in message(capsys)
    assert list((out / "checkpoints").glob("0*"))
    monkeypatch.setattr(shapes.MotionQuality, "score", original)
    assert run([*RL, *tiny, "--out", str(out), "--resume"], monkeypatch) == 0
    assert [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()] == [0, 1, 2, 3]


def test_a_full_disk_is_reported_and_the_run_resumes(tiny, tmp_path, monkeypatch, capsys):
    import errno

    from astro_cli.models import weights

    out, original, writes = tmp_path / "run", weights.save_file, []

    def full(*arguments, **options):
        writes.append(1)
        if len(writes) == 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(*arguments, **options)

    monkeypatch.setattr(weights, "save_file", full)
    assert run([*RL, *tiny, "--out", str(out)], monkeypatch) == 1
    assert "No space left" in message(capsys)
    assert not list(out.rglob("*.part.safetensors"))
    monkeypatch.setattr(weights, "save_file", original)
    assert run([*RL, *tiny, "--out", str(out), "--resume"], monkeypatch) == 0


def test_ctrl_c_says_how_to_go_on(tiny, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    run_and_interrupt([*RL, *tiny, "--out", str(out)], nft, monkeypatch, step=3)
    assert "--resume" in capsys.readouterr().err
    assert run([*RL, *tiny, "--out", str(out), "--resume"], monkeypatch) == 0
    assert [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()] == [0, 1, 2, 3]

"""A run's checkpoints on disk: the newest that is whole and whose rows are logged; what is wrong with the others is
said.
"""

import json

import pytest
import torch

from astro_cli.config.errors import CheckpointError
from astro_cli.training.checkpoints import KEEP, META, listed, load_newest, whole_rows
from astro_cli.training.rundir import RunDir

ROW = '{"step": 0}\n'


@pytest.fixture
def run(tmp_path) -> RunDir:
    """Three rows, checkpoints after each; the first is gone again."""
    run = RunDir(tmp_path)
    for step in (1, 2, 3):
        run.log({"step": step - 1})
        run.save_checkpoint(
            step,
            0,
            step,
            step,
            {"network-student": {"w": torch.full((2,), float(step))}, "experience": {"risk": torch.ones(1)}},
        )
    return run


def step_of(run: RunDir) -> tuple[int, list[CheckpointError]]:
    found, faults = load_newest(run.checkpoints, run.metrics)
    assert found is not None
    assert float(found.group("network-student")["w"][0]) == found.meta.step == found.meta.rows
    return found.meta.step, faults


def test_the_newest_are_kept_and_the_newest_is_loaded(run):
    assert [path.name for path in listed(run.checkpoints)] == ["00000002", "00000003"]
    assert len(listed(run.checkpoints)) == KEEP
    assert step_of(run) == (3, [])
    assert load_newest(run.path / "nowhere", run.metrics) == (None, [])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (META, '{"stage":0'),
        (META, "[]"),
        (META, '{"stage": 0, "step": -1, "rows": 0}'),
        (META, None),
        ("network-student.safetensors", "not weights"),
        ("network-student.safetensors", ""),
        ("experience.safetensors", None),
    ],
)
def test_a_damaged_checkpoint_is_passed_over(run, name, content):
    for number in (3, 2):
        path = run.checkpoints / f"{number:08d}" / name
        path.unlink()
        if content is not None:
            path.write_text(content)
        if number == 3:
            step, (fault,) = step_of(run)
            assert step == 2
            assert name in f"{fault.where} {fault.key}"
    with pytest.raises(CheckpointError, match="no checkpoint of this run can be resumed") as caught:
        load_newest(run.checkpoints, run.metrics)
    assert "00000003" in f"{caught.value.where}"


@pytest.mark.parametrize(
    ("kept", "step"), [(ROW * 3, 3), (ROW * 5, 3), (ROW * 2, 2), (ROW * 2 + '{"st', 2), (ROW * 2 + ROW.strip(), 2)]
)
def test_a_checkpoint_counts_on_its_rows(run, kept, step):
    run.metrics.write_text(kept)
    assert step_of(run)[0] == step


@pytest.mark.parametrize("kept", [ROW + '{"st', ROW + "torn\n" + ROW * 3, ROW + "3\n" + ROW, None])
def test_without_the_rows_the_file_is_named(run, kept):
    run.metrics.unlink()
    if kept is not None:
        run.metrics.write_text(kept)
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl.*line [12].*checkpoint 00000003 was written after 3"):
        load_newest(run.checkpoints, run.metrics)
    assert whole_rows(run.metrics) == (0 if kept is None else 1)


def test_groups_that_are_not_listed_are_missed_when_asked_for(run):
    """Meta data of before there was a list."""
    path = run.checkpoints / "00000003"
    (path / META).write_text(json.dumps({"stage": 0, "step": 3, "rows": 3}))
    (path / "experience.safetensors").unlink()
    found, _ = load_newest(run.checkpoints, run.metrics)
    assert found is not None
    assert found.path == path
    with pytest.raises(CheckpointError, match=r"experience\.safetensors.*missing"):
        found.group("experience")

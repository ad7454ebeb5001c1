"""A run's checkpoints on disk: the newest that is whole and whose rows are logged; what is wrong with the others is
said.
"""

import json

import pytest
import torch

from astro_cli.config.errors import CheckpointError
from astro_cli.training.checkpoints import KEEP, META, _checksum, listed, load_newest, save, whole_rows
from astro_cli.training.rundir import RunDir

ROW = '{"step": 0}\n'
STEPS = (9,)  # of the run's one stage


@pytest.fixture
def run(tmp_path) -> RunDir:
    """Three rows, checkpoints after each; the first is gone again."""
    run = RunDir(tmp_path)
    for step in (1, 2, 3):
        run.log({"step": step - 1})
        run.save_checkpoint(
            0,
            step,
            step,
            {"network-student": {"w": torch.full((2,), float(step))}, "experience": {"risk": torch.ones(1)}},
        )
    return run


def step_of(run: RunDir) -> tuple[int, list[CheckpointError]]:
    found, faults = load_newest(run.checkpoints, run.metrics, STEPS)
    assert found is not None
    assert float(found.group("network-student")["w"][0]) == found.meta.step == found.meta.rows
    return found.meta.step, faults


def test_the_newest_are_kept_and_the_newest_is_loaded(run):
    assert [path.name for path in listed(run.checkpoints)] == ["00000002", "00000003"]
    assert len(listed(run.checkpoints)) == KEEP
    assert step_of(run) == (3, [])
    assert load_newest(run.path / "nowhere", run.metrics, STEPS) == (None, [])


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
        load_newest(run.checkpoints, run.metrics, STEPS)
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
        load_newest(run.checkpoints, run.metrics, STEPS)
    assert whole_rows(run.metrics) == (0 if kept is None else 1)


def flip(path, place: int) -> None:
    """Change one bit; a negative place counts from the end."""
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["network-student.safetensors", "experience.safetensors", META])
@pytest.mark.parametrize("place", [0, 9, 40, -20, -5, -1])
def test_one_flipped_bit_anywhere_is_damage(run, name, place):
    flip(run.checkpoints / "00000003" / name, place)
    step, (fault,) = step_of(run)
    assert step == 2
    assert name in f"{fault.where} {fault.key}"


def test_groups_in_each_others_place_are_damage(run):
    folder = run.checkpoints / "00000003"
    (folder / "network-student.safetensors").rename(folder / "kept")
    (folder / "experience.safetensors").rename(folder / "network-student.safetensors")
    (folder / "kept").rename(folder / "experience.safetensors")
    assert step_of(run)[0] == 2


@pytest.mark.parametrize(
    "change", [{"stage": 99}, {"step": 99}, {"rows": 0}, {"stage": 1}, {"rows": 2, "step": 2}, {"step": 1}]
)
@pytest.mark.parametrize("signed", [False, True], ids=["edited", "edited with its checksum"])
def test_a_place_no_run_stands_at_is_damage(run, change, signed):
    path = run.checkpoints / "00000003" / META
    meta = {key: value for key, value in json.loads(path.read_text()).items() if key != "checksum"} | change
    signature = _checksum(meta) if signed else json.loads(path.read_text())["checksum"]
    path.write_text(json.dumps(meta | {"checksum": signature}))
    step, (fault,) = step_of(run)
    assert step == 2
    assert "meta.json" in f"{fault.where}"


@pytest.mark.parametrize(("stage", "step", "rows", "fits"), [
    (0, 1, 1, True), (0, 0, 0, True), (1, 0, 2, True), (1, 2, 4, True), (2, 0, 5, True),
    (0, 2, 2, False), (1, 3, 5, False), (2, 1, 6, False), (3, 0, 5, False), (1, 1, 2, False),
])  # fmt: skip
def test_places_of_a_run_of_two_stages(tmp_path, stage, step, rows, fits):
    """Of two and three steps."""
    for _ in range(rows):
        RunDir(tmp_path).log({})
    save(tmp_path / "checkpoints", stage, step, rows, {"objective": {"w": torch.zeros(1)}})
    if fits:
        found, faults = load_newest(tmp_path / "checkpoints", tmp_path / "metrics.jsonl", (2, 3))
        assert found is not None
        assert (found.meta.stage, found.meta.step, faults) == (stage, step, [])
    else:
        with pytest.raises(CheckpointError, match=r"meta\.json.*damaged: found \d, expected"):
            load_newest(tmp_path / "checkpoints", tmp_path / "metrics.jsonl", (2, 3))


def test_groups_that_are_not_listed_are_missed_when_asked_for(run):
    """Meta data of before there was a list."""
    path = run.checkpoints / "00000003"
    (path / META).write_text(json.dumps({"stage": 0, "step": 3, "rows": 3}))
    (path / "experience.safetensors").unlink()
    found, _ = load_newest(run.checkpoints, run.metrics, STEPS)
    assert found is not None
    assert found.path == path
    with pytest.raises(CheckpointError, match=r"experience\.safetensors.*missing"):
        found.group("experience")

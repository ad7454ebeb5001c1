"""Measures of a run from its metrics, by hand."""

import json

import pytest

from astro_cli.config.errors import RecordError
from eval.papers.published import load_table
from eval.papers.table import build
from eval.records import store
from eval.report.training_records import curve_rows, measures, record_training


def row(norm: float, reward: float, saved: float, **more: float) -> dict[str, float]:
    return {"student/x0_norm": norm, "reward/total": reward, "memory/saved_bytes": saved, **more}


def test_measures_by_hand():
    # ends of two epochs: norm (3 + 5) / 2 over (1 + 3) / 2 = 2; reward 1 - 2 = -1; the peak is the largest
    rows = [row(1, 2, 7), row(3, 2, 9), row(3, 1, 8), row(5, 1, 7)]
    assert measures(rows) == {"peak_memory": 9, "x0_norm_growth": 2.0, "reward_change": -1.0}
    assert measures(rows[:1]) == {"peak_memory": 7, "x0_norm_growth": 1.0, "reward_change": 0.0}


def test_on_cuda_the_allocators_peak_counts():
    assert measures([row(1, 1, 5, **{"memory/peak_bytes": 11.0})])["peak_memory"] == 11.0


def test_rows_that_are_not_there_or_not_of_rl_are_refused():
    with pytest.raises(RecordError, match="no epoch is logged"):
        measures([])
    with pytest.raises(RecordError, match="student/x0_norm"):
        measures([row(1, 1, 1), {"reward/total": 1.0, "memory/saved_bytes": 1.0}])


@pytest.fixture
def finished(tmp_path):
    """A finished run of two epochs, without its network."""
    run = tmp_path / "run"
    (run / "final").mkdir(parents=True)
    (run / "final" / "student.safetensors").write_bytes(b"weights")
    (run / "final" / "student.json").write_text(
        json.dumps({"backbone": "shapes", "recipe": "mine", "seed": 0, "recipe_hash": "a" * 16})
    )
    (run / "environment.json").write_text(json.dumps({"device": "cpu", "versions": {}, "commit": None, "dirty": None}))
    (run / "resolved.json").write_text(
        json.dumps(
            {
                "hash": "a" * 16,
                "recipe": {
                    "name": "mine",
                    "seed": 0,
                    "backbone": "shapes",
                    "order": ["nft"],
                    "stages": {"nft": {"steps": 2}, "other": {"steps": 9}},
                },
            }
        )
    )
    (run / "metrics.jsonl").write_text(2 * (json.dumps(row(1, 2, 3)) + "\n"))
    return run


def test_a_finished_run_is_recorded_once(finished, tmp_path):
    record_training(finished, tmp_path)
    record_training(finished, tmp_path)
    assert len((tmp_path / "records" / "shapes.jsonl").read_text().splitlines()) == 4  # three measures, one curve


def test_curves_are_kept_whole_and_come_back_as_rows(finished, tmp_path):
    epochs = [row(1 + epoch, 2, 3, **{"gain/vq": epoch / 10}) for epoch in range(2)]
    (finished / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in epochs))
    record_training(finished, tmp_path)
    (rows,) = curve_rows(store.load_results(tmp_path), "mine")
    assert [each["gain/vq"] for each in rows] == [0.0, 0.1]
    assert [each["student/x0_norm"] for each in rows] == [1, 2]
    assert [each["step"] for each in rows] == [0, 1]
    assert curve_rows(store.load_results(tmp_path), "other") == []


@pytest.mark.parametrize(("backbone", "benchmark"), [("shapes", "shapes"), ("wan", "memory")])
def test_a_run_is_recorded_where_the_tables_of_its_backbone_look(finished, tmp_path, backbone, benchmark):
    card = finished / "final" / "student.json"
    arms = {table_id: load_table(table_id).rows[0].arm[backbone] for table_id in ("astrolabe-4a", "astrolabe-adaptive")}
    found = {}
    for table_id, arm in arms.items():
        card.write_text(json.dumps({"backbone": backbone, "recipe": arm, "seed": 0, "recipe_hash": "a" * 16}))
        (finished / "final" / "student.safetensors").write_bytes(arm.encode())
        record_training(finished, tmp_path)
        record_training(finished, tmp_path)
        measured = build(load_table(table_id), store.load_results(tmp_path), backbone).rows[0].measured
        found |= {key: cell.mean for key, cell in measured.items() if cell is not None}
    assert found == {"memory": 3, "x0_norm_growth": 1, "reward_change": 0}
    assert [path.name for path in (tmp_path / "records").iterdir()] == [f"{benchmark}.jsonl"]
    assert len(store.load_results(tmp_path)) == 8


@pytest.mark.parametrize(("name", "content", "says"), [
    ("metrics.jsonl", '{"stage": "nft", "st', "found 0 whole rows, the run has 2 epochs"),
    ("metrics.jsonl", "", "found 0 whole rows"),
    ("metrics.jsonl", json.dumps(row(1, 2, 3)) + '\n{"st', "found 1 whole rows"),
    ("environment.json", "{", "environment.json"),
    ("metrics.jsonl", 2 * (json.dumps(row(0, 2, 3)) + "\n"), "a norm that is not above 0"),
    ("metrics.jsonl", 2 * (json.dumps(row(1, 2, 3) | {"reward/total": "2"}) + "\n"), "reward/total: no number"),
    ("final/student.json", "", "student.json"),
])  # fmt: skip
def test_a_damaged_run_records_nothing_and_is_named(finished, tmp_path, name, content, says):
    (finished / name).write_text(content)
    with pytest.raises(RecordError, match=says):
        record_training(finished, tmp_path)
    assert not (tmp_path / "records").exists()

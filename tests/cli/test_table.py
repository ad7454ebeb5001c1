"""`astro table` and `astro claims` on the command line: names, formats, exit codes, and what goes where."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

import eval.papers.verify
from eval.papers.published import list_tables, load_table
from eval.records.store import append, record_path
from tests.claim_records import record

ROOT = Path(__file__).parents[2]


def put(results: Path, arm: str, value: float, **changes: object) -> None:
    """Eight scores around a value; base and tuned differ by a constant."""
    scores = [value + i for i in range(8)]
    made = record(arm, "vq", scores, **{"protocol": {"num_frames": 9, "prompts": 8}, **changes})
    append(record_path(results, "shapes"), made)


def test_one_table_is_an_object_and_more_are_a_list(astro) -> None:
    assert json.loads(astro("table", "aapt-1", "--format", "json")[1])["id"] == "aapt-1"
    assert [each["id"] for each in json.loads(astro("table", "aapt", "--format", "json")[1])] == ["aapt-1"]
    assert [each["id"] for each in json.loads(astro("table", "all", "--format", "json")[1])] == list_tables()
    assert [each["id"] for each in json.loads(astro("table", "teleboost-2", "aapt-1", "--format", "json")[1])] == [
        "teleboost-2",
        "aapt-1",
    ]
    ablations = [each["id"] for each in json.loads(astro("table", "ablations", "--format", "json")[1])]
    assert ablations[:3] == ["astrolabe-4a", "astrolabe-4b", "astrolabe-4c"]


@pytest.mark.parametrize("fmt", ["markdown", "html", "latex", "csv"])
def test_every_format_prints_every_table(astro, fmt: str) -> None:
    code, out, err = astro("table", "all", "--format", fmt)
    assert (code, err) == (0, "")
    assert all(table_id in out for table_id in list_tables())


def test_claims_stand_below_their_table(astro, tmp_path: Path) -> None:
    put(tmp_path / "results", "self_forcing_shapes", 1.0)
    put(tmp_path / "results", "astrolabe_self_forcing_shapes", 1.5)
    _, out, _ = astro("table", "astrolabe", "--format", "markdown")
    first = out.split("### ")[1]
    assert (
        "| `as-gain-sf` | Astrolabe T1 | RL raises VQ and MQ of Self-Forcing | undecided | 1 of 2 parts hold "
        "| 1 | shapes |"
    ) in first
    assert "`as-kl`" not in first
    assert "`as-kl`" in out.split("`astrolabe-4b`")[1].split("### ")[0]
    assert "`as-beta`" in out.split("`astrolabe-beta`")[1].split("### ")[0]
    assert "`as-const-mem`" in out.split("`astrolabe-s1`")[1]  # of no table: below the paper's last
    assert "<code>as-gain-sf</code>" in astro("table", "astrolabe", "--format", "html")[1]
    assert "as-gain-sf" not in astro("table", "astrolabe", "--format", "csv")[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("table", "reward-forcing-66"), "hint: did you mean 'reward-forcing-6'?"),
        (("table",), "error: table: no table named"),
        (("table", "aapt-1", "--format", "latx"), "hint: did you mean 'latex'?"),
        (
            ("table", "aapt-1", "--backbone", "wann"),
            "error: --backbone: wann: unknown backbone, allowed: shapes, wan\nhint: did you mean 'wan'?",
        ),
        (("table", "aapt-1", "--results", "nowhere"), "error: --results: nowhere: no such folder"),
        (("table", "--verify", "aapt-2"), "hint: did you mean 'aapt-1'?"),
        (("table", "--verify", "--format", "html"), "allowed: markdown, csv, json"),
        (("claims", "astrolab"), "hint: did you mean 'astrolabe'?"),
        (("claims", "--format", "txt"), "hint: did you mean 'text'?"),
        (
            ("claims", "--backbone", "wann"),
            "error: --backbone: wann: unknown backbone, allowed: shapes, wan\nhint: did you mean 'wan'?",
        ),
        (("claims", "--results", "nowhere"), "no such folder"),
    ],
)
def test_usage_errors(astro, arguments: tuple[str, ...], message: str) -> None:
    code, out, err = astro(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert "Traceback" not in err


def test_mixed_protocols_are_refused(astro, tmp_path: Path) -> None:
    put(tmp_path / "r", "self_forcing_shapes", 1.0)
    put(tmp_path / "r", "causal_forcing_shapes", 1.0, prompt_set_hash="q")
    code, out, err = astro("table", "astrolabe-1", "--results", "r")
    assert (code, out) == (4, "")
    assert "astrolabe-1: hpsv3: mixes protocols: Self-Forcing has prompt set p, Causal Forcing has prompt set q" in err
    assert "hint: " in err


def test_verify(astro) -> None:
    code, out, err = astro("table", "--verify")
    assert (code, err) == (0, "")
    assert out.rstrip().endswith("274 checks: 238 ok, 36 erratum known, 0 mismatch")
    assert "| reward-forcing-6 | VBench quality from dimensions | CausVid | quality | 83.93 | 83.926" in out
    one = json.loads(astro("table", "--verify", "teleboost-9", "--format", "json")[1])
    assert set(one[0]) == {
        "table",
        "check",
        "row",
        "column",
        "printed",
        "recomputed",
        "difference",
        "tolerance",
        "verdict",
    }
    assert {each["table"] for each in one} == {"teleboost-9"}
    rows = list(csv.DictReader(io.StringIO(astro("table", "--verify", "aapt", "--format", "csv")[1])))
    assert [row["verdict"] for row in rows] == ["ok"] * 4


def test_an_unexpected_mismatch_is_exit_4(astro, monkeypatch: pytest.MonkeyPatch) -> None:
    without = load_table("teleboost-9").model_copy(update={"errata": []})
    monkeypatch.setattr(
        eval.papers.verify,
        "load_table",
        lambda table_id: without if table_id == "teleboost-9" else load_table(table_id),
    )
    code, out, err = astro("table", "--verify", "teleboost-9")
    assert code == 4
    assert "| mismatch |" in out
    assert err.strip().endswith("1 mismatch")


def test_claims_json(astro, tmp_path: Path) -> None:
    put(tmp_path / "r", "causal_forcing_shapes", 1.0)
    put(tmp_path / "r", "astrolabe_mq_shapes", 0.5)
    code, out, err = astro("claims", "astrolabe", "--results", "r", "--format", "json")
    assert (code, err) == (0, "")
    data = {each["id"]: each for each in json.loads(out)}
    (part,) = data["as-hack-mq"].pop("parts")
    assert (part["metric"], part["a"], part["b"]) == ("vq", "astrolabe_mq", "causal_forcing")
    assert (part["b_mean"] - part["a_mean"], part["verdict"]) == (0.5, "holds")
    assert set(data["as-hack-mq"]) == {
        "id",
        "source",
        "verdict",
        "effect",
        "effect_kind",
        "low",
        "high",
        "n",
        "backbone",
    }
    assert data["as-hack-mq"] == {
        "id": "as-hack-mq",
        "source": "Astrolabe T4c",
        "verdict": "holds",
        "effect": -0.5,
        "effect_kind": "difference",
        "low": -0.5,
        "high": -0.5,
        "n": 1,
        "backbone": "shapes",
    }
    assert data["as-kl"]["verdict"] == "not run"


def test_claims_of_all_papers(astro) -> None:
    _, out, _ = astro("claims")
    assert sum(not line.startswith(" ") for line in out.splitlines()) == 44
    assert "holds      rf-totals" in out
    assert "| `rf-totals` |" in astro("claims", "reward-forcing", "--format", "markdown")[1]


def test_all_tables_without_torch() -> None:
    """What keeps it quick, about a second."""
    code = (
        "import sys; sys.argv = ['astro', 'table', 'all']\nfrom astro_cli.__main__ import main\ntry:\n    "
        "main()\nexcept SystemExit as end:\n"
    )
    code += "    assert not end.code\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60, cwd=ROOT)

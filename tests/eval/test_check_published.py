"""`astro eval check` against a suite's published run: rates, sizes, prompts, switches; lists that are not here stop
nothing.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from eval.inputs.check import check
from eval.inputs.entries import Finding
from eval.inputs.requirements import requirements
from eval.records import store
from eval.scoring.run import Progress, Request, evaluate
from tests.small_videos import write_video


def of(findings: list[Finding], key: str) -> Finding:
    """The one finding about this key."""
    (found,) = [finding for finding in findings if finding.key == key]
    return found


@pytest.mark.skipif(importlib.util.find_spec("vbench") is None, reason="the vbench package is not installed")
def test_other_rates_and_sizes_than_the_papers_are_errors_of_vbench(tmp_path: Path) -> None:
    write_video(tmp_path / "a person is clapping-0.mp4")
    findings = check(tmp_path, requirements("vbench", dimensions=("human_action",)))
    assert (of(findings, "fps").severity, of(findings, "resolution").severity) == ("error", "error")
    assert "8, vbench has 16" in of(findings, "fps").what
    assert "scored too" in of(findings, "fps").hint


def listed(folder: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list among those that prompt sets are read from."""
    monkeypatch.setenv("ASTRO_PROMPTS", str(folder))
    (folder / name).write_text(text)


def test_prompts_unlike_the_published_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    lists = tmp_path_factory.mktemp("lists")
    listed(lists, "interactive_benchmark.txt", "a cat [1s] | a dog [1s]\na cow [1s] | a pig [1s]\n", monkeypatch)
    rows = [{"video": "a.mp4", "prompt": "a cat"}, {"video": "b.mp4", "prompt": "a cat", "switches": [["1s", "a dog"]]}]
    for number, row in enumerate(rows):
        write_video(tmp_path / row["video"], seed=number, frames=16)
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    other, absent = (finding for finding in check(tmp_path, requirements("clip")) if finding.key == "prompts")
    assert (other.severity, other.items) == ("error", ("a.mp4",))  # the first part of a script alone is another prompt
    assert (absent.severity, absent.items) == ("error", ("interactive-0001",))
    mine = lists / "mine.txt"
    mine.write_text("a cat\n")
    assert not [finding for finding in check(tmp_path, requirements("clip", str(mine))) if finding.key == "prompts"]


def test_a_list_that_is_not_here_stops_no_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASTRO_PROMPTS", str(tmp_path / "nowhere"))
    write_video(tmp_path / "a cat-0.mp4")
    finding = of(check(tmp_path, requirements("drift")), "prompts")
    assert (finding.severity, "this prompt list is not here" in finding.what) == ("warning", True)
    assert "MovieGenVideoBench.txt" in finding.hint


def test_stitched_segments_need_switches(tmp_path: Path) -> None:
    write_video(tmp_path / "a cat-0.mp4")
    assert of(check(tmp_path, requirements("videoalign-stitched")), "segments").severity == "error"
    assert not [finding for finding in check(tmp_path, requirements("clip")) if finding.key == "segments"]


def test_records_of_the_published_prompts_name_their_set(
    fake, suite_of, folder_of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite_of('protocol = { prompts = "interactive" }\nscorers = [{ scorer = "brightness" }]')
    folder = folder_of("videos", ["a cat", "a dog"])
    named = {}
    for text in ("a cat [1s]\na dog [1s]\n", "a cat [1s]\na cow [1s]\n"):
        listed(tmp_path, "interactive_benchmark.txt", text, monkeypatch)
        results = tmp_path / f"r{len(named)}"
        evaluate(Request("test", folder, "arm", results), Progress())
        protocol = store.load_results(results)[0].protocol
        named[protocol["prompt_set"]] = protocol["unlike_published"]
    assert named == {"interactive": [], None: ["prompts"]}

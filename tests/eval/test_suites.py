"""Suites as data: every one loads, its scorers exist, its names are those of the tables, and the list of metrics needs
no torch.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from astro_cli.config.errors import RecordError
from eval.metrics import catalog
from eval.papers.published import list_tables, load_table
from eval.prompt_sets.catalog import NAMES
from eval.report.training_records import DIRECTIONS
from eval.scoring.totals import TOTALS
from eval.suites.suite import list_suites, load_suite, parse_suite
from eval.world.suites import WORLD_SUITES

WANTED = {
    "vbench",
    "vbench-long",
    "vbench-i2v",
    "hpsv3",
    "videoalign",
    "long-clip",
    "clip",
    "videoclip-xl",
    "qwen-judge",
    "qwen-embedding",
    "aesthetic",
    "flow",
    "drift",
    "throughput",
    "trajectory",
    "temporal-flickering",
}
HEAD = 'title = "t"\nversion = 1\nsource = "s"\n'
NOT_OF_VIDEOS = {("memory", metric) for metric in DIRECTIONS}  # of training runs


def names_of(suite: str) -> dict[str, str]:
    """Name in records -> direction."""
    found = load_suite(suite)
    named = {
        name: info.direction
        for use in found.scorers
        for name, info in use.names(catalog.find(use.scorer).metrics).items()
    }
    return named | dict.fromkeys(found.totals, "up")


def test_all_suites_are_there():
    assert set(list_suites()) >= WANTED
    assert not set(list_suites()) & set(WORLD_SUITES)


@pytest.mark.parametrize("name", list_suites())
def test_a_suite_holds_together(name):
    suite = load_suite(name)
    keys = [key for use in suite.scorers for key in use.names(catalog.find(use.scorer).metrics)]
    assert sorted(keys) == sorted(set(keys)), "two scorers under one name"
    assert {suite.prompts, suite.protocol.prompts} - {"", None} <= set(NAMES)
    assert set(suite.totals.values()) <= set(TOTALS)
    for use in suite.scorers:
        declaration = catalog.find(use.scorer)
        ids = {info.id for info in declaration.metrics}
        declaration.config.model_validate(use.config)
        assert {*use.keys, *use.only} <= ids
    for total in suite.totals.values():
        assert set(TOTALS[total].metrics) <= set(keys), total


def test_suites_say_what_published_videos_are_like():
    for name in ("vbench", "vbench-long", "vbench-long-custom"):
        assert (load_suite(name).protocol.fps, load_suite(name).protocol.resolution) == (16, (832, 480))
    found = {
        name: load_suite(name).protocol.prompts for name in list_suites() if load_suite(name).protocol.seconds == 60
    }
    scripts = dict.fromkeys(("clip", "long-clip", "videoalign-stitched"), "interactive")
    assert found == scripts | {"drift": "moviegen", "qwen-judge": "moviegen"}


def test_long_videos_have_suites_of_their_own_with_the_scorers_of_short_ones():
    for name in ("hpsv3", "videoalign"):
        short, long = load_suite(name), load_suite(f"{name}-long")
        assert (short.protocol.seconds, long.protocol.seconds) == (None, 30)
        assert long.scorers == short.scorers


def test_tables_name_metrics_that_suites_record():
    wanted = set()
    for table in map(load_table, list_tables()):
        for column in table.columns:
            benchmark = column.benchmark.get("wan", table.benchmark.get("wan"))
            if column.wan is not None and benchmark is not None:
                wanted.add((benchmark, column.wan, column.direction))
    assert len(wanted) > 60
    for benchmark, metric, direction in sorted(wanted):
        if (benchmark, metric) in NOT_OF_VIDEOS:
            assert DIRECTIONS[metric] == direction, metric
        else:
            assert names_of(benchmark).get(metric) == direction, f"{benchmark}: {metric}"


def test_every_scorer_is_in_a_suite():
    used = {use.scorer for name in list_suites() for use in load_suite(name).scorers}
    assert set(catalog.declarations()) == used


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (HEAD, "scorers"),
        (HEAD + "scorers = []", "scorers"),
        (HEAD + "samples = 0\nscorers = [{ scorer = 'a' }]", "samples"),
        (HEAD + "scorers = [{ scorer = 'a' }, { scorer = 'a' }]", "used twice"),
        (HEAD + "colour = 1\nscorers = [{ scorer = 'a' }]", "colour"),
        ("title = ", "not valid TOML"),
    ],
)
def test_a_wrong_suite_is_named(text, says):
    with pytest.raises(RecordError) as caught:
        parse_suite(text, "mine.toml")
    assert "mine.toml" in str(caught.value)
    assert says in str(caught.value)


def test_no_such_suite():
    with pytest.raises(RecordError, match="no such suite") as caught:
        load_suite("vbench-lang")
    assert "did you mean 'vbench-long'" in str(caught.value)


def test_list_imports_no_torch_and_says_what_is_missing(tmp_path):
    heavy = ("torch", "transformers", "open_clip", "vbench")
    code = "import sys; sys.argv = ['astro', 'eval', 'list', '--json']; from astro_cli.__main__ import main\n"
    code += "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
    code += f"print([name for name in {heavy} if name in sys.modules], file=sys.stderr)"
    environment = {
        "PATH": "/usr/bin:/bin",
        "ASTRO_CHECKPOINTS": str(tmp_path),
        "VBENCH_CACHE_DIR": str(tmp_path),
        "HOME": str(tmp_path),
    }
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, cwd=root, env=environment
    )
    assert done.stderr.strip() == "[]"
    listed = json.loads(done.stdout)
    rows = {row["metric"]: row for row in listed["metrics"]}
    assert rows["temporal_flickering"]["ready"]
    assert rows["drift"]["direction"] == "down"
    assert not rows["imaging_quality"]["ready"]
    assert str(tmp_path) in rows["imaging_quality"]["missing"][0]
    assert {"gsb.win_rate", "likert", "vq"} <= rows.keys()
    assert {"vbench", "shapes"} <= {row["suite"] for row in listed["suites"]}

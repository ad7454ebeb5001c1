"""A grid's plan: what of it is done, as far as its folders say."""

import pytest

from astro_cli.commands.evaluate import parse_seeds
from astro_cli.config.errors import RecordError
from astro_cli.training.rundir import RunDir
from eval.ablation import load_grid, plan


def states(runs) -> dict[str, str]:
    return {job.label: job.state for job in plan(load_grid("astrolabe-beta"), [0], runs, [], None)}


def test_a_damaged_folder_does_not_stop_the_plan(tmp_path):
    jobs = plan(load_grid("astrolabe-beta"), [0], tmp_path, [], None)
    first, other = jobs[0], jobs[1]
    run = RunDir(tmp_path / f"{first.recipe.name}-seed0")
    run.open(first.recipe, "", resume=False, device="cpu")
    assert states(tmp_path) == {first.label: "started", other.label: "new"}
    run.final.mkdir()
    (run.final / "card.json").write_text("{}")
    assert states(tmp_path)[first.label] == "finished"
    (run.path / "resolved.json").write_text("x")
    assert states(tmp_path) == {first.label: "damaged", other.label: "new"}


def test_each_seed_is_given_once():
    assert parse_seeds("2,0,1") == [2, 0, 1]
    with pytest.raises(RecordError, match=r"0,1,0.*a seed twice"):
        parse_seeds("0,1,0")

"""Trackers: accelerate's own names, and one that is not installed is refused before anything is built."""

from typing import get_args

import pytest
from accelerate.tracking import LOGGER_TYPE_TO_CLASS

from astro_cli.config.errors import RecipeError
from astro_cli.spec.parts import Tracker
from astro_cli.training import build


def test_the_names_are_those_of_accelerate():
    assert set(get_args(Tracker)) == {"none", *LOGGER_TYPE_TO_CLASS}


def test_one_that_is_not_installed_is_refused_with_the_line_that_brings_it(monkeypatch):
    monkeypatch.setattr(build, "get_available_trackers", lambda: ["tensorboard"])
    build.check_tracker("none")
    build.check_tracker("tensorboard")
    with pytest.raises(RecipeError, match=r"runtime: tracker: found 'comet_ml', which is not installed") as caught:
        build.check_tracker("comet_ml")
    assert caught.value.hint.startswith("pip install comet-ml, or")


def test_a_run_with_a_missing_tracker_leaves_no_folder(astro, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "get_available_trackers", list)
    out = tmp_path / "run"
    code, _, err = astro(
        "rl", "--recipe", "astrolabe_causal_shapes", "--set", 'runtime.tracker="wandb"', "--out", str(out)
    )
    assert code == 2
    assert err.splitlines()[0] == "error: runtime: tracker: found 'wandb', which is not installed"
    assert not out.exists()

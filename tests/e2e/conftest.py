"""A world small enough to train in seconds: the packaged recipes with tiny networks, written next to the test."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from astro_cli.models import weights
from astro_cli.models.wan.transformer import CausalWan
from astro_cli.recipe import load_recipe
from astro_cli.training.build import _initialise
from astro_cli.training.release import write_card
from tests.browser import browser  # noqa: F401 - a fixture
from tests.once import once
from tests.tiny_world import TINY


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random tiny student with its card, as a weights file: one for the whole suite."""
    return once(tmp_path_factory, "base", _write_base) / "student.safetensors"


def _write_base(folder: Path) -> None:
    recipe = load_recipe("self_forcing_shapes", TINY, "distill")
    network = CausalWan(recipe.model)
    _initialise(network, 0)
    with torch.no_grad():
        network.proj_out.weight.normal_(std=0.02, generator=torch.Generator().manual_seed(0))
    weights.write(folder / "student.safetensors", network.state_dict())
    write_card(recipe, "student", folder, {"commit": None, "dirty": None})
    assert json.loads((folder / "student.json").read_text())["role"] == "student"


@pytest.fixture(scope="session")
def tiny_teacher(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    """The same weights with a bidirectional teacher's card."""
    return once(tmp_path_factory, "teacher", lambda folder: _write_teacher(folder, tiny_base)) / "student.safetensors"


def _write_teacher(folder: Path, base: Path) -> None:
    shutil.copy(base, folder / "student.safetensors")
    write_card(load_recipe("sft_shapes", TINY, "sft"), "student", folder, {"commit": None, "dirty": None})
    assert json.loads((folder / "student.json").read_text())["sampling"] == "ode"


@pytest.fixture
def tiny(tiny_base: Path) -> list[str]:
    """Arguments that make any student recipe tiny and start it from the tiny base."""
    sets = [*TINY, *(f"base.{role}={tiny_base}" for role in ("student", "teacher", "critic"))]
    return [argument for item in sets for argument in ("--set", item)]

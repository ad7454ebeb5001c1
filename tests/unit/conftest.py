"""What unit tests share: methods outside the package, an adapter, no checkpoints."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from lora_layouts import ALPHA, RANK
from released_layouts import State, network

import astro_cli.objectives
from astro_cli.models import lora, weights
from astro_cli.models.wan.transformer import CausalWan
from astro_cli.recipe import load_recipe
from astro_cli.training.build import _initialise
from tests.probe_runs import PROBE
from tests.tiny_world import TINY

OUTSIDE = Path(__file__).resolve().parents[1] / "outside"


@pytest.fixture
def outside_kinds(monkeypatch: pytest.MonkeyPatch):
    """The kinds of tests/outside beside the package's own."""
    monkeypatch.setattr(astro_cli.objectives, "__path__", [*astro_cli.objectives.__path__, str(OUTSIDE)])
    yield
    for path in OUTSIDE.glob("*.py"):
        sys.modules.pop(f"astro_cli.objectives.{path.stem}", None)


@pytest.fixture(scope="session")
def bases(tmp_path_factory) -> dict[str, Path]:
    """Random weights of a tiny student and of a wider teacher."""
    sizes = {"student": TINY, "teacher": [*TINY, "model.dim=32", "model.num_layers=3"]}
    files, folder = {}, tmp_path_factory.mktemp("bases")
    for role, sets in sizes.items():
        network = CausalWan(load_recipe("self_forcing_shapes", sets).model)
        _initialise(network, 0)
        torch.nn.init.normal_(
            network.proj_out.weight, std=0.1, generator=torch.Generator().manual_seed(0)
        )  # else nothing reaches the blocks
        files[role] = folder / f"{role}.safetensors"
        weights.write(files[role], network.state_dict())
    return files


@pytest.fixture
def probe(tmp_path, bases, outside_kinds):
    """The probe's recipe with overrides."""
    (tmp_path / "probe.toml").write_text(PROBE)
    base = f"base.student={bases['student']}"
    return lambda *sets: load_recipe(str(tmp_path / "probe.toml"), [*TINY, "video.frames=3", base, *sets])


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """No checkpoint of this machine's is found."""
    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(tmp_path / "none"))


@pytest.fixture
def adapted() -> CausalWan:
    """A network with a trained adapter."""
    model = network()
    lora.add_adapters(model, RANK, ALPHA, 0.0, ("default",), torch.Generator().manual_seed(1))
    rng = torch.Generator().manual_seed(3)
    for value in lora.adapter_state(model, "default").values():
        value.data += 0.1 * torch.randn(value.shape, generator=rng)
    return model


@pytest.fixture
def state(adapted) -> State:
    return {key: value.detach().clone() for key, value in lora.adapter_state(adapted, "default").items()}

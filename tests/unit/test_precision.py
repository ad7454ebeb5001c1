"""The switch to oneDNN's products: only where they round nothing, only while a stream runs."""

import pytest
import torch
from torch import nn

from astro_cli.core import precision

SETTING = precision.ONEDNN.matmul


@pytest.fixture(autouse=True)
def fresh():
    precision.probed.cache_clear()
    yield
    precision.probed.cache_clear()


@pytest.mark.parametrize(
    ("measured", "cpu", "switch"),
    [
        (2e-7, "AuthenticAMD EPYC", True),
        (1.6e-3, "AuthenticAMD EPYC", False),  # it rounds to 8 bits
        (float("nan"), "AuthenticAMD EPYC", False),
        (2e-7, "GenuineIntel Xeon", False),
    ],
)
def test_the_error_and_the_cpu_decide(monkeypatch, measured, cpu, switch):
    monkeypatch.setattr(precision, "error", lambda setting: measured)
    monkeypatch.setattr(precision, "cpu_name", lambda: cpu)
    before = SETTING.fp32_precision
    assert precision.probed().switch is switch
    with precision.streaming():
        assert SETTING.fp32_precision == ("bf16" if switch else before)
    assert SETTING.fp32_precision == before
    with pytest.raises(ZeroDivisionError), precision.streaming():
        _ = 1 / 0
    assert SETTING.fp32_precision == before


def test_the_product_is_made_once(monkeypatch):
    made = []
    monkeypatch.setattr(precision, "error", lambda setting: made.append(setting) or 1.0)
    for _ in range(3):
        precision.probed()
    assert made == ["bf16"]


def test_an_exact_product_has_a_float32_error():
    assert 0 < precision.error("ieee") < precision.ALLOWED


class Passes(nn.Module):
    """Notes the setting of every pass; a pass over nothing fails."""

    def __init__(self) -> None:
        super().__init__()
        self.settings: list[str] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.settings.append(SETTING.fp32_precision)
        return x / x.numel() if x.numel() else x[0]


@pytest.mark.parametrize("switch", [True, False])
def test_a_networks_passes_without_gradients_run_so_and_leave_nothing_behind(monkeypatch, switch):
    monkeypatch.setattr(precision, "error", lambda setting: 2e-7 if switch else 1.0)
    monkeypatch.setattr(precision, "cpu_name", lambda: "AuthenticAMD EPYC")
    network, before = Passes(), SETTING.fp32_precision
    precision.install(network)
    network(torch.ones(1))
    with torch.no_grad():
        network(torch.ones(1))
        assert SETTING.fp32_precision == before
        with pytest.raises(IndexError):
            network(torch.ones(0))
    assert SETTING.fp32_precision == before
    switched = "bf16" if switch else before
    assert network.settings == [before, switched, switched]


def test_an_interrupted_pass_leaves_nothing_behind(monkeypatch):
    monkeypatch.setattr(precision, "error", lambda setting: 2e-7)
    monkeypatch.setattr(precision, "cpu_name", lambda: "AuthenticAMD EPYC")
    network, before = Passes(), SETTING.fp32_precision

    def interrupted(x: torch.Tensor) -> torch.Tensor:
        raise KeyboardInterrupt

    monkeypatch.setattr(network, "forward", interrupted)
    precision.install(network)
    with torch.no_grad(), pytest.raises(KeyboardInterrupt):
        network(torch.ones(1))
    assert SETTING.fp32_precision == before

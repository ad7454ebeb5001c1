"""What a step says of memory: tensors saved for backward everywhere, the allocator's peak on CUDA, both since the step
before.
"""

import pytest
import torch

from astro_cli.training.memory import SavedTensors


def test_the_largest_pass_counts_without_parameters_and_starts_afresh():
    weight = torch.nn.Parameter(torch.randn(4, 4))
    meter = SavedTensors()
    for rows in (2, 8, 3):
        with meter.counting([weight]):
            (torch.randn(rows, 4) @ weight).sum().backward()
    # a product saves its left factor for the weight's gradient: 8 x 4 float32
    assert meter.take(torch.device("cpu")) == {"memory/saved_bytes": 8 * 4 * 4}
    assert meter.take(torch.device("cpu")) == {"memory/saved_bytes": 0.0}


def test_on_cuda_the_allocators_peak_is_logged_and_reset(monkeypatch):
    peaks = {"now": 700}
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: peaks["now"])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: peaks.update(now=0))
    meter, device = SavedTensors(), torch.device("cuda")
    assert [meter.take(device)["memory/peak_bytes"] for _ in range(2)] == [700.0, 0.0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_peak_on_a_device_is_of_the_step():
    device, meter = torch.device("cuda"), SavedTensors()
    meter.take(device)
    torch.zeros(2**20, device=device)
    assert meter.take(device)["memory/peak_bytes"] >= 4 * 2**20

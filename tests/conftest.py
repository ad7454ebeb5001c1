"""What all tests share: two threads at most, so that suites beside each other do not starve."""

import torch

import astro_cli  # makes torchvision importable beside a CPU build of torch

assert astro_cli.compat.torchvision_ops
torch.set_num_threads(min(2, torch.get_num_threads()))

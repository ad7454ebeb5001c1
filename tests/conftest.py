"""What all tests share: two threads at most, so that suites beside each other do not starve."""

import torch

torch.set_num_threads(min(2, torch.get_num_threads()))

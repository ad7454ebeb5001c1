"""What all tests share: one thread each, in the processes they start too; the suite runs in several processes side by
side.
"""

import os
import tempfile

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
os.environ["HF_HUB_CACHE"] = os.path.join(tempfile.gettempdir(), "no-hub-cache")  # not the user's

import torch
from hub_cache import hub_cache  # noqa: F401 - a fixture

import astro_cli  # makes torchvision importable beside a CPU build of torch

assert astro_cli.compat.torchvision_ops
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

"""What all tests share: one thread each, in the processes they start too; the suite runs in several processes side by
side.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import torch

import astro_cli  # makes torchvision importable beside a CPU build of torch

assert astro_cli.compat.torchvision_ops
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

"""Two processes compute what one does: same global batch, same losses, same weights to rounding."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from test_training import without_times

RL = ["rl", "--recipe", "astrolabe_self_forcing_shapes", "--set", "stages.nft.steps=2", "--set", "stages.nft.batch=8", "--set", "lora.rank=4",
      "--set", "stages.nft.experience.prompts=2", "--set", "stages.nft.experience.group=4", "--set", "stages.nft.experience.updates=1"]  # fmt: skip


# Candidate clips on shared histories, windows drawn for all processes, and the penalty on the samples at risk.
LONG = ["long-tune", "--recipe", "astrolabe_long_shapes", *RL[3:], "--set", "stages.nft.experience.frames=18",
        "--set", 'stages.nft.experience.primary="vq"', "--set", 'stages.nft.objective.kl="selective"',
        "--set", "stages.nft.objective.kl_weight=0.1"]  # fmt: skip


@pytest.mark.parametrize("arguments", [RL, LONG], ids=["rl", "long-tune"])
def test_two_processes_equal_one(arguments, tiny, tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_PORT": "29533"}
    outs = []
    for count in (1, 2):
        out = tmp_path / str(count)
        launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count), "--master-port", "29533", "-m", "astro_cli"]
        command = [*launch, *arguments, *tiny, "--out", str(out)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
        outs.append(out)
    one, two = (without_times(out / "metrics.jsonl") for out in outs)
    for a, b in zip(one, two, strict=True):
        for key in {"student/loss", "reward/total", "student/grad_norm", "student/kl", "window/start", "kl/rank_threshold"} & a.keys():
            assert abs(a[key] - b[key]) <= 1e-5 * max(1.0, abs(a[key])), key
    left, right = (load_file(out / "final" / "student.safetensors") for out in outs)
    for key in left:
        torch.testing.assert_close(left[key], right[key], atol=1e-4, rtol=1e-4)

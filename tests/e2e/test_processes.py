"""Two processes compute what one does: same global batch, same losses, same weights to rounding."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from safetensors.torch import load_file
from test_training import without_times

RL = [
    "rl",
    "--recipe",
    "astrolabe_self_forcing_shapes",
    "--set",
    "stages.nft.steps=2",
    "--set",
    "stages.nft.batch=8",
    "--set",
    "lora.rank=4",
    "--set",
    "stages.nft.experience.prompts=2",
    "--set",
    "stages.nft.experience.group=4",
    "--set",
    "stages.nft.experience.updates=1",
    "--set",
    "stages.nft.experience.samples_every=1",
]


# Candidate clips on shared histories, windows drawn for all processes, and the penalty on the samples at risk.
LONG = [
    "long-tune",
    "--recipe",
    "astrolabe_long_shapes",
    *RL[3:],
    "--set",
    "stages.nft.experience.frames=18",
    "--set",
    'stages.nft.experience.primary="vq"',
    "--set",
    'stages.nft.objective.kl="selective"',
    "--set",
    "stages.nft.objective.kl_weight=0.1",
]


OWN = {"student/x0_norm", "memory/saved_bytes"}  # a mean of roots over parts of the batch, and a process's own memory


def iter_frames(path: Path) -> Iterator[np.ndarray]:
    with Image.open(path) as picture:
        for frame in ImageSequence.Iterator(picture):
            yield np.asarray(frame.convert("RGB"))


@pytest.mark.slow  # each starts three processes
@pytest.mark.parametrize("arguments", [RL, LONG], ids=["rl", "long-tune"])
def test_two_processes_equal_one(arguments, tiny, tmp_path):
    outs = []
    for count in (1, 2):
        out = tmp_path / str(count)
        launch = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            str(count),
            "-m",
            "astro_cli",
        ]
        command = [*launch, *arguments, *tiny, "--out", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
        outs.append(out)
    one, two = (without_times(out / "metrics.jsonl") for out in outs)
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        assert {
            "reward/zero_variance_groups",
            "advantage/std",
            "advantage/histogram",
            "student/loss",
            "student/grad_norm",
        } <= a.keys()
        for key in a.keys() - OWN:
            assert a[key] == (b[key] if isinstance(a[key], str) else pytest.approx(b[key], rel=1e-5, abs=1e-5)), key
    for step in range(2):
        best_and_worst, same = (json.loads((out / "samples" / f"{step:06d}.json").read_text()) for out in outs)
        for name in ("best", "worst"):
            assert best_and_worst[name]["prompt"] == same[name]["prompt"]
            assert best_and_worst[name]["reward"] == pytest.approx(same[name]["reward"], abs=1e-5)
            left, right = (
                np.array(list(iter_frames(out / "samples" / f"{step:06d}-{name}.gif")), dtype=float) for out in outs
            )
            assert left.shape == right.shape
            assert (
                np.abs(left - right).mean() < 2.0
            )  # of 255: rounding changes a colour of the GIF's palette here and there
    left, right = (load_file(out / "final" / "student.safetensors") for out in outs)
    for key in left:
        torch.testing.assert_close(left[key], right[key], atol=1e-4, rtol=1e-4)

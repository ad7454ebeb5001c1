"""Official VBench in the interpreter that ASTRO_VBENCH_PYTHON names: our worker gives what vbench's own function gives.
Needs that interpreter.

Run with the weights of docs/vbench.md below VBENCH_CACHE_DIR (random ones of the released layout do); it takes minutes
and 6 GB on a CPU.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from astro_cli.compat import torchvision_ops
from astro_cli.generate.mp4 import write_mp4
from astro_cli.media.decode import frames, probe
from eval.contract import NetworkCache, Sample
from eval.metrics.catalog import find
from eval.vbench import isolated, vbench_files

WEIGHTS = "tag2text"
# Argument 1: the hook, 2: a video, 3: weights. Prints a word of a caption and vbench's own result for it.
DIRECT = """
import json, runpy, sys
runpy.run_path(sys.argv[1])["install"]()
import torch
torch.set_grad_enabled(False)
from vbench import scene
model = scene.tag2text_caption(pretrained=sys.argv[3], image_size=384, vit="swin_b").eval()
captions, generate = [], model.generate
def once(*arguments, **options):
    captions.append(captions[0] if captions else generate(*arguments, **options))
    return captions[-1]
model.generate = once
def result(word):
    info = {"prompt": "a", "video_list": [sys.argv[2]], "auxiliary_info": {"scene": {"scene": word}}}
    return scene.scene(model, [info], torch.device("cpu"))[1][0]["video_results"]
assert result("nowhere") == 0
word = captions[0][0][0].split()[-1]
print(json.dumps([word, result(word)]))
"""


def usable() -> bool:
    return isolated.interpreter() is not None and vbench_files.path_of(WEIGHTS).is_file()


@pytest.mark.skipif(not usable(), reason=f"needs {isolated.VARIABLE} and Tag2Text's weights below VBENCH_CACHE_DIR")
def test_scene_is_vbenchs_own(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_mp4(np.random.default_rng(0).integers(0, 256, (4, 48, 64, 3), dtype=np.uint8), path, 8)
    python = isolated.interpreter()
    assert python is not None
    command = [python, "-c", DIRECT, str(torchvision_ops.__file__), str(path), str(vbench_files.path_of(WEIGHTS))]
    environment = {**os.environ, **isolated.ENVIRONMENT}
    found = subprocess.run(
        command, capture_output=True, text=True, cwd=vbench_files.cache_folder(), env=environment, check=False
    )
    assert found.returncode == 0, found.stderr[-2000:]
    word, value = json.loads(found.stdout.splitlines()[-1])
    assert value > 0
    declaration = find("scene")
    scorer = declaration.build(declaration.config(), NetworkCache())
    sample = Sample(
        path, "0" * 64, probe(path), "p", "a", labels={"auxiliary_info": {"scene": {"scene": {"scene": word}}}}
    )
    watcher = scorer.watch(sample)
    for index, frame_HWC in frames(path):
        watcher.see(index, frame_HWC)
    assert watcher.scores()["scene"].value == value

"""Ship a finished run's weights with the package: networks in half precision, the codec as it is, a card with measured
scores. Trains nothing.

Usage: python scripts/publish_base.py RUN NAME     for example: python scripts/publish_base.py runs/teacher
    shapes/teacher
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import torch

from astro_cli.config import durable
from astro_cli.generate.arm import load_arm
from astro_cli.models import hashes, weights
from astro_cli.shapes.grammar import complete_scene, random_scene
from eval.world import shapes
from eval.world.run import evaluate_arm

PROMPTS = 256
LATENTS = 9  # of a clip the codec is scored on
HALF = torch.float16


def publish(run: Path, name: str) -> dict[str, float]:
    """Write the packaged files and return the scores, measured on what is shipped."""
    role = "codec" if (run / "final" / "codec.safetensors").is_file() else "student"
    source = run / "final" / f"{role}.safetensors"
    target = weights.PACKAGED / f"{name}.safetensors"
    stored = HALF if role == "student" else torch.float32
    state = {key: weights.checked(value, source, key, stored) for key, value in weights.read(source).items()}
    weights.write(target, state)
    card = json.loads(source.with_suffix(".json").read_text(encoding="utf-8"))
    card |= {"weights_hash": hashes.digest(target), "stored_as": str(stored).removeprefix("torch.")}
    durable.write_json(target.with_suffix(".json"), card)
    scores = codec_scores(name) if role == "codec" else student_scores(name)
    durable.write_json(target.with_suffix(".json"), card | {"scores": scores})
    return scores


def student_scores(name: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        means = evaluate_arm(load_arm(name), 0, PROMPTS, Path(folder), lambda done, total: None)
    return {"prompts": PROMPTS, **{key: round(value, 4) for key, value in means.items()}}


def codec_scores(name: str) -> dict[str, float]:
    from astro_cli.core.rng import stream
    from astro_cli.models.backbone import load_backbone
    from astro_cli.shapes.render import random_layout, render

    backbone = load_backbone("shapes", name)
    rngs = [stream("codec-held-out", shapes.VERSION, index) for index in range(PROMPTS)]
    scenes = [complete_scene(random_scene(rng), rng) for rng in rngs]
    frames = render(scenes, random_layout(scenes, rngs, world=backbone.world), backbone.num_frames(LATENTS))
    psnr = -10 * (backbone.decode(backbone.encode(frames)) - frames).pow(2).mean((1, 2, 3, 4)).log10()
    return {"clips": PROMPTS, "psnr_db": round(psnr.mean().item(), 2), "psnr_db_worst": round(psnr.min().item(), 2)}


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    print(json.dumps(publish(Path(sys.argv[1]), sys.argv[2]), indent=2))

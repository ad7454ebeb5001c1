"""What the untuned base scores on prompts: measured once, and kept for every run from the same weights.

A clip's noise belongs to its prompt and number, so the scores do not depend on the run's seed. They are kept as JSON in
`astro/base_scores/` below XDG_CACHE_HOME or ~/.cache, by a hash of the base's weights and of all that decides a score;
a file that cannot be read or written is ignored.
Dimensions: P prompt of a part, Q prompt, N clip of a prompt.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from astro_cli.config.durable import write_json
from astro_cli.config.errors import AstroError
from astro_cli.config.files import Reader
from astro_cli.core.rng import stream_seed
from astro_cli.models import checkpoint, hashes, weights
from astro_cli.models.backbone import Backbone
from astro_cli.objectives.base import RunContext
from astro_cli.rewards.base import Reward
from astro_cli.spec import ExperienceSpec, Recipe
from astro_cli.training.clips import Roller, window_start


@dataclass(frozen=True)
class BaseScores:
    """Scores (Q, N) by reward, float32, of N clips on each of Q prompts."""

    prompts: list[str]
    scores: Mapping[str, torch.Tensor]

    def of(self, prompts: list[str]) -> dict[str, torch.Tensor]:
        """(P, N) by reward, of these prompts."""
        places = {prompt: row for row, prompt in enumerate(self.prompts)}
        rows = [places[prompt] for prompt in prompts]
        return {key: value[rows] for key, value in self.scores.items()}


def measure(
    spec: ExperienceSpec,
    run_context: RunContext,
    backbone: Backbone,
    rewards: list[Reward],
    prompts: list[str],
    samples: int,
    progress: Callable[[int, int], None],
) -> BaseScores:
    """Roll out and score `samples` clips of each prompt by the old policy: the base, before the first update."""
    roller = Roller(spec.model_copy(update={"group": samples}), run_context, backbone, rewards)
    roller.begin(stream_seed("base"))
    rows: dict[int, dict[str, torch.Tensor]] = {}
    for start, places in _by_start(roller, spec, prompts).items():
        for first in range(0, len(places), spec.prompts):
            part = places[first : first + spec.prompts]
            owners = [stream_seed("base", prompts[row]) for row in part]
            seeds = [stream_seed(owner, "member", member) for owner in owners for member in range(samples)]
            own = [prompts[row] for row in part]
            text = backbone.encode_text(own).repeat_interleave(samples, 0).to(run_context.device)
            repeated = [prompt for prompt in own for _ in range(samples)]
            if spec.clip:
                clips = roller.candidates(repeated, seeds, text, owners, start)
            else:
                clips = roller.sequences(repeated, seeds, text)
            scores = {key: value.reshape(-1, samples).cpu() for key, value in clips.scores.items()}
            for place, row in enumerate(part):
                rows[row] = {key: value[place] for key, value in scores.items()}
            progress(len(rows), len(prompts))
    whole = {}
    for key in rows[0]:
        whole[key] = torch.stack([rows[row][key] for row in range(len(prompts))])
    return BaseScores(prompts, whole)


def _by_start(roller: Roller, spec: ExperienceSpec, prompts: list[str]) -> dict[int, list[int]]:
    """Prompts' places by the frame at which their clips begin: each prompt's own draw, whatever it is measured with."""
    places: dict[int, list[int]] = {}
    for row, prompt in enumerate(prompts):
        drawn = stream_seed("base", prompt)
        start = window_start(spec, roller.frames, roller.run_context.block, drawn) if spec.clip else 0
        places.setdefault(start, []).append(row)
    return places


def key_of(recipe: Recipe, spec: ExperienceSpec, rewards: list[str], prompts: list[str], samples: int) -> str:
    """Hash of the base's weights and of everything else that decides its scores."""
    shown = ("frames", "clip", "window", "sde_window", "sde_range", "scorers")
    facts: dict[str, Any] = {
        "weights": weights_hash(recipe),
        "recipe": recipe.model_dump(
            mode="json", include={"backbone", "policy", "model", "video", "sampler", "teacher", "cache", "base"}
        ),
        "precision": recipe.runtime.precision,
        "experience": spec.model_dump(mode="json", include=set(shown)),
        "rewards": rewards,
        "prompts": prompts,
        "samples": samples,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def weights_hash(recipe: Recipe) -> str:
    """Of the base's files; of fresh weights the seed they are drawn from."""
    source = recipe.base.student
    if source is None:
        return f"seed {recipe.seed}"
    file = checkpoint.find(source) if recipe.backbone == "wan" else weights.find(source, "student")
    shards = sorted(file.parent.glob("*.safetensors")) if file.suffix == ".json" else [file]
    return " ".join(hashes.digest(shard) for shard in shards)


def place(key: str) -> Path:
    return hashes.cache_file().parent / "base_scores" / f"{key}.json"


def read(key: str, prompts: list[str], rewards: list[str], samples: int) -> BaseScores | None:
    """The scores kept under a key; None where there are none that can be used."""
    try:
        kept = Reader(AstroError).table(place(key))
        scores = {reward: torch.tensor(kept["scores"][reward], dtype=torch.float32) for reward in rewards}
    except (AstroError, ValueError, LookupError, TypeError, RuntimeError, OverflowError):
        return None
    whole = all(value.shape == (len(prompts), samples) and bool(value.isfinite().all()) for value in scores.values())
    whole = whole and kept.get("prompts") == prompts and kept.get("sha256") == _sha256(prompts, kept["scores"])
    return BaseScores(prompts, scores) if whole else None


def _sha256(prompts: list[str], scores: dict[str, list[list[float]]]) -> str:
    return hashlib.sha256(json.dumps([prompts, scores], sort_keys=True).encode()).hexdigest()


def keep(key: str, base: BaseScores) -> None:
    """Write scores for later runs; float32 survives the text."""
    scores = {reward: value.double().tolist() for reward, value in base.scores.items()}
    with contextlib.suppress(OSError):
        write_json(place(key), {"prompts": base.prompts, "scores": scores, "sha256": _sha256(base.prompts, scores)})

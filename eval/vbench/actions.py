"""Human action by a classifier of Kinetics-400's actions.

Dimensions: N frame, H, W pixel rows and columns, C colour channel, A action.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from astro_cli.config.errors import did_you_mean
from eval.contract import Sample, Score, ScoreError
from eval.networks.pictures import IMAGENET_MEAN, IMAGENET_STD
from eval.vbench.adapter import module
from eval.vbench.networks import on
from eval.video.sampling import middle
from eval.watchers.watching import Chosen

FRAMES, TOP, LEAST, DIGITS = 16, 5, 0.85, 4
SIDE_PX, WIDE_PX = 224, 256
BEFORE_ACTION = "person is "


def action_of(prompt: str) -> str:
    """The action that a prompt asks for: what follows "person is ", up to a dash or underscore, in lower case.

    Source: vbench 0.1.5, human_action.py.
    **Deviations:** read from the prompt; vbench reads it from the file's name, so that other names score 0.
    """
    return prompt.lower().split("-")[0].split(BEFORE_ACTION)[-1].split("_")[0]


def action_names() -> list[str]:
    """Kinetics-400's names in the classifier's order, from the package's own file."""
    third_party = Path(str(module("utils").__file__)).parent / "third_party"
    rows = [
        line.strip().split("\t")
        for line in (third_party / "umt" / "kinetics_400_categories.txt").read_text(encoding="utf-8").splitlines()
    ]
    return [name.lower() for name, _ in sorted(rows, key=lambda row: int(row[1]))]


class ActionScorer:
    """1 where the prompt's action is among UMT's five likeliest with a sigmoid of 0.85 or more, else 0; 16 middle
    frames of equal parts.

    Args:
        network: UMT-L/16.

    Source: VBench, arXiv 2311.17982; vbench 0.1.5, human_action.py.
    **Deviations:** an action that Kinetics-400 does not have cannot be scored (vbench: 0).
    """

    def __init__(self, name: str, network: nn.Module) -> None:
        self.name, self.network, self.actions = name, network, action_names()
        videos, volumes = (
            module(f"third_party.umt.datasets.{part}") for part in ("video_transforms", "volume_transforms")
        )
        self.prepare = videos.Compose(
            [
                videos.Resize(WIDE_PX, interpolation="bilinear"),
                videos.CenterCrop(size=(SIDE_PX, SIDE_PX)),
                volumes.ClipToTensor(),
                videos.Normalize(mean=list(IMAGENET_MEAN), std=list(IMAGENET_STD)),
            ]
        )

    def watch(self, sample: Sample) -> Chosen:
        wanted = action_of(sample.prompt)
        if wanted not in self.actions:
            hint = (
                f"prompts end as VBench's do, 'A person is riding a bike'; {did_you_mean(wanted, self.actions)[:120]}"
            )
            raise ScoreError(sample.path, "prompt", f"{wanted[:80]!r} is no action of Kinetics-400", hint=hint)
        return Chosen(middle(FRAMES, sample.info.frames), lambda frames_NHWC: self._score(frames_NHWC, wanted))

    @torch.no_grad()
    def _score(self, frames_NHWC: np.ndarray, wanted: str) -> dict[str, Score]:
        x_1CNHW = on(self.network, self.prepare(frames_NHWC))[None]
        likely, places = torch.sigmoid(self.network(x_1CNHW))[0].topk(TOP)
        seen = self._seen(likely.tolist(), places.tolist())
        return {
            self.name: Score(
                float(wanted in [action for action, value in seen if value >= LEAST]), {"wanted": wanted, "seen": seen}
            )
        }

    def _seen(self, likely: Sequence[float], places: Sequence[int]) -> list[tuple[str, float]]:
        return [(self.actions[place], round(value, DIGITS)) for place, value in zip(places, likely, strict=True)]

"""The interactive suite of the embedded world: what a change of prompt does to a video. Owns the protocol.

Every entry is a first prompt that names everything, and three videos from the same noise:

    event       the second prompt names nothing but the new event; what it leaves out the teacher fills from its prior
    restated    the second prompt names everything again
    still       one prompt throughout, whose object does not move

`prior_pull`: share of the attributes (colour, size, background, texture) that were another value and have become the
prior's most likely one after `event`, less that share after `restated`.
`gate_drop_biased`, `gate_drop_neutral`: w of the last chunk before the switch less w of the first after it, of `event`
and of `restated`.
`within_event_spread`, `cross_event_step`, `cross_event_smoothness`: the path of the latents of `restated` on their own
first two principal directions.
`direction_imbalance`: how one-sidedly the object of `still` drifts, |share of steps to the left less to the right| +
|up less down|.

Source: Delta Forcing (arXiv 2605.14382), sections 3 and 5.4, appendix A (Eq. 12 and 13).

**Deviations**: the paper shows pictures and gives no number: all formulas are ours. mu and s of the gate, which it does
not print, are calibrated on the chunks without a switch of the same videos, as in training. Phi is the codec's encoder,
as in the recipes of this world.
Dimensions: B video, F latent frame, T frame, C, H, W; N step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from astro_cli.core.rng import stream
from astro_cli.generate.arm import Arm
from astro_cli.rollout.switching import SwitchRule
from astro_cli.shapes.grammar import BACKGROUNDS, COLORS, SIZES, TEXTURES, Motion, Scene, caption, random_scene
from astro_cli.shapes.oracle import Measurement, measure
from astro_cli.shapes.segment import segment, steps
from astro_cli.shapes.stories import changed, event
from eval.watchers import trajectories
from eval.world import gate
from eval.world.oracle_scores import join_batches, noise_seeds
from eval.world.streams import cache_protocol, latent_blocks
from eval.world.suites import Progress, Scores

NAME = "shapes-interactive"
VERSION = 1
BATCH = 16  # videos generated at once
CHUNKS, BEFORE = 6, 3  # of a video; before the switch
BETWEEN = " | "
COMPONENTS = 2
SPAN = 4  # frames over which a step of a resting object is taken
RESTING = 0.65  # world units that it may wander meanwhile
RULE = SwitchRule(recache="bidirectional", renew_sink=False)
# The prior's most likely value of what a prompt may leave out (`grammar.complete_scene`), among those of the oracle.
HEADS = {
    "color": COLORS.index("red"),
    "size": SIZES.index("large"),
    "background": BACKGROUNDS.index("gray"),
    "texture": TEXTURES.index("plain"),
}
DRIFTS = ("event", "restated")
METRICS = (
    "prior_pull",
    "gate_drop_biased",
    "gate_drop_neutral",
    "within_event_spread",
    "cross_event_step",
    "cross_event_smoothness",
    "direction_imbalance",
)


def prompt_set(count: int) -> list[str]:
    """The first `count` entries: first prompt, event, restated and still one, from a stream of their own. The first
    scenes have no colour, size or background that the prior would fill in.
    """
    entries = []
    for index in range(count):
        rng = stream("shapes-interactive-benchmark", VERSION, index)
        first = random_scene(rng)
        while _has_heads(first):
            first = random_scene(rng)
        second = changed(first, ["motion"], rng)
        resting = dataclasses.replace(first.objects[0], motion=Motion("still"))
        still = dataclasses.replace(first, objects=(resting,))
        entries.append(BETWEEN.join(map(caption, (first, event(second, ["motion"]), second, still))))
    return entries


def _has_heads(scene: Scene) -> bool:
    spec = scene.objects[0]
    return spec.color == "red" or spec.size == "large" or scene.background == "gray"


def num_frames(arm: Arm) -> int:
    return gate.plan_of(arm, CHUNKS).end


def switch_of(arm: Arm) -> int:
    """The latent frame at which the second prompt takes over."""
    return gate.plan_of(arm, CHUNKS).starts()[BEFORE]


def protocol(arm: Arm) -> dict[str, Any]:
    return {
        "switch_latent": switch_of(arm),
        "chunks": CHUNKS,
        "switch": RULE.model_dump(),
        "phi": gate.PHI,
        "gate_sigma": gate.GATE_SIGMA,
        "cache": cache_protocol(arm, num_frames(arm)),
    }


def evaluate(arm: Arm, seed: int, prompts: list[str], progress: Progress) -> Scores:
    """Stream every entry's videos and measure them. Returns per metric one score per entry (None: does not apply).

    Raises:
        CheckpointError: a multi-step teacher, or an arm of latents without a packaged teacher.
    """
    seeds, switch = noise_seeds(seed, len(prompts)), switch_of(arm)
    teacher, parts = gate.teacher_of(arm), []
    moved: dict[str, list[gate.Deltas]] = {name: [] for name in DRIFTS}
    for start in range(0, len(prompts), BATCH):
        rows = slice(start, start + BATCH)
        entries = [entry.split(BETWEEN) for entry in prompts[rows]]
        texts = [*map(list, zip(*entries, strict=True))]
        first, own = texts[0], seeds[rows]
        pulled = {}
        for name, second in zip(DRIFTS, texts[1:3], strict=True):
            latents = switched(arm, first, second, own)
            moved[name].append(gate.deltas(arm, teacher, latents, (first, second), switch, own))
            pulled[name] = prior_share(*_events(arm, latents, switch))
        path = latent_paths(latents, switch, arm.card["video"]["block"])
        still = arm.backbone.decode(torch.cat(list(latent_blocks(arm, texts[3], own, num_frames(arm))), 1)).cpu()
        pull = {"prior_pull": pulled["event"] - pulled["restated"]}
        parts.append(pull | path | {"direction_imbalance": direction_imbalance(still)})
        progress(min(start + BATCH, len(prompts)), len(prompts))
    return join_batches(parts) | gate_drops(moved, switch)


def switched(arm: Arm, first: list[str], second: list[str], seeds: list[int]) -> torch.Tensor:
    """Latents (B, F, C, H, W) of videos whose prompt changes at `switch_of`."""
    switches = [(switch_of(arm), second)]
    return torch.cat(list(latent_blocks(arm, first, seeds, num_frames(arm), switches, RULE)), 1)


def _events(arm: Arm, latents_BFCHW: torch.Tensor, switch: int) -> tuple[Measurement, Measurement]:
    """What the frames before and after the switch show."""
    frames, cut = arm.backbone.decode(latents_BFCHW).cpu(), arm.backbone.num_frames(switch)
    pace = arm.backbone.world.pace
    return measure(frames[:, :cut], pace), measure(frames[:, cut:], pace)


def prior_share(before: Measurement, after: Measurement) -> torch.Tensor:
    """(B,) share of the attributes that were not the prior's most likely value and have become it; NaN where all
    were.
    """
    turned = []
    for name, head in HEADS.items():
        was, now = getattr(before, name), getattr(after, name)
        turned.append(torch.where(was == head, float("nan"), (now == head).float()))
    return torch.stack(turned).nanmean(0)


def gate_drops(moved: Mapping[str, Sequence[gate.Deltas]], switch: int) -> Scores:
    """By how much w falls at the switch, of every entry; mu and s from the chunks without a switch of all videos."""
    calm = [each.calm(switch) for batches in moved.values() for each in batches]
    mu, s = gate.threshold(torch.cat(calm))
    scores: Scores = {}
    for metric, name in (("gate_drop_biased", "event"), ("gate_drop_neutral", "restated")):
        drops = list[float | None]()
        for each in moved[name]:
            w_BK, place = each.gates(mu, s), each.starts.index(switch)
            drops += (w_BK[:, place - 1] - w_BK[:, place]).tolist()
        scores[metric] = drops
    return scores


def latent_paths(latents_BFCHW: torch.Tensor, switch: int, bridge: int) -> dict[str, torch.Tensor]:
    """Spread within the two events and the step between them, (B,) each, of each video's own projection. Distances are
    root mean squares over a latent's entries.
    """
    frames = latents_BFCHW.shape[1]
    events = [list(range(switch)), list(range(switch, frames))]
    shapes: dict[str, list[float]] = {"within_event_spread": [], "cross_event_step": [], "cross_event_smoothness": []}
    for points_FK, _ in map(projected, latents_BFCHW):
        shape = trajectories.measure(points_FK, events, bridge)
        for key, value in zip(shapes, (shape.spread, shape.step, shape.smoothness), strict=True):
            shapes[key].append(float("nan") if value is None else value)
    return {key: torch.tensor(values) for key, values in shapes.items()}


def projected(latents_FCHW: torch.Tensor) -> tuple[np.ndarray, float]:
    """A video's latents on their own first principal directions (F, 2), and the share of the variance they hold."""
    z_FD = latents_FCHW.flatten(1).float().cpu().numpy()
    return trajectories.project(z_FD / np.sqrt(z_FD.shape[1]), COMPONENTS)


def direction_imbalance(frames_BTCHW: torch.Tensor) -> torch.Tensor:
    """(B,) in 0..2: |share of steps to the left - to the right| + |up - down|, of steps over four frames."""
    center_BT2 = segment(frames_BTCHW.float()).center_BT2[:, ::SPAN]
    step_BN2 = steps(center_BT2)
    signs_BN2 = torch.sign(step_BN2) * (step_BN2.abs() > RESTING)
    return signs_BN2.mean(1).abs().sum(1)

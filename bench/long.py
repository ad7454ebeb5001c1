"""Streaming long tuning on the embedded world: a step of the student early and late in a long video.

Seconds are CPU seconds; the two sides take turns, each from a saved sequence. Bytes are those that the backward pass
keeps, and those of the sequence's state.
"""

from __future__ import annotations

import itertools
import statistics
import time

import torch

from astro_cli.models.wan.transformer import CausalWan
from astro_cli.objectives.base import Batch, RunContext
from astro_cli.objectives.long_tuning import Config, Objective
from astro_cli.recipe import load_recipe, resolve_kind
from astro_cli.rollout.long_sequence import LongSequence, VideoScript
from astro_cli.training.build import build
from astro_cli.training.memory import SavedTensors

EARLY, LATE, VIDEOS, REPEATS = 2, 20, 4, 5  # chunks, videos of a batch, turns of each side
FRAMES = 9 + 6 * LATE  # of the video: the chunk LATE is its last
PROMPTS = ("a large red circle moves right slowly over a gray plain background", "a circle moves left")
CPU = torch.device("cpu")


def rows() -> list[tuple[str, str, str]]:
    """(measure, ratio, what it divides)."""
    recipe = load_recipe("long_tuning_shapes", [f"stages.long_tuning.objective.frames={FRAMES}"])
    run_context, backbone = build(recipe, CPU)
    config = resolve_kind("objectives", recipe.stages["long_tuning"].objective, "")
    assert isinstance(config, Config)
    objective, plan = Objective(config, run_context), config.plan(recipe.video.frames)
    texts = [backbone.encode_text([prompt] * VIDEOS) for prompt in PROMPTS]
    script, student = VideoScript(list(range(VIDEOS)), (texts[0], texts[1]), plan.starts()[1]), _student(run_context)
    states, made = {}, LongSequence(student, backbone, run_context.stream_spec(), plan, script)
    for chunk in range(LATE):
        if chunk == EARLY:
            states[chunk] = made.state()
        made.enter()
        with torch.no_grad():
            made.next_chunk(exit_step=3, gradient=False)
    states[LATE] = made.state()
    seconds, kept = {chunk: list[float]() for chunk in states}, dict[int, int]()
    for turn, chunk in itertools.product(range(REPEATS + 1), states):
        spec = run_context.stream_spec()
        sequence = LongSequence.load(student, backbone, spec, plan, script, states[chunk])
        batch = Batch(list(range(VIDEOS)), [""] * VIDEOS, text_BMD=sequence.text_BMD, sequences=(sequence,))
        saved, began = SavedTensors(), time.process_time()
        sequence.enter()
        with saved.counting(student.parameters()):
            out = objective.loss("student", batch)
        out.loss.backward()
        if turn:
            seconds[chunk].append(time.process_time() - began)
        student.zero_grad(set_to_none=True)
        kept[chunk] = int(saved.take(CPU)["memory/saved_bytes"])
    time_ratio = statistics.median(seconds[LATE]) / statistics.median(seconds[EARLY])
    state = {chunk: _bytes(tensors) for chunk, tensors in states.items()}
    of = f"chunk {LATE} / chunk {EARLY}"
    return [
        ("long tuning: time of a step", f"{time_ratio:.3f}", of),
        ("long tuning: bytes for the backward pass", f"{kept[LATE] / kept[EARLY]:.3f}", of),
        ("long tuning: bytes of the sequence", f"{state[LATE] / state[EARLY]:.3f}", of),
    ]


def _bytes(tensors: dict[str, torch.Tensor]) -> int:
    return sum(value.numel() * value.element_size() for value in tensors.values())


def _student(run_context: RunContext) -> CausalWan:
    with run_context.roles.use("student") as student:
        return student

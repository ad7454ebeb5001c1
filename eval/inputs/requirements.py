"""What a suite requires of its videos, as data; coverage.py and uniform.py check it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from eval.prompt_sets import PromptSet, PromptSetError, prompt_set
from eval.suites.suite import Protocol, Suite, load_suite

VBENCH_SECONDS = 5.0  # VBench's FAQ: VBench below, VBench-Long from there on
DRIFT_SECONDS = 4.0  # a standard deviation needs two clips of two seconds
JUDGED_SECONDS = 5.0  # the judge looks at the last five
SEGMENT_SECONDS = 10.0  # of interactive videos: Astrolabe's Table 3, Delta Forcing's Table 1
SEGMENT_REASON = "the papers' segments are 10 s, each with its own prompt"


@dataclass(frozen=True)
class SuiteLength:
    """Seconds a suite is for: `at_least`, and less than `below`; other videos are scored too, with a warning that says
    `reason`. Below `frames` its scorers cannot score, nor, with `switches`, a video of one prompt.
    """

    at_least: float = 0.0
    below: float = math.inf
    reason: str = ""
    frames: int = 1
    switches: bool = False


ANY_LENGTH = SuiteLength()
LENGTHS = {
    "vbench": SuiteLength(
        below=VBENCH_SECONDS,
        reason="from 5 s on it is VBench-Long's; papers on Wan 2.1 take VBench for 81 frames at 16 fps, 5.06 s",
        frames=2,
    ),
    "vbench-i2v": SuiteLength(frames=2),
    "vbench-long": SuiteLength(VBENCH_SECONDS, reason="below 5 s it is VBench's", frames=2),
    "vbench-long-custom": SuiteLength(VBENCH_SECONDS, reason="below 5 s it is VBench's", frames=2),
    "flow": SuiteLength(frames=2),
    "flow-dis": SuiteLength(frames=2),
    "temporal-flickering": SuiteLength(frames=2),
    "videoclip-xl": SuiteLength(frames=8),
    "drift": SuiteLength(DRIFT_SECONDS, reason="drift compares clips of 2 s", frames=2),
    "qwen-judge": SuiteLength(JUDGED_SECONDS, reason="the last 5 s are judged"),
    "clip": SuiteLength(SEGMENT_SECONDS, reason=SEGMENT_REASON),
    "long-clip": SuiteLength(SEGMENT_SECONDS, reason=SEGMENT_REASON),
    "videoalign-stitched": SuiteLength(SEGMENT_SECONDS, reason=SEGMENT_REASON, frames=2, switches=True),
}


@dataclass(frozen=True)
class Requirements:
    """What the videos of a suite are like. None or 0: anything.

    Attributes:
        samples: videos per prompt, indices 0 to samples - 1.
        dimensions: only the prompts of these VBench dimensions are asked for; none: all.
        extra: VBench dimension -> how many videos its prompts may have.
        protocol: fps, frames, resolution and seconds that every video must have.
        published: prompts of the published run, where the suite takes any and the user named none.
        not_compared: why `published` is not here, and what to do.
    """

    suite: str = ""
    prompts: PromptSet | None = None
    samples: int = 0
    dimensions: tuple[str, ...] = ()
    extra: Mapping[str, int] = field(default_factory=dict)
    protocol: Protocol = field(default_factory=Protocol)
    length: SuiteLength = ANY_LENGTH
    published: PromptSet | None = None
    not_compared: PromptSetError | None = None


def requirements(suite: str, prompts: str = "", dimensions: tuple[str, ...] = ()) -> Requirements:
    """A suite's requirements.

    Args:
        suite: its name; "": only what holds for every folder.
        prompts: a prompt set or file instead of the suite's own.

    Raises:
        RecordError: no such suite.
        PromptSetError: its prompt list is not here.
    """
    if not suite:
        return Requirements(prompts=prompt_set(prompts) if prompts else None, dimensions=dimensions)
    loaded = load_suite(suite)
    name = prompts or loaded.prompts
    return of_suite(loaded, suite, prompt_set(name) if name else None, dimensions)


def of_suite(suite: Suite, name: str, prompts: PromptSet | None, dimensions: tuple[str, ...] = ()) -> Requirements:
    """The requirements of a suite at hand, with the prompt set it is used with."""
    extra = {spec.label: spec.candidates for spec in suite.scorers if spec.candidates}
    published, problem = _looked_up(suite.protocol.prompts) if prompts is None else (None, None)
    return Requirements(
        name,
        prompts,
        suite.samples,
        dimensions,
        extra,
        suite.protocol,
        LENGTHS.get(name, ANY_LENGTH),
        published,
        problem,
    )


def _looked_up(name: str | None) -> tuple[PromptSet | None, PromptSetError | None]:
    """A prompt set that need not be here: without its list the videos are scored all the same."""
    try:
        return (prompt_set(name), None) if name else (None, None)
    except PromptSetError as error:
        return None, error

"""The suites of the embedded world, which score arms (weights), by name; each is a module of `eval/world/`.

Free of torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from astro_cli.config.errors import RecordError, did_you_mean

if TYPE_CHECKING:
    from astro_cli.generate.arm import Arm

Progress = Callable[[int, int], None]  # prompts done, prompts in all
Scores = dict[str, list[float | None]]  # per metric one score per prompt; None: does not apply
ATTRIBUTES_SHOWN = ("color", "shape", "size", "motion", "speed", "background", "texture")


class SuiteModule(Protocol):
    """What a module of `eval/world/` that scores arms has."""

    NAME: str
    VERSION: int
    METRICS: tuple[str, ...]  # of a complete evaluation

    def prompt_set(self, count: int) -> list[str]:
        """The first `count` entries of the held-out set, a line of text each."""
        ...

    def num_frames(self, arm: Arm) -> int:
        """Latent frames of a video of this arm."""
        ...

    def protocol(self, arm: Arm) -> dict[str, Any]:
        """What a record's protocol says beside the fields all suites have."""
        ...

    def evaluate(self, arm: Arm, seed: int, prompts: list[str], progress: Progress) -> Scores:
        """Generate a video per entry of the prompt set with the noise of `seed`, and score it."""
        ...


@dataclass(frozen=True)
class WorldSuite:
    """A suite of arms as the command line shows it.

    Attributes:
        prompts: entries of the prompt set that are scored where no number is asked for.
        shown: metrics printed after an evaluation, in order.
        timed: whether the throughput of the arms is measured too.
        sized: whether it scores videos of other sizes than the trained one.
    """

    name: str
    title: str
    module: str
    prompts: int
    shown: tuple[str, ...]
    timed: bool = False
    sized: bool = False

    def load(self) -> SuiteModule:
        """The suite's module; imports torch."""
        return cast(SuiteModule, importlib.import_module(self.module))


SUITES = (
    WorldSuite(
        "shapes",
        "Clips of the trained length, one prompt each",
        "eval.world.shapes",
        256,
        ("vq", "mq", "ta", *ATTRIBUTES_SHOWN, "throughput"),
        timed=True,
        sized=True,
    ),
    WorldSuite(
        "shapes-long",
        "Videos of 30 s, one prompt each",
        "eval.world.shapes_long",
        64,
        (
            "vq",
            "mq",
            "ta",
            *(f"{metric}_{third}_third" for metric in ("vq", "mq", "ta") for third in ("first", "last")),
            "drift",
        ),
        sized=True,
    ),
    WorldSuite(
        "shapes-i2v",
        "Clips whose first frame is given, rendered from the prompt",
        "eval.world.shapes_i2v",
        256,
        ("vq", "mq", "ta", "temporal_quality", "i2v_subject", "i2v_background"),
        sized=True,
    ),
    WorldSuite(
        "shapes-i2v-long",
        "Videos of 60 s whose first frame is given",
        "eval.world.shapes_i2v_long",
        32,
        ("vq", "temporal_quality", "identity", "background_consistency", "smoothness", "dynamics", "i2v_subject"),
        sized=True,
    ),
    WorldSuite(
        "shapes-camera",
        "Clips under moves of the camera, against what is measured",
        "eval.world.shapes_camera",
        128,
        ("camera_error", "camera_error_object", "camera_agreement"),
        sized=True,
    ),
    WorldSuite(
        "shapes-multi",
        "Videos of 60 s, six prompts of 10 s in turn",
        "eval.world.shapes_multi",
        32,
        ("vq", "mq", "ta", "identity", *(f"ta_segment_{place}" for place in range(1, 7)), "drift"),
    ),
    WorldSuite(
        "shapes-interactive",
        "Videos whose second prompt names everything, or the new event alone",
        "eval.world.shapes_interactive",
        48,
        (
            "prior_pull",
            "gate_drop_biased",
            "gate_drop_neutral",
            "within_event_spread",
            "cross_event_step",
            "direction_imbalance",
        ),
    ),
    WorldSuite(
        "shapes-structure",
        "Clips whose camera pans, and the same with a camera at rest",
        "eval.world.shapes_structure",
        128,
        ("structural_stability", "structural_stability_rest"),
    ),
    WorldSuite(
        "shapes-flow",
        "Optical flow of decoded clips against the renderer's exact flow",
        "eval.world.shapes_flow",
        128,
        ("epe", "over_1px", "over_3px", "f1_all"),
    ),
)
WORLD_SUITES = {suite.name: suite for suite in SUITES}
# The lower the better; of all others the higher.
FALLS = frozenset(
    {
        "kv_memory_growth",
        "frame_time_growth",
        "drift",
        "prior_pull",
        "within_event_spread",
        "cross_event_step",
        "direction_imbalance",
        "camera_error",
        "camera_error_object",
        "epe",
        "over_1px",
        "over_3px",
        "f1_all",
    }
)
UNITS = {  # of all others 0..1
    "throughput": "frames per second",
    "drift": "points of 0..100",
    "epe": "pixels",
    "camera_error": "world units per latent frame",
    "camera_error_object": "world units per latent frame",
}


def at(name: str) -> tuple[str, str | None]:
    """A grid's "shapes@48x48" as suite and size."""
    suite, _, size = name.partition("@")
    return suite, size or None


def world_suite(name: str) -> WorldSuite:
    """A suite by its name.

    Raises:
        RecordError: no such suite, with the nearest name.
    """
    if name not in WORLD_SUITES:
        raise RecordError("eval", name, "no such suite", hint=did_you_mean(name, WORLD_SUITES))
    return WORLD_SUITES[name]

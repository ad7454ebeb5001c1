"""What `--camera` says: where the camera of a video goes, and for how long.

right 2s, rest 1s, up
"""

from __future__ import annotations

import re
from dataclasses import replace

from astro_cli.config.errors import StreamError
from astro_cli.generate.arm import Arm
from astro_cli.shapes.camera import STEP, WAYS

PART = re.compile(r"\s*([a-z]+)(?:\s+([0-9]{1,6}(?:\.[0-9]{1,3})?)s)?\s*")
EXAMPLE = 'for example --camera "right 2s, rest 1s, up"'
LONGEST = 86_400  # seconds of one move


def with_camera(arm: Arm, camera: str) -> Arm:
    """The arm whose videos are seen by that camera. Moves last whole latent frames, the last one for ever.

    Raises:
        StreamError: a model without a camera, an unknown move, or one but the last without a length.
    """
    if not arm.has_camera:
        hint = "train one: astro distill --recipe aapt_camera_shapes"
        raise StreamError("--camera", camera, f"{arm.name} was trained without a camera", hint=hint)
    moves, parts = list[tuple[float, float]](), camera.split(",")
    per_second = arm.backbone.fps / arm.backbone.num_frames(1, 1)  # latent frames
    for place, part in enumerate(parts):
        match = PART.fullmatch(part)
        way, seconds = match.groups() if match else (part.strip(), None)
        if match is None or way not in WAYS:
            what = f"found {part.strip()!r}, expected one of {', '.join(WAYS)}, and how long"
            raise StreamError("--camera", camera, what, hint=EXAMPLE)
        if seconds is None and place < len(parts) - 1:
            raise StreamError("--camera", camera, f"{way!r} does not say how long, expected seconds", hint=EXAMPLE)
        if seconds is not None and not 0 < float(seconds) <= LONGEST:
            raise StreamError("--camera", camera, f"found {seconds} s, expected more than 0, at most {LONGEST}")
        count = 1 if seconds is None else max(1, round(float(seconds) * per_second))
        x, y = WAYS[way]
        moves += [(x * STEP, y * STEP)] * count
    return replace(arm, moves=tuple(moves))

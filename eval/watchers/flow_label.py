"""The label by which a prompt set names the reference of a video's flow, and the type of a flow estimator.

Free of torch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from eval.contract import Frame, Sample, ScoreError

LABEL = "reference"
Estimate = Callable[[Frame, Frame], np.ndarray]  # two frames -> (2, H, W), x then y, in pixels


def references_of(sample: Sample) -> tuple[Path, ...]:
    """The file of `labels["reference"]`, a path relative to the video's folder; none where the prompt set names no
    reference.

    Raises:
        ScoreError: it is not there, or the label is no path.
    """
    name = sample.labels.get(LABEL)
    if name is None:
        return ()
    if not isinstance(name, str):
        raise ScoreError(sample.path, LABEL, f"found {name!r}, expected the path of a video or of a .npy file of flows")
    path = sample.path.parent / name
    if not path.is_file():
        raise ScoreError(
            sample.path, LABEL, f"no such file: {path}", hint="the label `reference` is relative to the video's folder"
        )
    return (path,)

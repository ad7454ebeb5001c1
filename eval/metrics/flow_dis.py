"""Optical flow by OpenCV's DIS: `flow`'s numbers without weights.

Dimensions: 2 x and y displacement in pixels, H, W pixel rows and columns.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import numpy as np
from pydantic import Field

from astro_cli.config.base import Config
from eval.contract import Declaration, Frame, NetworkCache, package
from eval.watchers.flow import FlowScorer, flow_metrics
from eval.watchers.flow_label import Estimate, references_of

NAME = "flow_dis"
Preset = Literal["ultrafast", "fast", "medium"]


class DisConfig(Config):
    """OpenCV's preset, and how many frames lie between two that are compared."""

    preset: Preset = "medium"
    interval: int = Field(1, ge=1)


def _flow(dis: Any, first_HWC: Frame, second_HWC: Frame) -> np.ndarray:
    """(2, H, W) float32, x then y, in pixels."""
    import cv2

    gray = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (first_HWC, second_HWC)]
    return np.moveaxis(dis.calc(*gray, None), -1, 0)


def _build(config: DisConfig, loaded: NetworkCache) -> FlowScorer:
    """Source: dense inverse search, Kroeger et al. 1603.03590, OpenCV's implementation. No paper of this suite uses it.

    **Deviations:** another estimator than TeleBoost's RAFT; numbers of the two are not comparable.
    """
    return FlowScorer(NAME, estimator(config.preset), config.interval)


def estimator(preset: Preset) -> Estimate:
    """DIS at one of OpenCV's presets."""
    import cv2  # its type stubs lack DIS

    presets = {"ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST, "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST}
    dis = cv2.DISOpticalFlow.create(presets.get(preset, cv2.DISOPTICAL_FLOW_PRESET_MEDIUM))
    return partial(_flow, dis)


OPENCV = package("OpenCV", "cv2", "pip install opencv-python-headless, or the extra `astro-cli[vbench]`")
SCORER = Declaration(
    metrics=flow_metrics(NAME, "DIS, no weights"),
    config=DisConfig,
    version=1,
    build=_build,
    needs=(OPENCV,),
    reads=references_of,
)

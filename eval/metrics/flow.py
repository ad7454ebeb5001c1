"""Optical flow by RAFT: how much moves, and how far the motion lies from a reference's.

`flow_dis` is the same without weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from astro_cli.config.base import Config
from astro_cli.zoo.raft_files import RAFT_FILES
from eval.contract import Declaration, NetworkCache
from eval.networks.weights_paths import need, require
from eval.watchers.flow import FlowScorer, flow_metrics
from eval.watchers.flow_label import references_of

NAME = "flow"


class FlowConfig(Config):
    """RAFT's size, its iterations, and how many frames lie between two that are compared."""

    model: Literal["raft_large", "raft_small"] = "raft_large"
    updates: int = Field(12, ge=1)
    interval: int = Field(1, ge=1)


def _build(config: FlowConfig, loaded: NetworkCache) -> FlowScorer:
    """Source: TeleBoost 2602.07595v1, Table 2: RAFT's flow of the generated video against RAFT's flow of the reference,
        taken as truth.

    **Deviations:** which RAFT, at which interval and size is not published. Ours: torchvision's raft_large, 12 updates
    (its default), neighbouring frames, full size. F1-all: see `eval/watchers/flow_errors.py`.
    """
    from eval.networks.raft import shared

    return FlowScorer(
        NAME, shared(loaded, require(*RAFT_FILES[config.model]), config.model, config.updates).flow, config.interval
    )


def _files(config: FlowConfig) -> tuple[Path, ...]:
    return (require(*RAFT_FILES[config.model]),)


SCORER = Declaration(
    metrics=flow_metrics(NAME, "RAFT"),
    config=FlowConfig,
    version=1,
    build=_build,
    needs=(need("RAFT (torchvision)", *RAFT_FILES["raft_large"]),),
    files=_files,
    reads=references_of,
)

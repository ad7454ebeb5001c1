"""Dynamic degree from optical flow.

Dimensions: H, W pixel rows and columns, C colour channel.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from eval.contract import Frame, Sample, Score
from eval.vbench.frames import as_float_NCHW, padded
from eval.vbench.networks import on

SAMPLED_FPS = 8
LARGEST_SHARE = 0.05  # of the pixels
FLOW_PX, SIDE_PX = 6.0, 256.0  # a flow of 6 pixels counts where the shorter side is 256
WANTED, OF_FRAMES = 4, 16.0
ITERATIONS, MULTIPLE = 20, 8


def moves(flows: Sequence[float], frames: int, short_side: int) -> bool:
    """Whether enough of the flows are large: round(4 frames / 16) of them above 6 pixels * short side / 256.

    Source: vbench 0.1.5, dynamic_degree.py, check_move.
    **Deviations:** none, so two sampled frames, of which round(0.5) = 0 must move, count as moving.
    """
    wanted = round(WANTED * (frames / OF_FRAMES))
    large = sum(flow > FLOW_PX * (short_side / SIDE_PX) for flow in flows)
    return bool(flows) and large >= wanted


@torch.no_grad()
def largest_flow(network: nn.Module, before_HWC: Frame, after_HWC: Frame, share: float) -> float:
    """Mean length, in pixels, of the largest `share` of RAFT's flow between two frames, which are padded."""
    before, after = (on(network, padded(as_float_NCHW(frame[None]), MULTIPLE)) for frame in (before_HWC, after_HWC))
    _, flow_12HW = network(before, after, iters=ITERATIONS, test_mode=True)
    lengths = flow_12HW[0].square().sum(dim=0).sqrt().flatten().cpu().numpy()
    return float(np.mean(-np.sort(-lengths)[: int(len(lengths) * share)]))


class _Watcher:
    """Takes every `interval`-th frame and keeps the last of them."""

    def __init__(self, scorer: DynamicScorer, interval: int) -> None:
        self.scorer, self.interval = scorer, interval
        self.last: Frame | None = None
        self.flows: list[float] = []
        self.sampled = 0

    def see(self, index: int, frame_HWC: Frame) -> None:
        if index % self.interval:
            return
        if self.last is not None:
            self.flows.append(largest_flow(self.scorer.network, self.last, frame_HWC, LARGEST_SHARE))
        self.last = frame_HWC
        self.sampled += 1

    def scores(self) -> dict[str, Score]:
        assert self.last is not None  # a video has a frame
        is_moving = moves(self.flows, self.sampled, min(self.last.shape[:2]))
        return {self.scorer.name: Score(float(is_moving), {"largest_flow_px": self.flows, "interval": self.interval})}


class DynamicScorer:
    """1 where the video moves, else 0; frames about 8 a second, RAFT's flow between neighbours, mean of its largest 5 %
    per pair.

    Args:
        network: RAFT.

    Source: VBench, arXiv 2311.17982; vbench 0.1.5, dynamic_degree.py.
    **Deviations:** all flows are computed and kept beside the score; vbench stops reading them once enough are large. A
    score is 0.0 or 1.0, its JSON has booleans.
    """

    def __init__(self, name: str, network: nn.Module) -> None:
        self.name, self.network = name, network

    def watch(self, sample: Sample) -> _Watcher:
        return _Watcher(self, max(1, round(sample.info.fps / SAMPLED_FPS)))

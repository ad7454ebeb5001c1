"""VBench's static filter: only static videos are scored.

Dimensions: H, W pixel rows and columns, C colour channel.
"""

from __future__ import annotations

from torch import nn

from eval.contract import Frame, Sample, Score, Scorer, VideoWatcher
from eval.vbench.motion import OF_FRAMES, SIDE_PX, largest_flow

LARGEST_SHARE = 0.02  # of the pixels
FLOW_PX, ALLOWED = (
    3.0,
    2,
)  # of 16 neighbouring frames two may differ by more than 3 pixels where the shorter side is 256
ENDS = 2  # how many times the allowed motion the first and the last frame may differ


class Limits:
    """What a static video may move.

    Args:
        frames: of the video.
        short_side: of its frames, in pixels.

    Attributes:
        step_px: largest flow between neighbours of a static video.
        steps: how many neighbours may differ by more.
        ends_px: largest flow between its first and last frame.

    Source: vbench 0.1.5, cli/static_filter.py, set_params and check_static.
    **Deviations:** none, so that up to four frames, of which round(2 frames / 16) = 0 may move, need a first and a last
    frame without any flow.
    """

    def __init__(self, frames: int, short_side: int) -> None:
        self.step_px = FLOW_PX * (short_side / SIDE_PX)
        self.steps = round(ALLOWED * (frames / OF_FRAMES))
        self.ends_px = self.step_px * self.steps * ENDS


class _Watcher:
    """Keeps the first and the last frame; computes no flow any more once enough has moved."""

    def __init__(self, owner: StaticScorer, inner: VideoWatcher, limits: Limits) -> None:
        self.owner, self.inner, self.limits = owner, inner, limits
        self.first: Frame | None = None
        self.last: Frame | None = None
        self.flows: list[float] = []
        self.moves = False

    def see(self, index: int, frame_HWC: Frame) -> None:
        self.inner.see(index, frame_HWC)
        if self.last is None:
            self.first = frame_HWC
        elif not self.moves:
            self.flows.append(self.owner.flow(self.last, frame_HWC))
            self.moves = sum(flow > self.limits.step_px for flow in self.flows) > self.limits.steps
        self.last = frame_HWC

    def scores(self) -> dict[str, Score]:
        assert self.first is not None  # a video has a frame
        assert self.last is not None
        ends = [] if self.moves else [self.owner.flow(self.first, self.last), self.owner.flow(self.last, self.first)]
        static = not self.moves and all(flow <= self.limits.ends_px for flow in ends)
        notes = {"static": static, "largest_flow_px": self.flows, "ends_flow_px": ends}
        return {
            name: Score(score.value if static else None, {**score.details, **notes})
            for name, score in self.inner.scores().items()
        }


class StaticScorer:
    """A scorer's value for static videos, None for others: RAFT's flow between neighbours and between first and last
    frame, mean of its largest 2 %.

    Args:
        scorer: of the videos that are static; sees all.
        network: RAFT.

    Source: VBench, arXiv 2311.17982; vbench 0.1.5, cli/static_filter.py.
    **Deviations:** a video whose neighbours move too much is given up at once, vbench computes all of its flows first;
    the verdict is the same.
    """

    def __init__(self, scorer: Scorer, network: nn.Module) -> None:
        self.scorer, self.network = scorer, network

    def watch(self, sample: Sample) -> _Watcher:
        return _Watcher(
            self, self.scorer.watch(sample), Limits(sample.info.frames, min(sample.info.height, sample.info.width))
        )

    def flow(self, before_HWC: Frame, after_HWC: Frame) -> float:
        return largest_flow(self.network, before_HWC, after_HWC, LARGEST_SHARE)

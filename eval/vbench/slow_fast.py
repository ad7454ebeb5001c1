"""VBench-Long's slow-fast consistency: a score within clips and one between the clips' first frames, brought to one
scale.

Dimensions: N frame, H, W pixel rows and columns, C colour channel, D feature.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import yaml

from astro_cli.config.errors import RecordError
from astro_cli.config.files import Reader
from eval.contract import Frame, Sample, Score, VideoWatcher
from eval.vbench.long import Long
from eval.vbench.similarity import Consistency

KNOTS = 101


def read_table(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Fast scores and what they are worth on the slow scale, 101 each, ascending.

    Raises:
        RecordError: not such a table.
    """
    text = Reader(RecordError).text(path)
    try:
        content = yaml.safe_load(text)
        knots = sorted((float(key), float(value)) for key, value in content.items())
    except (yaml.YAMLError, AttributeError, TypeError, ValueError, RecursionError) as error:
        raise RecordError(path, "", "not a mapping table: expected lines `fast: slow` of two numbers") from error
    if len(knots) != KNOTS:
        raise RecordError(path, "", f"{len(knots)} knots, expected {KNOTS}")
    fast, slow = np.array(knots).T
    return fast, slow


def fuse(slow: float, fast: float, table: tuple[np.ndarray, np.ndarray], fast_weight: float) -> tuple[float, float]:
    """The fused score and the fast score on the slow scale: linear between knots; a mapped score of 0 leaves the slow
    score alone.

    Source: vbench 0.1.5, vbench2_beta_long/utils.py, fuse_inclip_clip2clip.
    **Deviations:** none.
    """
    mapped = float(np.interp(fast, *table))
    fused = slow * (1 - fast_weight) + mapped * fast_weight if mapped != 0.0 else slow
    return fused, mapped


class _Watcher:
    def __init__(self, owner: SlowFast, slow: VideoWatcher, starts: set[int]) -> None:
        self.owner, self.slow, self.starts = owner, slow, starts
        self.fast = Consistency()

    def see(self, index: int, frame_HWC: Frame) -> None:
        self.slow.see(index, frame_HWC)
        if index in self.starts and len(self.starts) > 1:
            self.fast.add(self.owner.features(frame_HWC[None]))

    def scores(self) -> dict[str, Score]:
        name = self.owner.long.dimension
        slow = self.slow.scores()[name]
        assert slow.value is not None  # consistency applies to every clip
        fast = (
            self.fast.value() if len(self.starts) > 1 else 0.0
        )  # as released: no fast score counts as 0, which maps to 0
        fused, mapped = fuse(slow.value, fast, self.owner.table, self.owner.fast_weight)
        return {name: Score(fused, {**slow.details, "slow": slow.value, "fast": fast, "fast_mapped": mapped})}


class SlowFast:
    """Consistency of a long video: `1 - fast_weight` within clips, `fast_weight` between their first frames.

    Args:
        long: the slow score, a consistency per clip.
        features: of frames (N, H, W, 3) uint8 to (N, D), for the fast score.
        table: of `read_table`; the packaged ones were measured with DINOv2 (subject) and DreamSim (background).
        fast_weight: 0.5, the released code's with `--dev_flag`.

    Source: vbench 0.1.5, vbench2_beta_long/subject_consistency.py, background_consistency.py.
    **Deviations:** those of `eval.vbench.long.cut`: first frames are decoded once, not re-encoded twice.
    """

    def __init__(
        self,
        long: Long,
        features: Callable[[np.ndarray], torch.Tensor],
        table: tuple[np.ndarray, np.ndarray],
        fast_weight: float,
    ) -> None:
        self.long, self.features, self.table, self.fast_weight = long, features, table, fast_weight

    def watch(self, sample: Sample) -> _Watcher:
        return _Watcher(self, self.long.watch(sample), {span.start for span in self.long.spans(sample)})

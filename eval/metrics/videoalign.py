"""VideoAlign of whole clips, or of Delta Forcing's stitched segments: VQ, MQ, TA and their sum, normalised and raw. The
network is elsewhere.

Dimensions: T frame, H, W pixel rows and columns, C colour, 3 = VQ, MQ, TA.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from astro_cli.config.base import Config
from astro_cli.config.errors import PromptError
from astro_cli.rewards.scorer_places import missing_videoalign
from eval.contract import Declaration, Frame, MetricInfo, Need, NetworkCache, Sample, Score, ScoreError, Segment
from eval.watchers.segments import parts

if TYPE_CHECKING:
    from astro_cli.rewards.videoalign import VideoAlign

NAME = "videoalign"
KEYS = ("vq", "mq", "ta")
TEXTS = {"vq": "visual quality", "mq": "motion quality", "ta": "text alignment", "overall": "VQ + MQ + TA"}
NORMALISED, RAW = "checkpoint", "none"  # by mean and deviation of the checkpoint's own file, or not
UNIT = "deviations from VideoAlign's mean"
MIN_FRAMES = 2
REMEMBERED = 64  # clips
EPS = 1e-6  # frames; a boundary that falls on a frame is that frame's


class VideoAlignConfig(Config):
    """How a clip is cut and seen.

    Attributes:
        grayscale: motion quality on luma (Astrolabe); VQ and TA see colour all the same.
        stitched: each segment alone with its own prompt, from the second on with `lead` seconds before it (Delta
            Forcing); the mean counts.
        positions: of the language model; "official" is sequential, as released.
    """

    grayscale: bool = False
    stitched: bool = False
    lead: float = Field(1.0, ge=0)
    positions: Literal["official", "mrope"] = "official"
    dtype: Literal["bfloat16", "float32"] = "bfloat16"


@dataclass
class _Clip:
    """A part to score; frames are held from the first that is wanted until it is scored."""

    prompt: str
    start: int
    end: int
    indices: list[int]
    kept: dict[int, Frame] = field(default_factory=dict)
    raw_3: np.ndarray | None = None
    normalised_3: np.ndarray | None = None


class _Watcher:
    """Scores each part as soon as its last frame was seen."""

    def __init__(self, sample: Sample, clips: list[_Clip], score: Callable[[_Clip], None]) -> None:
        self.sample, self.clips, self.score = sample, clips, score

    def see(self, index: int, frame_HWC: Frame) -> None:
        for clip in self.clips:
            if index in clip.indices:
                clip.kept[index] = frame_HWC
                if index == clip.indices[-1]:
                    self.score(clip)
                    clip.kept.clear()

    def scores(self) -> dict[str, Score]:
        """Means over the parts; `overall` is the sum of the three."""
        for clip in self.clips:
            if clip.raw_3 is None or not np.isfinite(clip.raw_3).all():
                raise ScoreError(
                    self.sample.path,
                    "score",
                    f"not finite, or not seen, from frame {clip.start} to {clip.end - 1}: {clip.raw_3}",
                )
        by_ending = {"": [clip.normalised_3 for clip in self.clips], "_raw": [clip.raw_3 for clip in self.clips]}
        scores: dict[str, Score] = {}
        for ending, values in by_ending.items():
            means = dict(
                zip(
                    KEYS,
                    np.mean(np.stack([value for value in values if value is not None]), axis=0).tolist(),
                    strict=True,
                )
            )
            scores |= {f"{NAME}.{key}{ending}": Score(value) for key, value in means.items()}
            scores[f"{NAME}.overall{ending}"] = Score(sum(means.values()))
        scores[f"{NAME}.overall"] = Score(
            scores[f"{NAME}.overall"].value, {"clips": [_note(clip) for clip in self.clips]}
        )
        return scores


def _note(clip: _Clip) -> dict[str, Any]:
    raw = [] if clip.raw_3 is None else clip.raw_3.tolist()
    return {
        "start": clip.start,
        "end": clip.end,
        "frames": len(clip.indices),
        "prompt": clip.prompt,
        "raw": dict(zip(KEYS, raw, strict=True)),
    }


class Remembered:
    """Raw scores of the clips seen last, for all scorers of a run: the same frames are not looked at twice."""

    def __init__(self) -> None:
        self._raw: OrderedDict[tuple[Any, ...], np.ndarray] = OrderedDict()

    def get(self, key: tuple[Any, ...], look: Callable[[], np.ndarray]) -> np.ndarray:
        if key not in self._raw:
            self._raw[key] = look()
            while len(self._raw) > REMEMBERED:
                self._raw.popitem(last=False)
        return self._raw[key]


class _Scorer:
    """One network for colour and luma; a clip is looked at once in colour and, with `grayscale`, once in luma.

    Source: VideoAlign (arXiv 2501.13918); gray motion quality: Astrolabe (arXiv 2603.17051, section 3.4); stitched
        clips: Delta Forcing (arXiv 2605.14382v1, Table 1).

    **Deviations:** Astrolabe's own wrapper divides the sum by 3; `overall` is the sum, as released. Delta Forcing does
    not say how the first segment is scored (here: alone) nor which norm it prints (both are kept).
    """

    def __init__(self, config: VideoAlignConfig, scorer: VideoAlign, remembered: Remembered) -> None:
        self.config, self.scorer, self.remembered = config, scorer, remembered

    def watch(self, sample: Sample) -> _Watcher:
        clips = [self._clip(sample, part) for part in self._parts(sample)]
        return _Watcher(sample, clips, partial(self._score, sample))

    def _parts(self, sample: Sample) -> list[Segment]:
        if not self.config.stitched:
            return [Segment(0.0, sample.info.seconds, sample.prompt)]
        if not sample.segments:
            raise ScoreError(sample.path, "segments", "missing, stitched clips need a video with prompt switches")
        chosen = parts(sample)
        return [
            Segment(part.start - self.config.lead * (number > 0), part.end, part.prompt)
            for number, part in enumerate(chosen)
        ]

    def _clip(self, sample: Sample, part: Segment) -> _Clip:
        from astro_cli.rewards.templates import fill

        fps = sample.info.fps
        start, end = max(0, math.ceil(part.start * fps - EPS)), min(sample.info.frames, math.ceil(part.end * fps - EPS))
        if not part.prompt:
            raise ScoreError(
                sample.path,
                "prompt",
                "missing, text alignment needs one",
                hint="a video with prompt switches: stitched = true",
            )
        if end - start < MIN_FRAMES:
            what = f"found {max(0, end - start)} from {part.start:g} to {part.end:g} s, expected {MIN_FRAMES} or more"
            raise ScoreError(sample.path, "frames", what)
        try:
            fill(self.scorer.template, part.prompt)
        except PromptError as error:
            raise ScoreError(sample.path, error.key, error.what) from error
        return _Clip(part.prompt, start, end, [start + index for index in self.scorer.frames(end - start, fps)])

    def _score(self, sample: Sample, clip: _Clip) -> None:
        raw_3 = self._look(sample, clip, gray=False).copy()
        if self.config.grayscale:
            raw_3[KEYS.index("mq")] = self._look(sample, clip, gray=True)[KEYS.index("mq")]
        mean_3, deviation_3 = self.scorer.norm_23.numpy()
        clip.raw_3, clip.normalised_3 = raw_3, (raw_3 - mean_3) / deviation_3

    def _look(self, sample: Sample, clip: _Clip, *, gray: bool) -> np.ndarray:
        def look() -> np.ndarray:
            frames_THWC = np.stack([clip.kept[index] for index in clip.indices])
            return self.scorer.raw([frames_THWC], [clip.prompt], gray=gray)[0].numpy()

        return self.remembered.get((sample.video_hash, clip.start, clip.end, clip.prompt, gray), look)


def _build(config: VideoAlignConfig, loaded: NetworkCache) -> _Scorer:
    import torch

    from astro_cli.rewards.videoalign import load_videoalign

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = {"bfloat16": torch.bfloat16, "float32": torch.float32}[config.dtype]
    key = (NAME, config.positions, config.dtype)
    scorer = loaded.get(key, lambda: load_videoalign(device, dtype, config.positions))
    return _Scorer(config, scorer, loaded.get((*key, "seen"), Remembered))


def _files(config: VideoAlignConfig) -> tuple[Path, ...]:
    from astro_cli.rewards.videoalign import files

    return files()


SCORER = Declaration(
    metrics=(
        *(
            MetricInfo(f"{NAME}.{key}", "up", UNIT, f"VideoAlign {text}, normalised", NORMALISED)
            for key, text in TEXTS.items()
        ),
        *(
            MetricInfo(f"{NAME}.{key}_raw", "up", "unbounded", f"VideoAlign {text}, before the norm", RAW)
            for key, text in TEXTS.items()
        ),
    ),
    config=VideoAlignConfig,
    version=1,
    build=_build,
    needs=(Need("VideoAlign", lambda: (lack := missing_videoalign()) and f"weights of VideoAlign: {lack}"),),
    files=_files,
)

"""Reads VBench's own result files (`*_eval_results.json`, or a zip of them) and refuses those that contradict
themselves.

Per dimension a file holds the aggregate and a list of {video_path, video_results}. VBench-Long adds a list of means per
video, and camera motion puts an object with its directions between the two.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from astro_cli.config.errors import IntegrityError
from astro_cli.config.parsing import ParseError, parse_json
from astro_cli.config.problems import first_problem
from eval.vbench.result_archive import IngestError, ResultFile, open_results

PERCENT = 100.0
CLIP_SUFFIX = re.compile(r"_\d{3}$|_full$")  # VBench-Long's clips of a video
PER_VIDEO_PERCENT = frozenset({"imaging_quality"})  # 0..100 per video, 0..1 in the aggregate
COSINES = frozenset({"appearance_style", "overall_consistency", "temporal_style"})  # -1..1; all others are 0..1
# Their aggregates are means over frames where one process made them, and means over videos where several did.
FRAME_WEIGHTED = frozenset(
    {"subject_consistency", "background_consistency", "appearance_style", "object_class", "multiple_objects", "scene"}
)
LEAVES_OUT = frozenset({"color"})  # lists no video in which the object was not found; its aggregate is of the others
FRAME_COUNTS = ("cnt_per_video", "frame_count")  # of a video's entry; appearance style lists its frames instead
# ours: where a file says no frame counts, the longest video is taken to have at most twice the frames of the shortest
RATIO = 2.0
ROUNDING = 1e-4  # of files whose numbers were shortened to four digits
SLACK = 1e-6  # scores in float32 pass the ends of their range by this much
NAN_HINT = "VBench writes NaN where a dimension found no video; evaluate that dimension again"


class _Row(BaseModel):
    """What is read of an entry of `*_full_info.json`."""

    dimension: list[str]
    video_list: list[str] = []


@dataclass(frozen=True)
class VideoResult:
    """A line of a dimension's list.

    Attributes:
        score: a fraction; None: VBench looked at the video and left it out of the list.
        frames: how many the score is a mean of; None: not said.
        last: the last frame's own score, where the file says it.
    """

    path: str
    score: float | None
    frames: float | None = None
    last: float | None = None

    @property
    def name(self) -> str:
        """Of the file; the path may be of either system."""
        return Path(self.path.replace("\\", "/")).name

    @property
    def whole(self) -> str:
        """The name without ending and without a clip's number: a video's, where this is a clip of it."""
        return CLIP_SUFFIX.sub("", Path(self.name).stem)


@dataclass(frozen=True)
class Dimension:
    """A dimension's number as the file states it (a fraction), and its videos or clips; those left out come last."""

    aggregate: float
    videos: tuple[VideoResult, ...]


def read(file: Path) -> dict[str, Dimension]:
    """The dimensions of a file, or of all files in a zip.

    Raises:
        IngestError: not such a file; a value that is no number or outside the dimension's range; a path twice; a
            dimension in two files of a zip.
        IntegrityError: a dimension's number does not follow from its videos.
    """
    dimensions: dict[str, Dimension] = {}
    places: dict[str, str] = {}
    for each in open_results(file):
        for name, dimension in _dimensions(each).items():
            if name in dimensions:
                what = f"is also in {places[name]}, expected each dimension once"
                raise IngestError(each.where, name, what, hint="keep the file that counts")
            dimensions[name], places[name] = dimension, each.where
    return dimensions


def _dimensions(file: ResultFile) -> dict[str, Dimension]:
    if not isinstance(file.data, dict) or not file.data:
        raise IngestError(
            file.where,
            "",
            "expected a dimension or more, each [aggregate, [videos]]",
            hint="*_full_info.json is not the results",
        )
    dimensions = {name: _dimension(file.where, name, entry) for name, entry in file.data.items()}
    for name, dimension in dimensions.items():
        _check_aggregate(file.where, name, dimension)
    return dimensions | {name: _with_left_out(file, name, dimensions[name]) for name in LEAVES_OUT & dimensions.keys()}


def _dimension(file: str, name: str, entry: Any) -> Dimension:
    if not (isinstance(entry, list) and 2 <= len(entry) <= 3):
        raise IngestError(file, name, "expected [aggregate, [videos]]")
    low = -1.0 if name in COSINES else 0.0
    aggregate = _number(file, f"{name}[0]", entry[0], low, 1.0)
    videos = next((part for part in entry[1:] if isinstance(part, list)), [])
    if not videos:
        raise IngestError(file, name, "expected [aggregate, [videos]] with a video or more")
    made = tuple(_video(file, name, place, video, low) for place, video in enumerate(videos))
    seen = set[str]()
    for place, video in enumerate(made):
        if video.path in seen:
            raise IngestError(
                file,
                f"{name}[{place}].video_path",
                f"{video.path} is listed twice",
                hint="evaluate that dimension again",
            )
        seen.add(video.path)
    return Dimension(aggregate, made)


def _video(file: str, name: str, place: int, video: Any, low: float) -> VideoResult:
    key = f"{name}[{place}]"
    if not isinstance(video, dict) or not isinstance(video.get("video_path"), str):
        raise IngestError(file, key, "expected video_path and video_results")
    scale = PERCENT if name in PER_VIDEO_PERCENT else 1.0
    score = _number(file, f"{key}.video_results", video.get("video_results"), scale * low, scale) / scale
    last: Any = video.get("cur_sim")
    return VideoResult(video["video_path"], score, _frames(video), last if _is_number(last) else None)


def _frames(video: dict[str, Any]) -> float | None:
    counts = [video[key] for key in FRAME_COUNTS if _is_number(video.get(key)) and video[key] > 0]
    listed = video.get("frame_results")
    return next(iter(counts), len(listed) if isinstance(listed, list) and listed else None)


def _is_number(value: Any) -> bool:
    """True and false are 1 and 0 (dynamic degree, human action)."""
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))


def _number(file: str, key: str, value: Any, low: float, high: float) -> float:
    """A number of a range."""
    shown = json.dumps(value)[:40]
    if not _is_number(value):
        raise IngestError(
            file, key, f"found {shown}, expected a number or true or false", hint=NAN_HINT if value != value else ""
        )
    if not low - SLACK <= value <= high + SLACK:
        raise IngestError(
            file,
            key,
            f"found {shown}, expected {low:g} to {high:g}",
            hint="the unit is VBench's own, not a table's percent",
        )
    return float(value)


def _check_aggregate(file: str, name: str, dimension: Dimension) -> None:
    """Refuse a number that its videos do not give, whichever way VBench averages them."""
    scores = [video.score for video in dimension.videos if video.score is not None]
    means = _means(dimension.videos)
    allowed = ROUNDING
    if name in FRAME_WEIGHTED and any(video.frames is None for video in dimension.videos):
        # weights within 1..r: |weighted mean - mean| <= cv(weights) std(scores), and cv <= (r - 1) / (2 sqrt r)
        allowed += (RATIO - 1) / (2 * math.sqrt(RATIO)) * pstdev(scores)
    nearest = min(means, key=lambda mean: abs(mean - dimension.aggregate))
    if abs(nearest - dimension.aggregate) > allowed:
        what = f"{dimension.aggregate:.6g}, but the mean of its {len(scores)} videos is {nearest:.6g}"
        unit = "; per video it is 0 to 100, in all 0 to 1" if name in PER_VIDEO_PERCENT else ""
        raise IntegrityError(
            file,
            f"{name}[0]",
            what,
            hint=f"the file is of several runs, or was changed: evaluate the dimension again{unit}",
        )


def _means(videos: Sequence[VideoResult]) -> list[float]:
    """Over the list, over videos of clips, over frames where they are counted, over last frames (appearance style made
    by several processes).
    """
    scored = [(video, video.score) for video in videos if video.score is not None]
    clips: dict[str, list[float]] = defaultdict(list)
    for video, score in scored:
        clips[video.whole].append(score)
    means = [fmean(score for _, score in scored), fmean(map(fmean, clips.values()))]
    counted = [(score, video.frames) for video, score in scored if video.frames is not None]
    if len(counted) == len(scored):
        means.append(sum(score * frames for score, frames in counted) / sum(frames for _, frames in counted))
    lasts = [video.last for video in videos if video.last is not None]
    return [*means, fmean(lasts)] if len(lasts) == len(scored) else means


def _with_left_out(file: ResultFile, name: str, dimension: Dimension) -> Dimension:
    """Also the videos that VBench's list of what it looked at has and the results have not; that list lies beside the
    results.

    Raises:
        IngestError: it is there and no such list.
    """
    if file.looked_at is None:
        return dimension
    where, content = file.looked_at
    hint = "expected VBench's own list; without this file the results are taken alone"
    try:
        rows = TypeAdapter(list[_Row]).validate_python(parse_json(content, finite=False), strict=True)
    except ParseError as error:
        raise IngestError(where, error.key, error.what, hint=hint) from error
    except ValidationError as error:
        wrong = first_problem(error)
        raise IngestError(where, wrong.key, wrong.what, hint=hint) from error
    scored = {video.name for video in dimension.videos}
    paths = dict.fromkeys(path for row in rows if name in row.dimension for path in row.video_list)
    left_out = [video for path in paths if (video := VideoResult(path, None)).name not in scored]
    return Dimension(dimension.aggregate, (*dimension.videos, *left_out))

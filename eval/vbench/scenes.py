"""VBench-Long's scenes: cuts a video where PySceneDetect finds a cut and hands every scene to the scorer as a video.

PySceneDetect reads the file once before it is decoded for the scorers: the scenes must be known at the first frame.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from eval.contract import Sample, ScoreError, Scorer, package
from eval.vbench.long import LongWatcher, Piece, Span, whole_fps

PACKAGE = package(
    "scenedetect", "scenedetect", "run `make setup`, or `pip install --no-deps scenedetect==0.7.2 platformdirs`"
)
THRESHOLD = 35.0  # vbench2_beta_long/__init__.py, preprocess
REMEMBERED = 64  # videos: all dimensions of a run ask for the scenes of a video before the next


class Scenes:
    """A scorer of long videos on the scenes of one: the video's score is the mean over its scenes.

    Args:
        scorer: of one scene; it sees a sample whose frames are the scene's.

    Source: vbench 0.1.5, vbench2_beta_long/__init__.py, preprocess, with `--use_semantic_splitting`; PySceneDetect's
        ContentDetector.
    **Deviations:** scenes are the decoded frames, the released code writes each as a new H.264 file. It then counts
    every scene as a video, here a video's scenes share its weight. Its `long_vbench_standard` finds no clip of a video
    that it cut into scenes and leaves it out: there too scenes are for `long_custom_input`, whose clips have 2 s.
    """

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer

    def watch(self, sample: Sample) -> LongWatcher:
        fps = whole_fps(sample.info)
        spans = scenes(sample.path, sample.video_hash, sample.info.frames)
        watchers = [
            self.scorer.watch(replace(sample, info=replace(sample.info, frames=span.frames, fps=fps))) for span in spans
        ]
        return LongWatcher(
            [Piece(span, watcher) for span, watcher in zip(spans, watchers, strict=True)], sample.info.fps, "scene"
        )


@lru_cache(maxsize=REMEMBERED)
def scenes(path: Path, video_hash: str, frames: int) -> tuple[Span, ...]:
    """A video's scenes, all its frames in one where it has no cut.

    Args:
        video_hash: of the file, so that another under the same name is looked at again.
        frames: that it decodes to.

    Raises:
        ScoreError: PySceneDetect cannot read it.
    """
    from scenedetect import ContentDetector, SceneManager, VideoOpenFailure, open_video

    manager = SceneManager()
    manager.add_detector(ContentDetector(threshold=THRESHOLD))
    try:
        manager.detect_scenes(open_video(str(path)))
    except (VideoOpenFailure, OSError) as error:
        raise ScoreError(path, "scenes", f"PySceneDetect cannot read it: {error}") from error
    cuts = [start.frame_num for start, _ in manager.get_scene_list()][1:]
    edges = [0, *(cut for cut in cuts if cut < frames), frames]
    return tuple(Span(start, end) for start, end in itertools.pairwise(edges))

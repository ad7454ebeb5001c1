"""VBench-Long's clips: cuts a video into pieces of frames as it is shown, and scores each with the scorer of short
videos. Free of torch.

Dimensions: H, W pixel rows and columns, C colour channel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from astro_cli.config.errors import AstroError
from eval.contract import Frame, Sample, Score, ScoreError, Scorer, VideoInfo, VideoWatcher

# How long a clip is: the whole video (VBench); VBench-Long's table for the dimension; the longest entry of all the
# prompt's dimensions, which is
# what the released code does in `long_vbench_standard` (so aesthetic and imaging quality, which share the prompts of
# overall consistency, are cut
# at 10 s); 2 s, as in `long_custom_input`; 2 s of each scene, as there with `--use_semantic_splitting` (see
# `eval.vbench.scenes`).
Clips = Literal["whole", "dimension", "prompt", "two_seconds", "scenes"]
SHORT_SECONDS, LONG_SECONDS = 2, 10  # vbench2_beta_long/configs/clip_length_mix.yaml
LONG_DIMENSIONS = frozenset({"human_action", "temporal_style", "overall_consistency"})


@dataclass(frozen=True)
class Span:
    """Frames of a clip; `start` inclusive, `end` exclusive."""

    start: int
    end: int

    @property
    def frames(self) -> int:
        return self.end - self.start


def clip_seconds(dimension: str, clips: Clips, sample: Sample) -> int:
    """Seconds per clip under a rule.

    Raises:
        ScoreError: the rule asks for the prompt's dimensions and the prompt set has none.
    """
    if clips in ("two_seconds", "scenes"):
        return SHORT_SECONDS
    if clips == "prompt":
        names = sample.labels.get("dimension", ())
        if not names:
            hint = "clips = 'dimension' or 'two_seconds' needs no prompt set"
            raise ScoreError(
                sample.path,
                "dimension",
                "the prompt's dimensions are not known, clips = 'prompt' needs them",
                hint=hint,
            )
    else:
        names = (dimension,)
    return max(LONG_SECONDS if name in LONG_DIMENSIONS else SHORT_SECONDS for name in names)


def cut(info: VideoInfo, seconds: int) -> list[Span]:
    """The clips of a video: int(fps) * seconds frames each; the last is extended backwards to that length; a shorter
    video is one clip.

    Source: vbench 0.1.5, vbench2_beta_long/utils.py, split_video_into_clips.
    **Deviations:** clips are the decoded frames; the released code writes each clip as a new H.264 file, whose losses
    enter its scores. A rate below 1 fps gives one clip (released: division by zero).
    """
    length = int(info.fps) * seconds
    if length == 0 or info.frames < length:
        return [Span(0, info.frames)]
    spans = [Span(start, start + length) for start in range(0, info.frames - length + 1, length)]
    if spans[-1].end < info.frames:
        spans.append(Span(info.frames - length, info.frames))
    return spans


def whole_fps(info: VideoInfo) -> float:
    """The rate a clip has: the released code writes its clips at a whole one."""
    return float(int(info.fps)) or info.fps


class Piece:
    """A clip, or a scene, and the watcher that sees it."""

    def __init__(self, span: Span, watcher: VideoWatcher) -> None:
        self.span, self.watcher = span, watcher
        self.scores: dict[str, Score] | None = None
        self.failed: AstroError | None = None

    def see(self, index: int, frame_HWC: Frame) -> None:
        if self.span.start <= index < self.span.end:
            self.watcher.see(index - self.span.start, frame_HWC)
        if index == self.span.end - 1:
            self._finish()

    def _finish(self) -> None:
        """Score at once, so that the frames a watcher keeps are let go with it."""
        try:
            self.scores = self.watcher.scores()
        except (
            AstroError
        ) as error:  # told at the end: what fails while frames are shown is taken for a fault of the video
            self.failed = error
        del self.watcher


class LongWatcher:
    """Watches the pieces of a video and averages them; `kind` names them in the details."""

    def __init__(self, pieces: list[Piece], fps: float, kind: str = "clip") -> None:
        self.pieces, self.fps, self.kind = pieces, fps, kind

    def see(self, index: int, frame_HWC: Frame) -> None:
        for piece in self.pieces:
            if any(other.failed is not None for other in self.pieces):
                return
            piece.see(index, frame_HWC)

    def scores(self) -> dict[str, Score]:
        """Means over the pieces that have a score; None where none has."""
        failed = next((piece.failed for piece in self.pieces if piece.failed is not None), None)
        if failed is not None:
            raise failed
        of_pieces = [piece.scores for piece in self.pieces if piece.scores is not None]
        means = {}
        for name in of_pieces[0]:
            means[name] = self._mean([scores[name] for scores in of_pieces])
        return means

    def _mean(self, scores: list[Score]) -> Score:
        values = [score.value for score in scores]
        there = [value for value in values if value is not None]
        return Score(sum(there) / len(there) if there else None, self._details(values))

    def _details(self, values: list[float | None]) -> dict[str, Any]:
        spans = [piece.span for piece in self.pieces]
        seconds = [round(span.frames / self.fps, 6) for span in spans]
        places = [[span.start, span.end] for span in spans]
        return {f"{self.kind}s": places, f"{self.kind}_seconds": seconds, f"{self.kind}_values": values}


class Long:
    """A scorer of short videos on the clips of a long one; the video's score is the mean over its clips.

    Args:
        scorer: of one clip; it sees a sample whose frame count and whole-number frame rate are the clip's.
        dimension: decides the length of a clip.

    Source: vbench 0.1.5, vbench2_beta_long/utils.py, reorganize_clips_results.
    **Deviations:** those of `cut`. Per-frame dimensions (subject, background) average clips, where the released code
    averages all frames of all videos unless it fuses; a video's own number is the mean over clips in both.
    """

    def __init__(self, scorer: Scorer, dimension: str, clips: Clips) -> None:
        self.scorer, self.dimension = scorer, dimension
        self.clips: Clips = clips

    def spans(self, sample: Sample) -> list[Span]:
        return cut(sample.info, clip_seconds(self.dimension, self.clips, sample))

    def watch(self, sample: Sample) -> LongWatcher:
        fps = whole_fps(sample.info)
        infos = [(span, replace(sample.info, frames=span.frames, fps=fps)) for span in self.spans(sample)]
        return LongWatcher(
            [Piece(span, self.scorer.watch(replace(sample, info=info))) for span, info in infos], sample.info.fps
        )

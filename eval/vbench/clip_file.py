"""A clip of a long video as a temporary file of its own, for code that reads files.

Dimensions: H, W pixel rows and columns.
"""

from __future__ import annotations

import tempfile
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import av.error
from av.codec.codec import UnknownCodecError

from astro_cli.generate.mp4 import even
from eval.contract import Frame, Sample, ScoreError

ENCODER = "libx264"


class ClipFile:
    """An H.264 file that grows frame by frame and is deleted at the end of the `with` block, which gives its path.

    Args:
        sample: the clip; its frame rate is the file's.

    Source: vbench 0.1.5, vbench2_beta_long/utils.py, split_video_into_clips; torchvision.io.write_video: libx264 as it
        comes (CRF 23), yuv420p.
    **Deviations:** one encoding thread and no assembly, so that equal frames give equal bytes. Odd sides repeat their
    last line, where x264 refuses.
    """

    def __init__(self, sample: Sample) -> None:
        self.sample = sample
        self.folder: tempfile.TemporaryDirectory[str] | None = None
        self.container: Any = None
        self.stream: Any = None

    def add(self, frame_HWC: Frame) -> None:
        """Raises: ScoreError: the file cannot be written."""
        image_HWC = even(frame_HWC)
        try:
            stream = self.stream or self._open(*image_HWC.shape[:2])
            self.container.mux(stream.encode(av.VideoFrame.from_ndarray(image_HWC, format="rgb24")))
        except (OSError, av.error.FFmpegError, UnknownCodecError) as error:
            raise self._failed(error) from error

    def __enter__(self) -> Path:
        assert self.folder is not None, "a clip has frames"
        try:
            self.container.mux(self.stream.encode())
            self.container.close()
        except (OSError, av.error.FFmpegError) as error:
            self.folder.cleanup()
            raise self._failed(error) from error
        return self._path()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.folder is not None
        self.folder.cleanup()

    def _open(self, height: int, width: int) -> Any:
        self.folder = tempfile.TemporaryDirectory(prefix="astro-clip-")
        self.container = av.open(str(self._path()), "w", options={"fflags": "+bitexact"})
        rate = Fraction(self.sample.info.fps).limit_denominator(1001)
        self.stream = self.container.add_stream(ENCODER, rate=rate, options={"x264-params": "no-asm=1"})
        self.stream.height, self.stream.width, self.stream.pix_fmt = height, width, "yuv420p"
        self.stream.codec_context.thread_count = 1
        return self.stream

    def _path(self) -> Path:
        assert self.folder is not None
        return Path(self.folder.name) / "clip.mp4"

    def _failed(self, error: Exception) -> ScoreError:
        hint = "the clip goes to the folder for temporary files, TMPDIR names another"
        return ScoreError(self.sample.path, "clips", f"a clip cannot be written: {error}", hint=hint)

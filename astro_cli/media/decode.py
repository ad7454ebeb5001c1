"""Opens video files: what they hold, and their frames one after the other. Free of torch.

Dimensions: H, W pixel rows and columns.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import av
import av.error
import numpy as np
from av.video.reformatter import VideoReformatter

from astro_cli.config import pointers
from astro_cli.config.errors import AstroError, did_you_mean
from astro_cli.media import containers
from astro_cli.media.orientation import UPRIGHT, Orientation, of_frame
from astro_cli.media.video import Frame, VideoInfo

Backend = Literal["auto", "av", "decord"]
SUFFIXES = frozenset({".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif"})
COLORS = 3  # decord 0.6 takes the padding of narrow rows, as of 16 or 48 pixels, for more of them
BROKEN = "the file is damaged or was not written to its end: make it again, or leave it out"
DECORD_HINT = "install decord (Linux on x86-64), or leave the choice to 'auto'"


class VideoError(AstroError):
    """A file that is no video, or whose frames cannot be decoded."""


def probe(path: str | Path) -> VideoInfo:
    """Frames, fps (average) and size, as it is shown, of a video.

    The number of frames is the container's where it has as many packets, which are counted without decoding; else it is
    counted by decoding. The first frame is decoded: it says how it is turned to be shown.

    Raises:
        VideoError: missing, no video, without frames or frame rate, or damaged where it had to be decoded.
    """
    path = Path(path)
    with _opened(path) as (container, stream):
        rate = stream.average_rate or stream.guessed_rate
        if not rate:
            raise VideoError(path, "fps", "the file says no frame rate", hint="write it again with a frame rate")
        declared, packets, orientation = stream.frames, 0, None
        for packet in container.demux(stream):
            packets += 1 if packet.size else 0
            if orientation is None and (pictures := packet.decode()):
                orientation = _orientation(path, pictures[0])
        width, height = (orientation or UPRIGHT).size(stream.width, stream.height)
    frames = declared if declared and declared == packets else count_frames(path)
    return VideoInfo(frames, float(rate), width, height)


def _orientation(path: Path, picture: Any) -> Orientation:
    try:
        return of_frame(picture)
    except ValueError as error:
        hint = "write it again with its frames upright"
        raise VideoError(path, "display matrix", str(error), hint=hint) from error


def codec(path: str | Path) -> tuple[str, str]:
    """The names of a video's codec and of its pixels' format, as FFmpeg has them: ("h264", "yuv420p").

    Raises:
        VideoError: missing, no video, or damaged.
    """
    with _opened(Path(path)) as (_, stream):
        return stream.codec_context.name, str(stream.pix_fmt)


def count_frames(path: str | Path) -> int:
    """How many frames decode. Pixels stay unconverted, so this takes about half the time of `frames`.

    Raises:
        VideoError: as `frames`.
    """
    return sum(1 for _ in _pictures(Path(path)))


def frames(path: str | Path, backend: Backend = "auto") -> Iterator[tuple[int, Frame]]:
    """(index, frame (H, W, 3) uint8 RGB) of every frame, in order, turned as players show it. One frame is in memory
    at a time; both backends give the same bytes.

    Args:
        backend: "auto" is PyAV; "decord" must be named: it exists on x86-64 Linux only and reads no GIF.

    Raises:
        VideoError: missing, no video, no frame, damaged (after the frames before the damage), or a backend that is not
            here.
    """
    name = resolve(backend)
    return enumerate(_decord_frames(Path(path)) if name == "decord" else _av_frames(Path(path)))


def resolve(backend: str) -> str:
    """The backend a name stands for.

    Raises:
        VideoError: unknown or not installed.
    """
    allowed = get_args(Backend)
    if backend not in allowed:
        raise VideoError(
            "decoder", backend, f"unknown, allowed: {', '.join(allowed)}", hint=did_you_mean(backend, allowed)
        )
    if backend == "decord" and importlib.util.find_spec("decord") is None:
        raise VideoError("decoder", backend, "not installed", hint=DECORD_HINT)
    return "av" if backend == "auto" else backend


def decoder_version(backend: Backend = "auto") -> str:
    """Name and version for the protocol of a record, e.g. "av 18.1.0 (libavcodec 62.11.100)"."""
    if resolve(backend) == "decord":
        return f"decord {_decord().__version__}"
    codec = ".".join(str(part) for part in av.library_versions["libavcodec"])
    return f"av {av.__version__} (libavcodec {codec})"


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """Container and video stream; FFmpeg's errors, in the block too, become VideoErrors."""
    if not path.is_file():
        raise VideoError(path, "", "a folder, expected a video file" if path.is_dir() else "no such file")
    try:
        if pointers.is_pointer(path):
            raise VideoError(path, "", pointers.WHAT, hint=pointers.HINT)
        if missing := containers.cut(path):
            raise VideoError(path, "", missing, hint=BROKEN)
    except OSError as error:
        raise VideoError(path, "", f"cannot be read: {error.strerror or error}") from error
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise VideoError(path, "", "holds no video stream", hint="expected a video file")
            stream = container.streams.video[0]
            stream.thread_type = "NONE"  # frame threads are slower on clips of this size and hold more frames
            yield container, stream
    except av.error.FFmpegError as error:
        raise VideoError(path, "", f"cannot be decoded: {error.strerror}", hint=BROKEN) from error


def _pictures(path: Path) -> Iterator[Any]:
    """PyAV's frames, checked to be some and of one size."""
    size: tuple[int, int] | None = None
    with _opened(path) as (container, stream):
        for picture in container.decode(stream):
            size = size or (picture.width, picture.height)
            if (picture.width, picture.height) != size:
                raise VideoError(
                    path,
                    "",
                    f"changes size from {size} to {(picture.width, picture.height)}",
                    hint="expected one size throughout",
                )
            yield picture
    if size is None:
        raise VideoError(path, "", "holds no frame", hint=BROKEN)


def _av_frames(path: Path) -> Iterator[Frame]:
    convert = VideoReformatter().reformat  # one converter for the file, not one per frame
    orientation: Orientation | None = None
    for picture in _pictures(path):
        orientation = orientation or _orientation(path, picture)
        yield orientation.upright(convert(picture, format="rgb24").to_ndarray())


def _decord() -> Any:
    """The package, with FFmpeg's own messages turned off: what is wrong is in the exception."""
    import decord
    import decord.logging

    decord.logging.set_level(decord.logging.QUIET)
    return decord


def _decord_frames(path: Path) -> Iterator[Frame]:
    decord = _decord()
    # Its C++ part prints a line for every file that it cannot open; PyAV refuses them silently.
    if _orientation(path, next(_pictures(path))).mirrors:
        raise VideoError(path, "display matrix", "decord does not mirror frames", hint="take the decoder 'av'")
    try:
        reader = decord.VideoReader(str(path), num_threads=1)
        while True:
            try:
                picture = reader.next()
            except StopIteration:
                return
            # `vbench` sets decord's bridge to torch for the whole process
            frame = picture.asnumpy() if isinstance(picture, decord.nd.NDArray) else np.asarray(picture)
            if frame.shape[-1] != COLORS:
                raise VideoError(path, "", "decord misreads videos as narrow as this", hint="take the decoder 'av'")
            yield frame
    except (decord.DECORDError, RuntimeError) as error:
        raise VideoError(
            path, "", f"decord cannot decode it: {_cause(error)}", hint="try the decoder 'av', or make the file again"
        ) from error


def _cause(error: Exception) -> str:
    """decord's message without its time stamps and C++ lines."""
    return str(error).strip().splitlines()[0].rsplit(".cc:", 1)[-1].partition(": ")[2] or "damaged"

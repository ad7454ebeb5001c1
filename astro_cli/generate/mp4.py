"""Clips as MP4 files that browsers play, whole or while their frames are made. Equal input gives equal bytes."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.codec.codec import UnknownCodecError

from astro_cli.config.errors import OutputError
from astro_cli.config.files import claim
from astro_cli.generate.media import Frame, as_output_error, checked_frames, to_uint8, upscale, written_whole

# What browsers play inside MP4, the widest first. yuv420p for the same reason.
MP4_ENCODERS = ("libx264", "libvpx-vp9")
# x264's assembly lets memory beyond a picture's edge sway its choices, so that bytes differ from run to run; its C code
# does not (half as fast). The preset "veryfast" takes less than half the time of "medium"; PSNR stays within 1 dB, and
# sizes differ by 7 % on this world's pages (docs/performance.md).
MP4_OPTIONS = {
    "libx264": {"crf": "16", "preset": "veryfast", "x264-params": "no-asm=1"},
    "libvpx-vp9": {"crf": "24", "b": "0"},
}
FASTSTART = {"movflags": "+faststart"}
FRAGMENTED = {
    "movflags": "+empty_moov+default_base_moof",
    "frag_duration": "1000000",
    "flush_packets": "1",
}  # microseconds
BT709, LIMITED_RANGE = 1, 1  # FFmpeg's numbers; untagged, players disagree on which matrix turns YUV into RGB


def mp4_encoder() -> str:
    """The encoder `write_mp4` uses.

    Raises:
        OutputError: this build of PyAV has none that browsers play.
    """
    for name in MP4_ENCODERS:
        try:
            return av.Codec(name, "w").name
        except UnknownCodecError:
            continue
    raise OutputError(
        "mp4", "", f"PyAV has no encoder {' or '.join(MP4_ENCODERS)}", hint="install PyAV from PyPI, or write a GIF"
    )


def write_mp4(frames: Iterable[Frame], path: str | Path, fps: float, scale: int = 1) -> None:
    """An MP4 that browsers play and can start before it is loaded. Takes one frame at a time: memory does not grow with
    length.
    """
    if fps <= 0:
        raise ValueError(f"fps must be positive, found {fps}")
    encoder = mp4_encoder()
    images = (even(upscale(frame, scale)) for frame in checked_frames(frames))
    first = next(images)
    with written_whole(path) as temporary, _mp4_container(temporary, FASTSTART) as container:
        stream = _mp4_stream(container, encoder, fps, first)
        container.mux(_encoded(stream, first))
        for image in images:
            container.mux(_encoded(stream, image))
        container.mux(stream.encode())


class Mp4Stream:
    """An MP4 that grows while its frames are made. Up to `finish` it is `<name>.partial.mp4`, written in fragments of a
    second, so it plays at any moment, even after the process was killed. `finish` makes it an ordinary MP4 under its
    own name.

    As a context manager it finishes where the block ends well, and else keeps the partial file.
    """

    def __init__(self, path: str | Path, fps: float, scale: int = 1) -> None:
        if fps <= 0:
            raise ValueError(f"fps must be positive, found {fps}")
        self.path, self.fps, self.scale = Path(path), fps, scale
        self.partial = self.path.with_suffix(".partial.mp4")
        self.frames = 0
        self._encoder = mp4_encoder()
        self._container: Any = None
        self._stream: Any = None

    def __enter__(self) -> Mp4Stream:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.finish() if kind is None else self.close()

    def write(self, frame: Frame) -> None:
        """Add a frame, of the first one's size.

        Raises:
            OutputError: the file cannot be written.
        """
        image = even(upscale(to_uint8(frame), self.scale))
        with as_output_error(self.partial):
            if self._container is None:
                self.partial.parent.mkdir(parents=True, exist_ok=True)
                claim(self.partial)
                self._container = _mp4_container(self.partial, FRAGMENTED)
                self._stream = _mp4_stream(self._container, self._encoder, self.fps, image)
            self._container.mux(_encoded(self._stream, image))
        self.frames += 1

    def close(self) -> None:
        """Write what the encoder still holds; the partial file is complete as far as it goes."""
        if self._stream is not None:
            stream, self._stream = self._stream, None
            with as_output_error(self.partial), self._container:
                self._container.mux(stream.encode())

    def finish(self) -> None:
        """Turn the partial file into the finished one.

        Raises:
            ValueError: no frame was written.
            OutputError: the file cannot be written; the partial one stays.
        """
        if not self.frames:
            raise ValueError("no frames")
        self.close()
        with (
            written_whole(self.path) as temporary,
            av.open(str(self.partial)) as source,
            _mp4_container(temporary, FASTSTART) as target,
        ):
            stream, begin = (
                target.add_stream_from_template(source.streams.video[0]),
                source.streams.video[0].start_time or 0,
            )
            for packet in source.demux(video=0):
                if packet.pts is not None and packet.dts is not None:  # the last, empty one only ends the stream
                    packet.pts, packet.dts, packet.stream = packet.pts - begin, packet.dts - begin, stream
                    target.mux(packet)
        self.partial.unlink()


def _mp4_container(path: Path, movflags: dict[str, str]) -> Any:
    return av.open(str(path), "w", format="mp4", options={**movflags, "fflags": "+bitexact"})


def _mp4_stream(container: Any, encoder: str, fps: float, image: np.ndarray) -> Any:
    stream = container.add_stream(encoder, rate=Fraction(fps).limit_denominator(1001), options=MP4_OPTIONS[encoder])
    stream.height, stream.width = image.shape[:2]
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.thread_count = 1  # how x264 splits the work changes the bytes, and must not depend on the machine's cores
    context.colorspace = context.color_primaries = context.color_trc = BT709
    context.color_range = LIMITED_RANGE
    return stream


def _encoded(stream: Any, image: np.ndarray) -> Any:
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    return stream.encode(frame.reformat(format="yuv420p", dst_colorspace=BT709, dst_color_range=LIMITED_RANGE))


def even(image: np.ndarray) -> np.ndarray:
    """Odd sides repeat their last line: yuv420p keeps one colour per 2 x 2 pixels."""
    height, width = image.shape[:2]
    sides: tuple[tuple[int, int], ...] = ((0, height % 2), (0, width % 2), (0, 0))
    return np.pad(image, sides, mode="edge") if height % 2 or width % 2 else image

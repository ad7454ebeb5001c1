"""An MP4 that grows: playable while it is written and after an interruption, an ordinary MP4 when it is finished."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from astro_cli.config.errors import OutputError
from astro_cli.generate.mp4 import Mp4Stream, write_mp4

FPS = 16


def clip(frames: int) -> np.ndarray:
    """A red square moving right over blue."""
    video = np.zeros((frames, 48, 64, 3), dtype=np.float32)
    video[..., 2] = 0.8
    for t in range(frames):
        video[t, 8:24, t % 40 : t % 40 + 16] = (0.9, 0.1, 0.1)
    return video


def decode(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_a_finished_stream_is_what_write_mp4_writes(tmp_path):
    frames = clip(70)
    with Mp4Stream(tmp_path / "a.mp4", FPS) as stream:
        for frame in frames:
            stream.write(frame)
    write_mp4(frames, tmp_path / "b.mp4", FPS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]
    assert (decode(tmp_path / "a.mp4") == decode(tmp_path / "b.mp4")).all()
    with av.open(str(tmp_path / "a.mp4")) as container:
        video = container.streams.video[0]
        assert (video.frames, video.average_rate, video.start_time) == (70, FPS, 0)
        assert [frame.pts * frame.time_base * FPS for frame in container.decode(video)] == list(range(70))
    head = (tmp_path / "a.mp4").read_bytes()
    assert head.index(b"moov") < head.index(b"mdat")  # plays before it is loaded


def test_an_interrupted_stream_keeps_its_frames(tmp_path):
    frames = clip(21)

    def interrupted() -> None:
        with Mp4Stream(tmp_path / "a.mp4", FPS) as stream:
            for frame in frames:
                stream.write(frame)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [path.name for path in tmp_path.iterdir()] == ["a.partial.mp4"]
    found = decode(tmp_path / "a.partial.mp4")
    assert len(found) == 21
    assert np.abs(found.astype(int) - np.rint(frames * 255).astype(int)).mean() < 3


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal here")
def test_a_killed_process_leaves_a_playable_file(tmp_path):
    code = (
        "import os, sys, numpy as np\nfrom astro_cli.generate.mp4 import Mp4Stream\nstream = "
        "Mp4Stream(sys.argv[1], 16)\n"
        "for t in range(200):\n    stream.write(np.full((48, 64, 3), t / 200, "
        "dtype=np.float32))\nos.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.mp4")], timeout=120, check=False, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == -signal.SIGKILL
    assert len(decode(tmp_path / "a.partial.mp4")) >= 100  # the encoder holds some seconds back


def test_a_stream_without_frames_writes_nothing(tmp_path):
    with pytest.raises(ValueError, match="no frames"), Mp4Stream(tmp_path / "a.mp4", FPS):
        pass
    with pytest.raises(ValueError, match="fps must be positive"):
        Mp4Stream(tmp_path / "a.mp4", 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="/dev/null is no folder on POSIX")
def test_a_place_that_cannot_be_written_is_an_output_error():
    stream = Mp4Stream("/dev/null/a.mp4", FPS)
    with pytest.raises(OutputError, match="cannot be written"):
        stream.write(clip(1)[0])

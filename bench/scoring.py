"""Speed and memory of scoring videos on this machine: rows for `make bench`.

Ratios are of CPU seconds, so other work on the machine does not count.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import psutil

from astro_cli.generate.mp4 import write_mp4
from astro_cli.media.decode import frames, probe
from astro_cli.zoo.places import CHECKPOINTS_VARIABLE
from eval.contract import Frame, Sample
from eval.metrics import catalog
from eval.records.video_scores import SampleStore
from eval.scoring import pool
from eval.scoring.scorers import ConfiguredScorer, configured_scorers
from eval.scoring.worker import ScoringWorker, Work
from eval.suites.suite import ScorerSpec, Suite

LARGE = (81, 480, 832)  # frames, height, width: a clip of Wan 2.1
SMALL = (9, 64, 96)
WEIGHT_FREE = ("temporal_flickering", "trajectory", "flow_dis")
TINY = {
    "clip": 4,
    "long_clip": 12,
    "hpsv3": 1,
    "videoalign": 4,
}  # scorer -> clips; HPSv3 takes every frame as a picture of 588 x 336
CLIPS, REPEATS, SPEED_CLIPS = 1000, 5, 12
MIB = 2**20


def moving(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """(T, H, W, 3): a texture that slides, with a little noise: compresses about as well as generated video."""
    count, height, width = shape
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (height // 16 + 1, width // 16 + 8, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
    clip = np.stack([coarse[:height, index : index + width] for index in range(count)])
    return np.clip(clip.astype(np.int16) + rng.integers(-2, 3, clip.shape, dtype=np.int16), 0, 255).astype(np.uint8)


def sample_of(path: Path, name: str = "clip") -> Sample:
    return Sample(path, name, probe(path), name, "a texture slides")


def slot_of(*scorers: str) -> list[ConfiguredScorer]:
    return configured_scorers(
        Suite(
            title="bench",
            version=1,
            samples=1,
            source="here",
            scorers=tuple(ScorerSpec(scorer=name) for name in scorers),
        )
    )


def show(sample: Sample) -> Iterator[tuple[int, Frame]]:
    return frames(sample.path)


def fastest(work: Callable[[], object]) -> float:
    """CPU seconds of the fastest of some runs."""
    best = float("inf")
    for _ in range(REPEATS):
        began = time.process_time()
        work()
        best = min(best, time.process_time() - began)
    return best


def flicker_over_decoding(folder: Path) -> tuple[float, float]:
    """CPU seconds of decoding an 81-frame 832 x 480 clip, and of decoding and scoring its flicker."""
    path = folder / "large.mp4"
    write_mp4(moving(LARGE), path, 16)
    sample, desk = sample_of(path), ScoringWorker(slot_of("temporal_flickering"), show, "bench")
    desk.score(Work(sample, ("temporal_flickering",)))  # imports
    decoding = fastest(lambda: [None for _ in frames(path)])
    return decoding, fastest(lambda: desk.score(Work(sample, ("temporal_flickering",))))


def videos_per_second(folder: Path, scorer: str, jobs: int = 1, clips: int = SPEED_CLIPS) -> float:
    """Wall time of some clips of 81 frames at 208 x 120, decoding and the start of processes included."""
    path = folder / "middle.mp4"
    if not path.is_file():
        write_mp4(moving((81, 120, 208)), path, 16)
    (configured,), sample = slot_of(scorer), sample_of(path)
    works = [Work(replace(sample, video_hash=str(index)), (configured.name,)) for index in range(clips)]
    began = time.perf_counter()
    for _ in pool.run(works, [configured], show, "bench", jobs):
        pass
    return clips / (time.perf_counter() - began)


def write_tiny(checkpoints: Path) -> bool:
    """Tiny random weights in the released layouts of some scorers, by the writers of the test suite; False where this
    is no checkout.
    """
    if importlib.util.find_spec("tests") is None:
        return False
    from tests import reward_folders, tiny_networks

    tiny_networks.put(tiny_networks.clip_state(), checkpoints / "eval" / "clip" / "ViT-L-14.pt")
    tiny_networks.put(tiny_networks.long_clip_state(), checkpoints / "eval" / "longclip" / "longclip-L.pt")
    reward_folders.write_hpsv3(checkpoints)
    reward_folders.write_videoalign(checkpoints)
    return True


def tiny_forms(folder: Path) -> list[tuple[str, str, str]]:
    """Videos per second of scorers with tiny weights: what frames, tokens and loaded cost beside the networks."""
    before = os.environ.get(CHECKPOINTS_VARIABLE)
    os.environ[CHECKPOINTS_VARIABLE] = str(folder)
    try:
        if not write_tiny(folder):
            return []
        what = "tiny random weights in the released layout, the same clips, one process"
        return [
            (f"{scorer}: videos per second", f"{videos_per_second(folder, scorer, clips=clips):.2f}", what)
            for scorer, clips in TINY.items()
        ]
    finally:
        if before is None:
            del os.environ[CHECKPOINTS_VARIABLE]
        else:
            os.environ[CHECKPOINTS_VARIABLE] = before


def memory(folder: Path) -> tuple[float, float]:
    """Resident MiB after a tenth of 1,000 short clips and after all of them, scores stored as an evaluation does."""
    path, store = folder / "small.mp4", SampleStore(folder, "bench")
    write_mp4(moving(SMALL), path, 8)
    used, sample = slot_of("temporal_flickering"), sample_of(path)
    desk, process, early = ScoringWorker(used, show, "bench"), psutil.Process(os.getpid()), 0.0
    for index in range(CLIPS):
        named = replace(sample, video_hash=f"{index}", prompt_id=f"p{index}")
        for name, line in desk.score(Work(named, ("temporal_flickering",))).lines.items():
            store.add(name, line)
        if index + 1 == CLIPS // 10:
            early = process.memory_info().rss / MIB
    return early, process.memory_info().rss / MIB


def rows() -> list[tuple[str, str, str]]:
    """(measure, value, what it is)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        decoding, scoring = flicker_over_decoding(folder)
        table = [
            (
                "flicker, 81 x 832 x 480",
                f"{scoring / decoding:.2f}",
                f"decoded and scored {scoring:.3f} s / decoded {decoding:.3f} s of CPU",
            )
        ]
        speed = partial(videos_per_second, folder)
        for scorer in WEIGHT_FREE:
            if not [need for need in catalog.find(scorer).needs if need.missing()]:
                table.append(
                    (f"{scorer}: videos per second", f"{speed(scorer):.1f}", "81 frames of 208 x 120, one process")
                )
        table.append(
            (
                "temporal_flickering, two processes",
                f"{speed('temporal_flickering', 2):.1f}",
                "the same, with their start",
            )
        )
        table += tiny_forms(folder)
        early, late = memory(folder)
        table.append(
            (
                f"memory over {CLIPS} clips",
                f"{late - early:+.1f} MiB",
                f"resident {late:.0f} MiB at the end - {early:.0f} MiB after {CLIPS // 10}",
            )
        )
    return table


if __name__ == "__main__":
    for row in rows():
        print("  ".join(row))

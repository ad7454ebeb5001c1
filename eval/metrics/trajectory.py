"""How a video moves through a feature space at its prompt switches: compact events, and even bridges between them.
Weight-free by default.

Dimensions: N, T frame, D feature, K component, H, W pixel rows and columns.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal, Protocol, Self

import numpy as np
from pydantic import Field, model_validator

from astro_cli.config.base import Config
from eval.contract import Declaration, MetricInfo, NetworkCache, Sample, Score, ScoreError, Segment, VideoWatcher
from eval.networks.clip_names import file_names
from eval.networks.weights_paths import require
from eval.video.sampling import between, every
from eval.watchers.encoding import Encoded
from eval.watchers.segments import parts
from eval.watchers.trajectories import measure, project

NAME = "trajectory"
CLIP = "ViT-L-14"
WHITE = 255.0
LATENT_STRIDE = 4
DIGITS = 5  # of the points kept for figures
UNIT = "distance (RMS pixel in 0..1, or of unit CLIP features)"
Encode = Callable[[np.ndarray], np.ndarray]  # (N, H, W, 3) uint8 -> (N, D)


class Encoding(Protocol):
    """Makes a watcher that turns the chosen frames into features (D,) by frame number and hands them to `finish`."""

    def __call__(
        self, chosen: list[int], finish: Callable[[dict[int, np.ndarray]], dict[str, Score]]
    ) -> VideoWatcher: ...


class TrajectoryConfig(Config):
    """Encoder, side of its pixel grid, every which frame is encoded, principal components, seconds of a bridge on each
    side of a switch.

    "vae" encodes the video back into Wan's latents: one point per latent frame, which is every fourth frame.
    """

    encoder: Literal["pixels", "clip", "vae"] = "pixels"
    grid: int = Field(16, ge=1)
    stride: int = Field(1, ge=1)
    components: int = Field(2, ge=1)
    bridge_seconds: float = Field(1.0, gt=0)

    @model_validator(mode="after")
    def _one_point_per_latent(self) -> Self:
        if self.encoder == "vae" and self.stride != LATENT_STRIDE:
            raise ValueError(
                f"stride: found {self.stride}, Wan's VAE makes a latent of every fourth frame: expected {LATENT_STRIDE}"
            )
        return self


def pixel_features(frames_NHWC: np.ndarray, grid: int) -> np.ndarray:
    """Mean colours of a grid of cells (N, 3 grid^2), in 0..1 over the root of D, so that a distance is a root mean
    square of pixel differences.
    """
    from PIL import Image

    small = [np.asarray(Image.fromarray(frame).resize((grid, grid), Image.Resampling.BOX)) for frame in frames_NHWC]
    z_ND = np.stack(small).reshape(len(small), -1) / WHITE
    return z_ND / np.sqrt(z_ND.shape[1])


class _Scorer:
    """Source: Delta Forcing 2605.14382v1, Appendix A; the measures are in `eval/watchers/trajectories.py`.

    **Deviations:** the paper projects denoised latents before decoding; a scorer sees frames, and encodes those ("vae":
    into latents again). An event is the frames shown between two switches. A video with one prompt is one event: its
    spread is scored, the switches are not.
    """

    def __init__(self, config: TrajectoryConfig, encoding: Encoding) -> None:
        self.config, self.encoding = config, encoding

    def watch(self, sample: Sample) -> VideoWatcher:
        chosen = every(self.config.stride, sample.info.frames)
        segments = parts(sample)
        rows = {index: row for row, index in enumerate(chosen)}
        events = [self._rows(part, rows, sample) for part in segments]
        return self.encoding(chosen, partial(self._scores, events=events, segments=segments, fps=sample.info.fps))

    def _rows(self, part: Segment, rows: dict[int, int], sample: Sample) -> list[int]:
        shown = between(part.start, part.end, sample.info.frames, sample.info.fps)
        event = [rows[index] for index in shown if index in rows]
        if not event:
            raise ScoreError(
                sample.path, "segments", f"no frame of {part.start:g}-{part.end:g} s at stride {self.config.stride}"
            )
        return event

    def _scores(
        self, features: dict[int, np.ndarray], events: list[list[int]], segments: tuple[Segment, ...], fps: float
    ) -> dict[str, Score]:
        points_TK, explained = project(
            np.stack([features[index] for index in sorted(features)]), self.config.components
        )
        bridge = max(1, round(self.config.bridge_seconds * fps / self.config.stride))
        shape = measure(points_TK, events, bridge)
        details = {
            "encoder": self.config.encoder,
            "explained": explained,
            "stride": self.config.stride,
            "points": points_TK.round(DIGITS).tolist(),
            "events": [[part.start, part.end] for part in segments],
        }
        return {
            f"{NAME}.within_event_spread": Score(shape.spread, details),
            f"{NAME}.cross_event_displacement": Score(shape.displacement),
            f"{NAME}.cross_event_step": Score(shape.step),
            f"{NAME}.cross_event_smoothness": Score(shape.smoothness, {"bridge": bridge}),
        }


def _build(config: TrajectoryConfig, loaded: NetworkCache) -> _Scorer:
    if config.encoder == "vae":
        from astro_cli.models.vae import load_vae
        from astro_cli.models.wan_backbone import wan_folder
        from eval.watchers.latents import Latents

        vae = loaded.get(("vae", wan_folder(None)), lambda: load_vae(wan_folder(None)))
        return _Scorer(config, lambda chosen, finish: Latents(vae, chosen, finish))
    encode: Encode = partial(pixel_features, grid=config.grid)
    if config.encoder == "clip":
        from eval.networks.clip import shared

        tower = shared(loaded, CLIP)
        encode = lambda frames_NHWC: tower.images(frames_NHWC).numpy()  # noqa: E731
    return _Scorer(config, lambda chosen, finish: Encoded(chosen, encode, finish))


def _files(config: TrajectoryConfig) -> tuple[Path, ...]:
    if config.encoder == "vae":
        from astro_cli.models.vae import vae_files
        from astro_cli.models.wan_backbone import wan_folder

        return vae_files(wan_folder(None))
    return () if config.encoder == "pixels" else (require(*file_names(CLIP)),)


SCORER = Declaration(
    metrics=(
        MetricInfo(
            f"{NAME}.within_event_spread", "down", UNIT, "PCA: how far an event's frames lie from its mean point"
        ),
        MetricInfo(
            f"{NAME}.cross_event_displacement", "up", UNIT, "PCA: how far neighbouring events' mean points lie apart"
        ),
        MetricInfo(f"{NAME}.cross_event_step", "down", UNIT, "PCA: how far one frame moves at the switch"),
        MetricInfo(
            f"{NAME}.cross_event_smoothness",
            "up",
            "0..1",
            "PCA: how evenly the way around a switch is spread over frames",
        ),
    ),
    config=TrajectoryConfig,
    version=1,
    build=_build,
    files=_files,
)

"""What only long videos have: how their visual quality varies, and whether their background stays.

Dimensions: B video, T frame, M clip, C colour, H, W pixels.
"""

from __future__ import annotations

import torch

from astro_cli.shapes.oracle import measure
from astro_cli.shapes.pattern import fit_pattern
from astro_cli.shapes.segment import segment
from eval.world.oracle_scores import visual_quality

CLIP_SECONDS = 2
POINTS = 100.0  # the visual quality is 0..1, drift is printed on 0..100
STRIDE = 4  # every which frame's background is compared
SIMILARITY_SCALE = 0.15  # RMS difference of two backgrounds at which their likeness has fallen to 1/e
CHUNK_FRAMES = 1152  # of the background at once


def clip_qualities(frames_BTCHW: torch.Tensor, fps: float, pace: float) -> torch.Tensor:
    """VQ (B, M) of the whole clips of two seconds, in 0..1; of a shorter video one clip."""
    length = max(1, round(CLIP_SECONDS * fps))
    whole = max(1, frames_BTCHW.shape[1] // length)
    clips = frames_BTCHW[:, : whole * length].split(length, 1)
    return torch.stack([visual_quality(measure(clip, pace)) for clip in clips], 1)


def drift(quality_BM: torch.Tensor) -> torch.Tensor:
    """(B,) sample deviation over a video's clips, in points of 100; NaN of one clip.

    Reward Forcing (arXiv 2512.04678), Eq. 12. **Deviations:** the oracle's visual quality instead of MUSIQ's; as on Wan
    (`eval.metrics.drift`) the deviation that the text names, where the equation lacks the square.
    """
    if quality_BM.shape[1] < 2:
        return torch.full(quality_BM.shape[:1], float("nan"))
    return POINTS * quality_BM.double().std(1)


@torch.no_grad()
def backgrounds(frames_BTCHW: torch.Tensor) -> torch.Tensor:
    """Every fourth frame's background, as the oracle fits it: also below the object, without noise. (B, T, C, H, W)."""
    shown = frames_BTCHW[:, ::STRIDE].float().cpu()
    videos = max(1, CHUNK_FRAMES // shown.shape[1])
    return torch.cat([fit_pattern(part, segment(part)).image_BTCHW for part in shown.split(videos)])


def background_consistency(image_BTCHW: torch.Tensor) -> torch.Tensor:
    """(B,) in 0..1: how like the first and the previous one a frame's background is, on average over frames.

    VBench's background consistency (arXiv 2311.17982) in form. **Deviations:** likeness is exp(-RMS difference / .15)
    of fitted backgrounds instead of the cosine of CLIP features, which knows nothing of this world.
    """
    pixels_BTN = image_BTCHW.flatten(2)
    first_BT, before_BT = (
        (pixels_BTN[:, 1:] - other).square().mean(2).sqrt() for other in (pixels_BTN[:, :1], pixels_BTN[:, :-1])
    )
    likeness_BT = (torch.exp(-first_BT / SIMILARITY_SCALE) + torch.exp(-before_BT / SIMILARITY_SCALE)) / 2
    return likeness_BT.mean(1) if likeness_BT.shape[1] else torch.ones(len(likeness_BT))

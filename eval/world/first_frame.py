"""How a video of the embedded world agrees with its first frame, which was given: its object and its background, in the
form of VBench-I2V.

    0.4 max_n s(f_0, f_n) + 0.3 mean_n s(f_n-1, f_n) + 0.3 min_n s(f_n-1, f_n)

Source: VBench++ (arXiv 2411.13503), as `eval.vbench.similarity`.

**Deviations**: s is of what the oracle sees, not the cosine of DINO features. Of objects: the cosine of their centred
mattes times exp(-|difference of their colours| / .15); of backgrounds: exp(-RMS difference / .15) of the fitted ones.
Dimensions: B video, T frame, N frame after the first, C colour, H, W pixels.
"""

from __future__ import annotations

import torch
from torch.nn.functional import cosine_similarity

from astro_cli.shapes.oracle import COLOR_SCALE
from astro_cli.shapes.pattern import fit_pattern
from astro_cli.shapes.segment import segment, shift_to_origin
from eval.vbench.similarity import MAX_WEIGHT, MEAN_WEIGHT, MIN_WEIGHT
from eval.world.long_scores import SIMILARITY_SCALE, STRIDE

SUBJECT, BACKGROUND = "i2v_subject", "i2v_background"


def conformity(to_first_BN: torch.Tensor, to_previous_BN: torch.Tensor) -> torch.Tensor:
    """(B,) of likenesses in [0, 1] to the first and to the previous frame."""
    nearest, mean, worst = to_first_BN.amax(1), to_previous_BN.mean(1), to_previous_BN.amin(1)
    return MAX_WEIGHT * nearest + MEAN_WEIGHT * mean + MIN_WEIGHT * worst


@torch.no_grad()
def agreement_with_first(frames_BTCHW: torch.Tensor) -> dict[str, torch.Tensor]:
    """(B,) each in [0, 1], of every fourth frame of videos (B, T, 3, S, S) in [0, 1]."""
    shown = frames_BTCHW[:, ::STRIDE].float().cpu()
    seen = segment(shown)
    mattes = shift_to_origin(seen.alpha_BTHW, seen.center_BT2).flatten(2)
    colours = seen.hue_BT3 * seen.chroma_BT[..., None]
    pictures = fit_pattern(shown, seen).image_BTCHW.flatten(2)

    def objects(a: slice, b: slice) -> torch.Tensor:
        alike = cosine_similarity(mattes[:, a], mattes[:, b], dim=-1).clamp(0, 1)
        return alike * torch.exp(-(colours[:, a] - colours[:, b]).norm(dim=-1) / COLOR_SCALE)

    def backgrounds(a: slice, b: slice) -> torch.Tensor:
        return torch.exp(-(pictures[:, a] - pictures[:, b]).square().mean(-1).sqrt() / SIMILARITY_SCALE)

    first, later, before = slice(0, 1), slice(1, None), slice(0, -1)
    return {
        SUBJECT: conformity(objects(first, later), objects(before, later)),
        BACKGROUND: conformity(backgrounds(first, later), backgrounds(before, later)),
    }

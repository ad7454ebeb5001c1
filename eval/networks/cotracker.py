"""CoTracker2 from the user's own checkout of its code, which this package may not carry.

The code of the checkout runs in this process, as torch.hub runs it for official VBench; the weights are read here,
tensors only.
Dimensions: B video, T frame, N point of the grid, row by row, C colour channel, H, W pixel rows and columns, 2 = x, y
in pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from astro_cli.config.errors import RunError
from astro_cli.models import network_files as files

ENTRY = "cotracker2"
WHAT = (
    "CoTracker2's weights, cotracker2.pth, and code that builds CoTracker2 (of late 2024, `cotracker2` built "
    "CoTracker3)"
)


class GridTracker:
    """Follows a grid of points from the first frame through a video.

    Source: Karaev et al., CoTracker, arXiv 2307.07635; facebookresearch/co-tracker, `cotracker2` of its hubconf.py.
    **Deviations:** none; the checkout's own predictor tracks, in float32.
    """

    def __init__(self, predictor: nn.Module, checkout: Path) -> None:
        self.predictor, self.checkout = predictor, checkout
        self.device = next(predictor.parameters()).device

    @torch.no_grad()
    def tracks(self, frames_THWC: np.ndarray, grid: int) -> np.ndarray:
        """Where the points are in every frame.

        Args:
            frames_THWC: uint8 RGB, of any size; the predictor resizes to 384 x 512 and its tracks back.
            grid: points a side.

        Returns:
            (T, N, 2) float32 in pixels of the video, not necessarily finite.

        Raises:
            RunError: the checkout's code gives something else than tracks of these points.
        """
        video_BTCHW = (
            torch.from_numpy(np.ascontiguousarray(frames_THWC)).permute(0, 3, 1, 2)[None].to(self.device, torch.float32)
        )
        output = self.predictor(video_BTCHW, grid_size=grid)
        tracks_BTN2 = output[0] if isinstance(output, tuple) and output else output
        expected = (1, len(frames_THWC), grid * grid, 2)
        if not isinstance(tracks_BTN2, torch.Tensor) or tracks_BTN2.shape != expected:
            shape = tuple(tracks_BTN2.shape) if isinstance(tracks_BTN2, torch.Tensor) else type(tracks_BTN2).__name__
            raise RunError(
                self.checkout, ENTRY, f"its predictor gave {shape}, expected tracks of shape {expected}", hint=WHAT
            )
        return tracks_BTN2[0].float().cpu().numpy()


def load(checkout: Path, path: Path) -> GridTracker:
    """The tracker of a checkout with the weights of a file.

    Raises:
        RunError: the checkout's code does not give a predictor.
        CheckpointError: the file is missing, damaged or of another model than the checkout builds.
    """
    predictor = _predictor(checkout)
    files.fill(predictor.get_submodule("model"), files.read(path), path, WHAT)
    return GridTracker(predictor.eval(), checkout)


def _predictor(checkout: Path) -> nn.Module:
    """The checkout's predictor without weights. Its code seeds torch's global generator on import; that stays as it
    was.
    """
    hint = "expected a checkout of facebookresearch/co-tracker and what it imports (einops)"
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            predictor = torch.hub.load(str(checkout), ENTRY, source="local", pretrained=False)
    except (ImportError, OSError, RuntimeError, TypeError, AttributeError, SyntaxError) as error:
        raise RunError(checkout, ENTRY, f"cannot be loaded: {error}", hint=hint) from error
    if not isinstance(predictor, nn.Module) or "model" not in dict(predictor.named_children()):
        raise RunError(
            checkout, ENTRY, f"gave {type(predictor).__name__}, expected a predictor with a network `model`", hint=hint
        )
    return predictor

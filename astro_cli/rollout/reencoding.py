"""The latent that opens a clip from the middle of a long video: the last frame shown, encoded as the image it is.

Wan's VAE gives a video's first latent one frame and every later latent four, so a network that sees clips from their
first frame must not be shown a window whose first latent is one of the later kind. The same latent opens a new stream
(`StreamSpec.given`, `first_frame_alone`).
Source: Self-Forcing (arXiv 2506.08009) and LongLive (arXiv 2509.22622), released trainers.
Dimensions: B sample, F latent frame, C channel, H, W latent rows and columns.

**Deviations**: none.
"""

from __future__ import annotations

import torch

from astro_cli.models.backbone import Backbone


@torch.no_grad()
def image_latent(backbone: Backbone, history_BFCHW: torch.Tensor) -> torch.Tensor:
    """(B, 1, C, H, W): the last frame that these latents show, encoded as an image.

    The latents are those of a video from its beginning, or as many of the last as a frame depends on (the decoder's
    `reach`, and one).
    """
    decoder = backbone.decoder().skip(history_BFCHW[:, :-1])
    return backbone.encode(decoder.push(history_BFCHW[:, -1:])[:, -1:]).to(history_BFCHW)

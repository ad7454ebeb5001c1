"""Which tokens may attend to which, for passes without a cache. The transformer applies them.

True = visible. Frames are grouped in blocks that are bidirectional inside and causal between (as in Self-Forcing's
released code).
Dimensions: F latent frame, L token.
"""

from __future__ import annotations

import torch


def block_ends(num_frames: int, block: int, first_frame_alone: bool = False) -> list[int]:
    """For each frame, the end (exclusive) of the block it is in; with `first_frame_alone`, block 0 is one frame (image
    to video).
    """
    if first_frame_alone:
        return [1, *(1 + end for end in block_ends(num_frames - 1, block))]
    return [min((frame // block + 1) * block, num_frames) for frame in range(num_frames)]


def block_causal_mask(
    num_frames: int,
    tokens_per_frame: int,
    block: int,
    window: int | None = None,
    sink: int = 0,
    *,
    first_frame_alone: bool = False,
) -> torch.Tensor:
    """(L, L) mask of block-causal self-attention.

    Args:
        window: latent frames visible, counted back from the end of the query's block (so it includes that block); None
            = all.
        sink: first frames that stay visible; the window includes them.
    """
    frame = torch.arange(num_frames)
    end = torch.tensor(block_ends(num_frames, block, first_frame_alone))
    visible = (frame[None, :] < end[:, None]) & _in_reach(end, window, sink)
    visible |= torch.eye(num_frames, dtype=torch.bool)
    return _to_tokens(visible, tokens_per_frame)


def _in_reach(end_F: torch.Tensor, window: int | None, sink: int) -> torch.Tensor:
    """(F, F): key frames a rolling cache still holds when the query's block, which ends at `end_F`, is the newest."""
    frame = torch.arange(len(end_F))
    if window is None:
        return torch.ones(len(end_F), len(end_F), dtype=torch.bool)
    return (frame[None, :] >= end_F[:, None] - (window - sink)) | (frame[None, :] < sink)


def teacher_forcing_mask(
    num_frames: int,
    tokens_per_frame: int,
    block: int,
    window: int | None = None,
    sink: int = 0,
    first_frame_alone: bool = False,
) -> torch.Tensor:
    """(2L, 2L) mask over [clean ; noisy] tokens.

    Clean frames attend block-causally to clean ones. A noisy block attends to itself and to the clean frames before it:
    all of them, or with a `window` the last `window` minus its own length, plus the first `sink` frames; that is what a
    rolling cache of that size holds.
    """
    frame = torch.arange(num_frames)
    end = torch.tensor(block_ends(num_frames, block, first_frame_alone))
    # First frame of each frame's block.
    start = torch.tensor([end.tolist().index(block_end) for block_end in end.tolist()])
    in_reach = _in_reach(end, window, sink)
    clean = (frame[None, :] < end[:, None]) & in_reach
    context = (frame[None, :] < start[:, None]) & in_reach
    own = (frame[None, :] >= start[:, None]) & (frame[None, :] < end[:, None])
    rows = (torch.cat((clean, torch.zeros_like(clean)), 1), torch.cat((context, own), 1))
    return _to_tokens(torch.cat(rows, 0), tokens_per_frame)


def _to_tokens(mask_FF: torch.Tensor, tokens_per_frame: int) -> torch.Tensor:
    return mask_FF.repeat_interleave(tokens_per_frame, 0).repeat_interleave(tokens_per_frame, 1)

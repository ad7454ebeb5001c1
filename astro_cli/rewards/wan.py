"""The training rewards of Wan: VQ by HPSv3, MQ and TA by VideoAlign, one network for the two. Owns their loading and
the scores of clips.

Source: Astrolabe (arXiv 2603.17051), section 3.4 and its released scorers.
Dimensions: B clip, T pixel frame, C colour, H, W pixel rows and columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from astro_cli.rewards import qwen2_vl_inputs as inputs
from astro_cli.rewards.base import Reward
from astro_cli.rewards.hpsv3 import HPSv3, best_mean, load_hpsv3
from astro_cli.rewards.scorers import scorers, split
from astro_cli.rewards.videoalign import MQ, TA, VideoAlign, load_videoalign

BY_VIDEOALIGN = {"mq": MQ, "ta": TA}


class FrameQuality:
    """VQ: mean HPSv3 of the best 30 % of all frames. Raw, as in the paper."""

    key = "vq"
    num_frames_min = 1

    def __init__(self, scorer: HPSv3) -> None:
        self.scorer = scorer

    def score(self, frames_BTCHW: Tensor, prompts: list[str]) -> Tensor:
        pairs = zip(frames_BTCHW, prompts, strict=True)
        return torch.stack(
            [best_mean(self.scorer.score(inputs.to_uint8(frames), prompt)) for frames, prompt in pairs]
        ).to(frames_BTCHW.device)


class ClipQuality:
    """MQ on luma, or TA on colour, of VideoAlign, normalised; frames are sampled as in its release, at the video's true
    rate.

    **Deviations:** Astrolabe's scorer is fixed to 10 frames of 336 x 588; here both follow VideoAlign's own sampling,
    which gives just that for 81 frames of 480 x 832 at 16 fps.
    """

    num_frames_min = 2

    def __init__(self, key: str, scorer: VideoAlign, fps: float) -> None:
        self.key, self.scorer, self.fps = key, scorer, fps

    def score(self, frames_BTCHW: Tensor, prompts: list[str]) -> Tensor:
        chosen = self.scorer.frames(frames_BTCHW.shape[1], self.fps)
        clips = [inputs.to_uint8(frames) for frames in frames_BTCHW[:, chosen]]
        scores_B3 = self.scorer.normalise(self.scorer.raw(clips, prompts, gray=self.key == "mq"))
        return scores_B3[:, BY_VIDEOALIGN[self.key]].to(frames_BTCHW.device)


def load_rewards(
    keys: Iterable[str], fps: float, device: torch.device, tables: Mapping[str, Mapping[str, Any]] | None = None
) -> list[Reward]:
    """The rewards in the order of `keys`; VideoAlign is loaded once however many of them it gives. Keys that are not of
    this package are metrics of the evaluation's scorers.

    Args:
        fps: of the videos that will be scored.
        tables: own keys of the evaluation's scorers.

    Raises:
        CheckpointError: weights that are missing, damaged, or of another model.
    """
    wanted = list(keys)
    outside = split(wanted)[1]
    others = dict(zip(outside, scorers().load(outside, tables or {}, fps), strict=True)) if outside else {}
    video = load_videoalign(device) if BY_VIDEOALIGN.keys() & set(wanted) else None
    rewards: list[Reward] = []
    for key in wanted:
        if key in others:
            rewards.append(others[key])
        elif video is not None and key in BY_VIDEOALIGN:
            rewards.append(ClipQuality(key, video, fps))
        else:
            assert key == "vq", "a reward of rewards.base.KEYS"
            rewards.append(FrameQuality(load_hpsv3(device)))
    return rewards

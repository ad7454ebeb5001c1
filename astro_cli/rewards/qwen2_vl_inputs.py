"""What Qwen2-VL reward models are shown: which frames, how large, as which patches, in which text.

Source: qwen-vl-utils as vendored by VideoAlign (arXiv 2501.13918) and hpsv3 1.0.0.
Dimensions: T frame, H, W pixel rows and columns, C colour, N patch, L token, B sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as pictures
from transformers import Qwen2VLImageProcessor, Qwen2VLVideoProcessor

from astro_cli.config.errors import AstroError, PromptError

Kind = Literal["image", "video"]
FACTOR = 28  # pixels along a side of a token: patch 14, merged 2 x 2
FRAME_FACTOR = 2  # frames of a temporal patch
MIN_FRAMES, MAX_FRAMES = 4, 768
FRAME_PIXELS = 256 * 28 * 28  # HPSv3: every picture; VideoAlign: at most, max_frame_pixels of its model_config.json
VIDEO_MIN_PIXELS = 128 * 28 * 28
MAX_RATIO = 200
PAD = {"image": "<|image_pad|>", "video": "<|video_pad|>"}
# Qwen2-VL's chat template for one user turn with one picture or video before the text, and a generation prompt.
CHAT = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
    "<|vision_start|>{pad}<|vision_end|>{text}<|im_end|>\n<|im_start|>assistant\n"
)


class PictureError(AstroError):
    """Frames whose shape the network cannot take."""


@dataclass(frozen=True)
class Patches:
    """One picture or video as the vision tower takes it: patches (N, C x 2 x 14 x 14) float32, grid (3,) of frames,
    rows, columns.
    """

    patches_ND: Tensor
    grid_3: Tensor

    @property
    def tokens(self) -> int:
        return int(self.grid_3.prod()) // 4


def frame_count(total: int, fps: float, wanted_fps: float) -> int:
    """Frames taken of a clip of `total` frames: even, at least 4 where there are so many, at most 768.

    Source: `smart_nframes`. Deviations: a clip of 3 frames gives 2 instead of a failure, as in hpsv3's copy.
    """
    most = min(MAX_FRAMES, total) // FRAME_FACTOR * FRAME_FACTOR
    count = min(max(total / fps * wanted_fps, MIN_FRAMES), most)
    return min(round(count / FRAME_FACTOR) * FRAME_FACTOR, total)


def frame_indices(total: int, fps: float, wanted_fps: float) -> list[int]:
    """Which frames of a clip, first and last included: linspace, rounded half to even."""
    return torch.linspace(0, total - 1, frame_count(total, fps, wanted_fps)).round().long().tolist()


def smart_size(height: int, width: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """(rows, columns): multiples of 28 near the aspect ratio, between the two numbers of pixels.

    Raises:
        PictureError: more than 200 times as long as wide.

    Source: `smart_resize` of qwen-vl-utils. transformers' own copy differs for pictures below 14 pixels.
    Deviations: None.
    """
    if max(height, width) > MAX_RATIO * min(height, width):
        raise PictureError("frames", f"{width}x{height}", f"one side is more than {MAX_RATIO} times the other")
    rows, columns = (max(FACTOR, round(side / FACTOR) * FACTOR) for side in (height, width))
    if rows * columns > max_pixels:
        beta = math.sqrt(height * width / max_pixels)
        rows, columns = (math.floor(side / beta / FACTOR) * FACTOR for side in (height, width))
    elif rows * columns < min_pixels:
        beta = math.sqrt(min_pixels / (height * width))
        rows, columns = (math.ceil(side * beta / FACTOR) * FACTOR for side in (height, width))
    return rows, columns


def image_patches(frames_THWC: np.ndarray, pixels: int = FRAME_PIXELS) -> list[Patches]:
    """Each uint8 frame as one picture of `pixels`, resized by PIL as HPSv3 does."""
    rows, columns = smart_size(frames_THWC.shape[1], frames_THWC.shape[2], pixels, pixels)
    resized = [Image.fromarray(frame).resize((columns, rows), Image.Resampling.BICUBIC) for frame in frames_THWC]
    processed = Qwen2VLImageProcessor(do_resize=False)(images=resized, return_tensors="pt")
    return _split(processed["pixel_values"], processed["image_grid_thw"])


def video_patches(frames_THWC: np.ndarray, max_pixels: int = FRAME_PIXELS) -> Patches:
    """Chosen uint8 frames as one video, resized by torchvision on uint8 as VideoAlign does."""
    rows, columns = smart_size(frames_THWC.shape[1], frames_THWC.shape[2], VIDEO_MIN_PIXELS, max_pixels)
    video_TCHW = torch.from_numpy(np.ascontiguousarray(frames_THWC)).permute(0, 3, 1, 2)
    resized = pictures.resize(video_TCHW, [rows, columns], pictures.InterpolationMode.BICUBIC, antialias=True)
    processed = Qwen2VLVideoProcessor(do_resize=False, do_sample_frames=False, cap_pixels_per_frame=False)(
        videos=[resized], return_tensors="pt"
    )
    return _split(processed["pixel_values_videos"], processed["video_grid_thw"])[0]


def grayscale(frames_THWC: np.ndarray) -> np.ndarray:
    """ITU-R 601 luma in all three channels, uint8: Astrolabe's input of motion quality."""
    frames_TCHW = torch.from_numpy(np.ascontiguousarray(frames_THWC)).permute(0, 3, 1, 2)
    return pictures.rgb_to_grayscale(frames_TCHW, 3).permute(0, 2, 3, 1).numpy()


def to_uint8(frames_TCHW: Tensor) -> np.ndarray:
    """Frames in [0, 1] -> uint8 (T, H, W, C), rounded, as a video file holds them."""
    return (frames_TCHW.detach().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def _split(patches_ND: Tensor, grid_B3: Tensor) -> list[Patches]:
    parts = torch.split(patches_ND, grid_B3.prod(-1).tolist())
    return [Patches(part, grid) for part, grid in zip(parts, grid_B3, strict=True)]


def tokenize(tokenizer: Any, kind: Kind, seen: Patches, text: str, specials: Sequence[int]) -> list[int]:
    """Token ids of the chat with one picture or video and an instruction.

    Raises:
        PromptError: the reward tokens do not stand in it once each and in order, because the prompt's text holds some.
    """
    ids = tokenizer(CHAT.format(pad=PAD[kind] * seen.tokens, text=text), add_special_tokens=False)["input_ids"]
    present = [token for token in ids if token in set(specials)]
    if present != list(specials):
        raise PromptError(
            "prompt",
            "",
            f"holds reward tokens: found {len(present)} in its instruction, expected {len(specials)} in order",
        )
    return ids

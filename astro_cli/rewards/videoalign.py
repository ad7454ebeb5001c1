"""VideoAlign (VideoReward): visual quality, motion quality and text alignment of a clip. Owns loading, sampling,
scoring and the norm.

Source: VideoAlign (arXiv 2501.13918) and its released inference; gray motion quality is Astrolabe's (arXiv 2603.17051,
section 3.4).
Dimensions: B clip, T frame, H, W pixel rows and columns, C colour, 3 = VQ, MQ, TA.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from astro_cli.config.errors import CheckpointError
from astro_cli.rewards import qwen2_vl_inputs as inputs
from astro_cli.rewards import qwen2_vl_weights, scorer_places, templates, videoalign_files
from astro_cli.rewards.qwen2_vl_reward import Positions, RewardTower, linear_head

VQ, MQ, TA = range(3)
BATCH = 4  # clips of one length a pass


class VideoAlign:
    """Scores clips whose frames are sampled already. One pass gives all three scores; VQ and MQ do not see the prompt,
    which follows them.
    """

    def __init__(self, tower: RewardTower, tokenizer: Any, template: str, settings: videoalign_files.Settings) -> None:
        self.tower, self.tokenizer, self.template, self.settings = tower, tokenizer, template, settings
        self.norm_23 = torch.tensor(settings.norm, dtype=torch.float32).T

    def frames(self, total: int, fps: float) -> list[int]:
        """Which frames of a clip of `total` at its true `fps` are looked at: settings.fps per second, even, at
        least 4.
        """
        return inputs.frame_indices(total, fps, self.settings.fps)

    def raw(self, clips: Sequence[np.ndarray], prompts: Sequence[str], *, gray: bool = False) -> Tensor:
        """(B, 3) float32 on the CPU: VQ, MQ, TA before the norm.

        Args:
            clips: uint8 (T, H, W, C) each, the frames that `frames` chose.
            gray: look at luma only.

        Raises:
            PromptError: a prompt holds a special token's text.
        """
        seen = [
            inputs.video_patches(inputs.grayscale(clip) if gray else clip, self.settings.max_pixels) for clip in clips
        ]
        texts = [templates.fill(self.template, prompt) for prompt in prompts]
        tokens = [
            inputs.tokenize(self.tokenizer, "video", each, text, self.tower.specials)
            for each, text in zip(seen, texts, strict=True)
        ]
        by_length: dict[int, list[int]] = defaultdict(list)
        for row, ids in enumerate(tokens):
            by_length[len(ids)].append(row)
        scores_B3 = torch.empty(len(clips), len(self.tower.specials))
        for rows in by_length.values():
            for start in range(0, len(rows), BATCH):
                part = rows[start : start + BATCH]
                scores_B3[part] = self._pass([seen[row] for row in part], [tokens[row] for row in part])
        return scores_B3

    def normalise(self, raw_B3: Tensor) -> Tensor:
        """(raw - mean) / deviation per score, with the checkpoint's constants."""
        return (raw_B3 - self.norm_23[0]) / self.norm_23[1]

    def _pass(self, seen: list[inputs.Patches], tokens: list[list[int]]) -> Tensor:
        out_BKR = self.tower.read("video", torch.tensor(tokens), seen, self.tower.see("video", seen))
        picked = (
            out_BKR.diagonal(dim1=1, dim2=2) if self.settings.outputs == len(self.tower.specials) else out_BKR[..., 0]
        )
        return picked.cpu()


def files() -> tuple[Path, ...]:
    """The files that are read; empty where one is missing."""
    folder, base = scorer_places.find_videoalign(), scorer_places.find(scorer_places.VIDEOALIGN_BASE)
    if folder is None or base is None or scorer_places.missing_videoalign():
        return ()
    step, template = scorer_places.videoalign_step(folder), scorer_places.videoalign_template(folder)
    assert step is not None
    assert template is not None
    words = _tokenizer_folder(step, base) / scorer_places.TOKENIZER_FILE
    own = (folder / scorer_places.SETTINGS_FILE, template, base / "config.json", words)
    return (*own, *videoalign_files.weight_files(step, base))


def load_videoalign(
    device: torch.device,
    dtype: torch.dtype = torch.bfloat16,
    positions: Positions = "official",
    *,
    folder: Path | None = None,
    base: Path | None = None,
) -> VideoAlign:
    """VideoAlign from its released folder and its base model's folder, the newest checkpoint.

    Args:
        dtype: of the network; bfloat16 as released. The head is float32.
        folder: of KlingTeam/VideoReward; default below the checkpoints folder or in the Hugging Face cache.
        base: folder of Qwen2-VL-2B-Instruct; its weights are read only for the adapter layout.

    Raises:
        CheckpointError: missing, damaged, unsafe, or of another model or size.
    """
    if (folder is None or base is None) and (lack := scorer_places.missing_videoalign()):
        raise CheckpointError("videoalign", "", "not here", hint=lack)
    folder, base = (
        folder or scorer_places.find_videoalign(),
        base or scorer_places.find(scorer_places.VIDEOALIGN_BASE),
    )
    assert folder is not None
    assert base is not None
    step = scorer_places.videoalign_step(folder)
    if step is None:
        raise CheckpointError(folder, "checkpoint-*", "missing: no checkpoint folder")
    settings = videoalign_files.read_settings(folder)
    template = templates.videoalign_template(
        scorer_places.videoalign_template(folder) or folder / scorer_places.TEMPLATE_FILE
    )
    tokenizer = qwen2_vl_weights.load_tokenizer(_tokenizer_folder(step, base), templates.VIDEOALIGN_TOKENS)
    config = qwen2_vl_weights.load_config(base, tokenizer)
    specials = qwen2_vl_weights.token_ids(tokenizer, templates.VIDEOALIGN_TOKENS)
    state = videoalign_files.read_state(step, base, settings.scale)
    qwen2_vl_weights.check_sizes(config, state, base)
    head = linear_head(qwen2_vl_weights.sizes(config).hidden_size, settings.outputs)
    tower = qwen2_vl_weights.assemble(lambda: RewardTower(config, head, specials, positions), state, step, dtype)
    return VideoAlign(tower.to(device), tokenizer, template, settings)


def _tokenizer_folder(step: Path, base: Path) -> Path:
    return step / "tokenizer" if (step / "tokenizer").is_dir() else base

"""HPSv3: how much people would like each frame, given the prompt. Owns loading and scoring of frames, and the mean over
a video's best ones.

Source: HPSv3 (arXiv 2508.03789), package hpsv3 1.0.0; the video protocol is Astrolabe's (arXiv 2603.17051, section 3.4,
and released scorer).
Dimensions: T frame, H, W pixel rows and columns, C colour.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from astro_cli.config.errors import CheckpointError
from astro_cli.models import nesting, tensor_files
from astro_cli.rewards import qwen2_vl_inputs as inputs
from astro_cli.rewards import qwen2_vl_weights, scorer_places, templates
from astro_cli.rewards.qwen2_vl_reward import Positions, RewardTower, ranknet_head

OUTPUTS = 2  # mu and sigma ("loss_type: uncertainty"); the score is mu
BATCH = 4  # frames a pass, as in Astrolabe's scorer
BEST_FRACTION = 0.3
NESTINGS = ("model",)


class HPSv3:
    """Scores frames; unbounded, higher is better, papers show 7.5 to 11 for video."""

    def __init__(self, tower: RewardTower, tokenizer: Any, template: str) -> None:
        self.tower, self.tokenizer, self.template = tower, tokenizer, template

    def score(self, frames_THWC: np.ndarray, prompt: str) -> Tensor:
        """mu (T,) float32 on the CPU of uint8 frames.

        Raises:
            PromptError: the prompt holds a special token's text.

        **Deviations:** None but for those of `RewardTower`.
        """
        text = templates.fill(self.template, prompt)
        scores = [self._batch(frames_THWC[start : start + BATCH], text) for start in range(0, len(frames_THWC), BATCH)]
        return torch.cat(scores)

    def _batch(self, frames_THWC: np.ndarray, text: str) -> Tensor:
        seen = inputs.image_patches(frames_THWC)
        # All frames have one size, so the tokens of one serve all.
        tokens = [inputs.tokenize(self.tokenizer, "image", each, text, self.tower.specials) for each in seen[:1]] * len(
            seen
        )
        out_BKR = self.tower.read("image", torch.tensor(tokens), seen, self.tower.see("image", seen))
        return out_BKR[:, 0, 0].cpu()


def best_mean(scores_T: Tensor, fraction: float = BEST_FRACTION) -> Tensor:
    """Mean of the best max(1, int(fraction T)) frames: transient blur of motion is not punished."""
    return scores_T.topk(max(1, int(fraction * len(scores_T)))).values.mean()


def files() -> tuple[Path, ...]:
    """The files that are read; empty where one is missing."""
    weights, base = scorer_places.find(scorer_places.HPSV3), scorer_places.find(scorer_places.HPSV3_BASE)
    return (
        () if weights is None or base is None else (weights, base / "config.json", base / scorer_places.TOKENIZER_FILE)
    )


def load_hpsv3(
    device: torch.device,
    dtype: torch.dtype = torch.bfloat16,
    positions: Positions = "official",
    *,
    weights: Path | None = None,
    base: Path | None = None,
) -> HPSv3:
    """HPSv3 from its released file and its base model's config.json and tokenizer.

    Args:
        dtype: of the network; bfloat16 as released. The head is float32.
        weights: HPSv3.safetensors (or a torch.save file), flat or below "model"; default below the checkpoints folder.
        base: folder of Qwen2-VL-7B-Instruct; of it no weights are read.

    Raises:
        CheckpointError: missing, damaged, unsafe, or of another model or size.
    """
    if (weights is None or base is None) and (lack := scorer_places.missing_hpsv3()):
        raise CheckpointError("hpsv3", "", "not here", hint=lack)
    file, folder = (
        weights or scorer_places.find(scorer_places.HPSV3),
        base or scorer_places.find(scorer_places.HPSV3_BASE),
    )
    assert file is not None
    assert folder is not None
    tokenizer = qwen2_vl_weights.load_tokenizer(folder, templates.HPSV3_TOKENS)
    config = qwen2_vl_weights.load_config(folder, tokenizer)
    specials = qwen2_vl_weights.token_ids(tokenizer, templates.HPSV3_TOKENS)
    state = qwen2_vl_weights.current_names(_unnested(tensor_files.open_file(file), file))
    if qwen2_vl_weights.LANGUAGE_HEAD not in state:
        raise CheckpointError(
            file, qwen2_vl_weights.LANGUAGE_HEAD, "missing: the released file has it", hint="is the file complete?"
        )
    qwen2_vl_weights.check_sizes(config, state, folder)
    head = ranknet_head(qwen2_vl_weights.sizes(config).hidden_size, OUTPUTS)
    tower = qwen2_vl_weights.assemble(lambda: RewardTower(config, head, specials, positions), state, file, dtype)
    return HPSv3(tower.to(device), tokenizer, templates.hpsv3_template())


def _unnested(content: Mapping[str, Any], file: Path) -> dict[str, tensor_files.LazyTensor]:
    return nesting.unwrap(content, NESTINGS, file, "is it HPSv3.safetensors?")[0]

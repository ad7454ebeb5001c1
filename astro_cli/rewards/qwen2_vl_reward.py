"""A Qwen2-VL with a reward head in place of its language head: pictures or a video and an instruction -> numbers at
special tokens.

Owns the forward pass, positions and pooling. The network is transformers'.
Dimensions: B sample, L token, D width, N patch, K reward token, R output of the head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import Qwen2VLConfig, Qwen2VLModel

from astro_cli.rewards import qwen2_vl_inputs as inputs

Positions = Literal["official", "mrope"]
RANKNET = (1024, 16)  # hidden widths of HPSv3's head
DROPOUT = 0.05
TYPES = {"image": 1, "video": 2}  # transformers' token types; text is 0


def linear_head(width: int, outputs: int) -> nn.Module:
    """VideoAlign's head: one matrix, no bias."""
    return nn.Linear(width, outputs, bias=False)


def ranknet_head(width: int, outputs: int) -> nn.Module:
    """HPSv3's head, `rm_head_type: "ranknet"`: layers 0, 3 and 5 of the sequence have weights."""
    first, second = RANKNET
    return nn.Sequential(
        nn.Linear(width, first),
        nn.ReLU(),
        nn.Dropout(DROPOUT),
        nn.Linear(first, second),
        nn.ReLU(),
        nn.Linear(second, outputs),
    )


class RewardTower(nn.Module):
    """The network; its state is `model.*` in transformers 5's names and `rm_head.*`.

    Args:
        config: sizes; `vocab_size` counts the reward tokens.
        head: kept in float32, as released.
        specials: ids of the reward tokens in the order of the instruction.
        positions: "official" is what the released code does, whose transformers 4.45 computes no mRoPE outside
            `generate`: 0, 1, 2, ... on all three axes, vision tokens too. "mrope" is Qwen2-VL's own.

    Source: HPSv3 (arXiv 2508.03789), VideoAlign (arXiv 2501.13918), and their released code.

    **Deviations:** the language head is left out; samples are batched by equal length instead of padded, so a score
    does not depend on the batch.
    """

    def __init__(
        self, config: Qwen2VLConfig, head: nn.Module, specials: Sequence[int], positions: Positions = "official"
    ) -> None:
        super().__init__()
        self.model = Qwen2VLModel(config)
        self.rm_head = head
        self.specials, self.positions = list(specials), positions

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @torch.no_grad()
    def see(self, kind: inputs.Kind, seen: Sequence[inputs.Patches]) -> list[Tensor]:
        """Vision features (tokens, D) of each picture or video."""
        patches_ND = torch.cat([each.patches_ND for each in seen]).to(self.device)
        grid_B3 = torch.stack([each.grid_3 for each in seen]).to(self.device)
        vision: Any = self.model.get_image_features if kind == "image" else self.model.get_video_features
        return list(vision(patches_ND, grid_B3, return_dict=True).pooler_output)

    @torch.no_grad()
    def read(
        self, kind: inputs.Kind, tokens_BL: Tensor, seen: Sequence[inputs.Patches], features: Sequence[Tensor]
    ) -> Tensor:
        """The head's outputs (B, K, R) float32 at the reward tokens; one picture or video per sample, samples of one
        length.
        """
        tokens_BL = tokens_BL.to(self.device)
        embeds_BLD = self.model.get_input_embeddings()(tokens_BL)
        place_BL = tokens_BL == (
            self.model.config.image_token_id if kind == "image" else self.model.config.video_token_id
        )
        vision_ND = torch.cat(list(features)).to(embeds_BLD.dtype)
        assert int(place_BL.sum()) == len(vision_ND), "as many vision tokens as features"
        embeds_BLD = embeds_BLD.masked_scatter(place_BL[..., None], vision_ND)
        hidden_BLD = self.model.language_model(
            inputs_embeds=embeds_BLD, position_ids=self._positions(kind, tokens_BL, seen), use_cache=False
        ).last_hidden_state
        return self._pool(tokens_BL, hidden_BLD)

    def _positions(self, kind: inputs.Kind, tokens_BL: Tensor, seen: Sequence[inputs.Patches]) -> Tensor:
        """(3, B, L) positions along time, rows and columns."""
        count, length = tokens_BL.shape
        if self.positions == "official":
            return torch.arange(length, device=self.device).view(1, 1, -1).expand(3, count, -1)
        pad = self.model.config.image_token_id if kind == "image" else self.model.config.video_token_id
        grid_B3 = torch.stack([each.grid_3 for each in seen]).to(self.device)
        grids = {"image_grid_thw": grid_B3} if kind == "image" else {"video_grid_thw": grid_B3}
        rope_index: Any = self.model.get_rope_index  # annotated for long tensors only
        return rope_index(tokens_BL, mm_token_type_ids=(tokens_BL == pad).int() * TYPES[kind], **grids)[0]

    def _pool(self, tokens_BL: Tensor, hidden_BLD: Tensor) -> Tensor:
        count, wanted = len(tokens_BL), torch.tensor(self.specials, device=self.device)
        place_BL = torch.isin(tokens_BL, wanted)
        assert bool((place_BL.sum(1) == len(wanted)).all()), "every sample holds each reward token once"
        rewards_BK = tokens_BL[place_BL].view(count, -1)
        assert bool((rewards_BK == wanted).all()), "reward tokens in the order of the instruction"
        return self.rm_head(hidden_BLD[place_BL].view(count, len(wanted), -1).float())

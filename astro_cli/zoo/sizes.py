"""How many parameters the released networks have, by their released configs. Free of torch."""

from __future__ import annotations

WAN_1_3B_PARAMETERS = 1_418_996_800  # Wan 2.1 T2V 1.3B, and every student made from it
UMT5_PARAMETERS = (
    5_680_910_336  # google/umt5-xxl, encoder: vocabulary 256384, width 4096, feed-forward 10240, 24 layers
)
VAE_PARAMETERS = 126_892_531  # Wan 2.1: AutoencoderKLWan's defaults
# Language heads are not counted: VideoAlign's and HPSv3's are not loaded.
HPSV3_PARAMETERS = (
    7_748_610_610  # Qwen2-VL-7B without its language head (vocabulary 151658), RankNet head of two outputs
)
VIDEOALIGN_PARAMETERS = 2_208_563_200  # Qwen2-VL-2B (vocabulary 151660), a linear head of one output

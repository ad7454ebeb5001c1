"""Expected memory: the networks' real parameter counts, at the dtype each is loaded in."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from torch import nn
from transformers import Qwen2VLConfig, UMT5Config, UMT5EncoderModel

from astro_cli.recipe import load_recipe
from astro_cli.rewards.qwen2_vl_reward import RewardTower, linear_head, ranknet_head
from astro_cli.training import footprint
from astro_cli.training.build import dry_run_counts
from astro_cli.training.footprint import expected_bytes


def memory(name: str, *sets: str) -> dict[str, int]:
    recipe = load_recipe(name, list(sets))
    return expected_bytes(recipe, dry_run_counts(recipe))


def size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def qwen(width: int, heads: int, groups: int, inner: int, words: int) -> Qwen2VLConfig:
    vision = {
        "depth": 32,
        "embed_dim": 1280,
        "hidden_size": width,
        "num_heads": 16,
        "mlp_ratio": 4,
        "patch_size": 14,
        "in_channels": 3,
    }
    text = {
        "num_hidden_layers": 28,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "intermediate_size": inner,
        "vocab_size": words,
    }
    return Qwen2VLConfig.from_dict({"model_type": "qwen2_vl", "hidden_size": width, **text, "vision_config": vision})


def test_the_counts_are_those_of_networks_of_the_released_sizes():
    with torch.device("meta"):
        text = UMT5EncoderModel(
            UMT5Config(vocab_size=256384, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64)
        )
        hpsv3 = RewardTower(qwen(3584, 28, 4, 18944, 151658), ranknet_head(3584, 2), [0])
        videoalign = RewardTower(qwen(1536, 12, 2, 8960, 151660), linear_head(1536, 1), [0])
        assert size(AutoencoderKLWan()) == footprint.VAE_PARAMETERS
    assert size(text) == footprint.UMT5_PARAMETERS
    assert size(hpsv3) == footprint.HPSV3_PARAMETERS
    assert size(videoalign) == footprint.VIDEOALIGN_PARAMETERS


@pytest.fixture(autouse=True)
def _no_weights(monkeypatch, tmp_path):
    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(tmp_path))


def test_a_frozen_base_and_its_cache_are_halved_by_bf16_but_not_the_adapters():
    recipe = load_recipe("astrolabe_causal", [])
    trainable, total = dry_run_counts(recipe)["student"]
    half, whole = memory("astrolabe_causal"), memory("astrolabe_causal", "runtime.precision=no")
    base = total - 3 * trainable
    assert half["frozen weights"] == 2 * base + 2 * 4 * trainable  # theta_old and theta_ref are float32
    assert whole["frozen weights"] == 4 * base + 2 * 4 * trainable
    cache = "cache of 4 videos"
    assert whole[cache] == 2 * half[cache] == 4 * 2 * 30 * 21 * (60 // 2) * (104 // 2) * 1536 * 4
    assert half["trained weights and optimiser"] == whole["trained weights and optimiser"] == 16 * trainable


def test_all_that_rl_on_wan_loads_is_counted():
    parts = memory("astrolabe_causal")
    assert parts["UMT5"] == 4 * footprint.UMT5_PARAMETERS
    assert parts["VAE"] == 4 * footprint.VAE_PARAMETERS
    assert parts["HPSv3"] == 2 * footprint.HPSV3_PARAMETERS
    assert parts["VideoAlign"] == 2 * footprint.VIDEOALIGN_PARAMETERS


def test_the_original_text_encoder_is_bfloat16(tmp_path):
    (tmp_path / "Wan2.1-T2V-1.3B").mkdir()
    assert memory("astrolabe_causal")["UMT5"] == 2 * footprint.UMT5_PARAMETERS


def test_only_scorers_of_rewards_that_are_scored_are_counted():
    parts = memory(
        "astrolabe_causal", "stages.nft.experience.rewards={mq=1.0,ta=1.0}", "stages.nft.experience.primary=mq"
    )
    assert "VideoAlign" in parts
    assert "HPSv3" not in parts


def test_weights_that_are_all_trained_stay_float32_and_the_teacher_does_not():
    whole, half = (memory("self_forcing_shapes", f"runtime.precision={precision}") for precision in ("no", "bf16"))
    assert whole.pop("frozen weights") == 2 * half.pop("frozen weights") > 0  # the teacher
    assert whole == half
    assert whole["codec"] > 0


def test_the_cache_of_a_rollout_that_is_longer_than_the_videos_is_counted():
    short, long = (memory("self_forcing_shapes", *each) for each in ((), ["stages.dmd.objective.rollout_frames=18"]))
    assert long["cache of 32 videos"] == 2 * short["cache of 32 videos"] > 0


def test_the_clips_of_pairs_are_counted_in_all_their_forms():
    recipe, parts = load_recipe("dpo_mixed_shapes", []), memory("dpo_mixed_shapes")
    cells = 9 * 8 * 8 + 5 * 8 * 8 + 5 * 12 * 12
    assert parts["latents of clips"] == 2 * 384 * cells * recipe.model.in_channels * 4  # chosen and rejected, float32
    tokens, rollouts = 5 * 6 * 6, 16 * 4  # the largest form in patches of 2 x 2; pairs of a step times a group
    per_token = 2 * recipe.model.num_layers * recipe.model.dim * 4
    assert recipe.model.patch == (2, 2)
    assert parts[f"cache of {rollouts} videos"] == rollouts * tokens * per_token


def test_pairs_of_rollouts_alone_keep_no_pool():
    recipe, parts = load_recipe("dpo_hard_shapes", []), memory("dpo_hard_shapes")
    stage, video = recipe.stages["dpo"], recipe.video
    cells = video.frames * video.height * video.width
    assert parts["latents of clips"] == 2 * stage.batch * cells * recipe.model.in_channels * 4

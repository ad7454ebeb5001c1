"""TeleBoost's stage II (arXiv 2602.07595): its Wan recipes carry the paper's values, its embedded ones the method."""

from __future__ import annotations

import pytest

from astro_cli.recipe import load_recipe

BPGO = ("grpo_noisy", "bpgo", "bpgo_ras", "bpgo_crt")
SELF_PACED = ("grpo", "joint_grpo", "self_paced", "self_paced_7b", "self_paced_72b")
LARGE = ("grpo_14b", "vipo_14b", "self_paced_72b_14b")
VIDEOALIGN = {"videoalign.vq", "videoalign.mq"}
METHODS = ("grpo", "vipo", "bpgo", "self_paced", "min_norm", "joint_grpo")


@pytest.mark.parametrize(("names", "group", "steps"), [(BPGO, 8, 200), (SELF_PACED, 8, 220), (LARGE, 32, 100)])
def test_wan_recipes_have_the_papers_group_and_steps(names, group, steps):
    for name in names:
        stage = load_recipe(name).stages["grpo"]
        assert stage.experience is not None
        assert (stage.experience.group, stage.steps) == (group, steps), name


@pytest.mark.parametrize("name", [*BPGO, *SELF_PACED, *LARGE, "vipo", "min_norm"])
def test_wan_recipes_align_the_bidirectional_model_with_dancegrpos_sampler(name):
    recipe = load_recipe(name)
    assert (recipe.backbone, recipe.policy, recipe.sampler.kind) == ("wan", "bidirectional", "dance")
    assert (len(recipe.sampler.steps), recipe.sampler.shift, recipe.teacher.guidance) == (16, 5.0, 5.0)
    assert (recipe.model.num_layers == 40) == name.endswith("14b")
    assert recipe.stages["grpo"].objective["old"] == "replayed"  # in bfloat16
    experience = recipe.stages["grpo"].experience
    assert experience is not None
    assert experience.updates == 1


def rewards(name: str) -> set[str]:
    experience = load_recipe(name).stages["grpo"].experience
    assert experience is not None
    return set(experience.rewards)


def test_wan_recipes_train_on_the_papers_rewards():
    assert all(rewards(name) == {"videoclip_xl"} for name in BPGO)  # section 7.3.3
    assert rewards("vipo_14b") == rewards("grpo_14b") == VIDEOALIGN  # section 7.3.4
    assert rewards("joint_grpo") == rewards("self_paced") == rewards("grpo") == VIDEOALIGN | {"videoalign.ta"}
    for name, model in (("self_paced_7b", "7B"), ("self_paced_72b", "72B"), ("self_paced_72b_14b", "72B")):
        experience = load_recipe(name).stages["grpo"].experience
        assert experience is not None
        assert {key.partition(".")[0] for key in experience.rewards} == {"qwen_judge"}
        assert experience.scorers["qwen_judge"]["model"] == f"Qwen2.5-VL-{model}-Instruct"


@pytest.mark.parametrize("method", METHODS)
def test_embedded_recipes_differ_from_grpo_in_the_credit_alone(method):
    """On either policy: same clips, optimiser and objective, so that a difference is the rule's."""
    for policy in ("", "_streaming"):
        plain, own = (load_recipe(f"{name}{policy}_shapes") for name in ("grpo", method))
        assert plain.model_copy(update={"name": "", "stages": {}}) == own.model_copy(update={"name": "", "stages": {}})
        a, b = plain.stages["grpo"], own.stages["grpo"]
        assert (a.objective, a.optim, a.steps, a.batch) == (b.objective, b.optim, b.steps, b.batch)
        assert a.experience is not None
        assert b.experience is not None
        changed = {"advantage": {}, "rewards": {}}
        assert a.experience.model_copy(update=changed) == b.experience.model_copy(update=changed)


def test_nft_and_grpo_align_the_same_student_on_the_same_clips():
    grpo, nft = load_recipe("grpo_streaming_shapes"), load_recipe("astrolabe_causal_shapes")
    assert (grpo.base, grpo.sampler, grpo.cache, grpo.lora) == (nft.base, nft.sampler, nft.cache, nft.lora)
    ours, theirs = grpo.stages["grpo"], nft.stages["nft"]
    assert ours.optim == theirs.optim
    assert (ours.steps, ours.batch) == (theirs.steps, theirs.batch)
    assert ours.experience is not None
    assert theirs.experience is not None
    assert ours.experience.model_copy(update={"primary": "vq"}) == theirs.experience


def test_wan_preference_recipes_have_the_papers_values():
    for name in ("dpo_temporal", "dpo_joint", "dpo_decoupled", "dpo_human", "dpo_hard"):
        recipe = load_recipe(name, command="prefer")
        assert (recipe.backbone, recipe.policy, recipe.sampler.shift) == ("wan", "bidirectional", 5.0)
        assert (recipe.video.frames, recipe.video.height, recipe.video.width) == (13, 60, 104)  # 49 x 480 x 832
        objective = recipe.stages["dpo"].objective
        assert (objective["sigma_min"], objective["sigma_max"]) == (0.9, 1.0)
        assert objective["anneal"] < 1  # section 4.3
    temporal = load_recipe("dpo_temporal").stages["dpo"].pairs
    assert temporal is not None
    assert temporal.used == ("reverse", "shuffle", "freeze")  # section 4.2
    assert {4 * form.frames - 3 for form in temporal.forms} == {33, 49}  # section 4.3: 2 s at 16 a second


@pytest.mark.parametrize("suffix", ["", "_shapes"])
def test_decoupled_and_joint_preference_differ_in_the_gradient_alone(suffix):
    joint, decoupled = (load_recipe(f"dpo_{name}{suffix}") for name in ("joint", "decoupled"))
    both = [recipe.model_copy(update={"name": "", "stages": {}}) for recipe in (joint, decoupled)]
    assert both[0] == both[1]
    one, two = (recipe.stages["dpo"] for recipe in (joint, decoupled))
    assert one.objective | {"gradient": "decoupled_recompute"} == two.objective
    assert one.model_copy(update={"objective": {}}) == two.model_copy(update={"objective": {}})


@pytest.mark.parametrize("suffix", ["", "_shapes"])
def test_plain_and_reweighted_fine_tuning_differ_in_the_weight_alone(suffix):
    plain, geometry = (load_recipe(f"{name}{suffix}", command="sft") for name in ("sft", "sft_geometry"))
    both = [recipe.model_copy(update={"name": "", "stages": {}}) for recipe in (plain, geometry)]
    assert both[0] == both[1]
    one, two = (recipe.stages["sft"] for recipe in (plain, geometry))
    assert one.objective | {"structure": "prediction", "strength": 1.0, "sigma": 0.7} == two.objective
    assert one.model_copy(update={"objective": {}}) == two.model_copy(update={"objective": {}})


def test_wan_fine_tuning_has_the_released_runs_clips():
    for name in ("sft", "sft_geometry"):
        recipe = load_recipe(name)
        assert (recipe.backbone, recipe.policy, recipe.sampler.shift) == ("wan", "bidirectional", 5.0)
        assert (recipe.video.frames, recipe.video.height, recipe.video.width) == (13, 60, 104)  # 49 x 480 x 832
        assert recipe.lora is None  # all weights, as section 2 says nothing of adapters


def test_embedded_fine_tuning_shows_panning_cameras():
    assert load_recipe("sft_geometry_shapes").stages["sft"].data.pan > 0


@pytest.mark.parametrize("suffix", ["", "_shapes"])
def test_the_flow_branch_trains_the_decoder_alone(suffix):
    recipe = load_recipe(f"sft_flow{suffix}", command="sft")
    (stage,) = recipe.stages.values()
    assert set(stage.optim) == {"decoder"}
    assert stage.objective["flow_weight"] > 0
    assert recipe.runtime.precision == "no"  # the transformer's weights are written as they were read

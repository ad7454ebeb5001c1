"""The shipped recipes: each is valid, and Astrolabe's carry the paper's values (arXiv 2603.17051, Table S1 and section
4.1).
"""

from __future__ import annotations

import re

import pytest

from astro_cli.config import toml
from astro_cli.config.errors import RecipeError
from astro_cli.recipe import load_recipe
from astro_cli.sampling.kernel import Kernel
from astro_cli.spec import SamplerSpec
from astro_cli.training.build import stream_spec
from astro_cli.training.release import describe
from eval.studies.catalog import STUDIES

SHIPPED = toml.list_recipes()
WAN = ("astrolabe_causal", "astrolabe_self_forcing", "astrolabe_longlive")
KREA = "astrolabe_krea"
PIXELS_PER_CELL = 8  # Wan 2.1's VAE


def by_stem(paths):
    return pytest.mark.parametrize("path", paths, ids=[path.stem for path in paths])


def test_there_are_recipes():
    assert {*WAN, *(f"{name}_shapes" for name in WAN)} <= {path.stem for path in SHIPPED}


@by_stem(SHIPPED)
def test_every_shipped_recipe_is_valid(path):
    recipe = load_recipe(str(path))
    assert recipe.name == path.stem  # `--recipe NAME` and runs/NAME are the same word


@by_stem(SHIPPED)
def test_every_shipped_recipe_opens_with_a_sentence(path):
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ")
    assert first.endswith(".")


@pytest.mark.parametrize("name", [*WAN, KREA])
def test_wan_recipes_carry_table_s1(name):
    recipe = load_recipe(name)
    assert (recipe.command, recipe.backbone, recipe.order) == ("rl", "wan", ("nft",))
    assert (recipe.video.height * PIXELS_PER_CELL, recipe.video.width * PIXELS_PER_CELL) == (480, 832)
    assert (recipe.video.height, recipe.video.width) == (60, 104)
    assert recipe.lora is not None
    assert (recipe.lora.rank, recipe.lora.alpha, recipe.lora.dropout) == (256, 256, 0.0)
    assert (recipe.runtime.precision, recipe.runtime.gradient_checkpointing) == ("bf16", True)
    assert (recipe.sampler.steps, recipe.sampler.shift) == ((1000, 750, 500, 250), 5.0)


@pytest.mark.parametrize("name", [*WAN, KREA])
def test_wan_recipes_optimise_as_table_s1(name):
    stage = load_recipe(name).stages["nft"]
    optim = stage.optim["student"]
    assert (optim.lr, optim.betas, optim.weight_decay, optim.eps, optim.clip) == (1e-5, (0.9, 0.999), 1e-4, 1e-8, 1.0)
    assert (optim.warmup, optim.decay, optim.every) == (0, "constant", 1)
    assert stage.objective == {
        "kind": "nft",
        "beta": 1.0,
        "advantage_max": 5.0,
        "old_decay": 0.9,
        "kl": "selective",
        "kl_weight": 1e-4,
        "reference": "reset",
        "kl_threshold": 0.15,
        "kl_patience": 15,
    }


@pytest.mark.parametrize("name", [*WAN, KREA])
def test_wan_recipes_collect_as_section_4_1(name):
    stage = load_recipe(name).stages["nft"]
    assert stage.experience is not None
    assert (stage.experience.prompts, stage.experience.group) == (48, 24)
    assert stage.batch == 48 * 24
    assert stage.experience.advantage == {"kind": "group", "scale": "global"}  # "Global Std with Per-Prompt Tracking"
    assert stage.experience.rewards == {"vq": 1.0, "mq": 1.0, "ta": 1.0}


@pytest.mark.parametrize(
    ("name", "window", "sink"),
    [("astrolabe_self_forcing", 21, 3), ("astrolabe_longlive", 15, 3), ("astrolabe_causal", None, 0)],
)
def test_wan_recipes_stream_as_table_s1(name, window, sink):
    cache = load_recipe(name).cache
    assert (cache.window, cache.sink) == (
        window,
        sink,
    )  # Table S1 gives no window for Causal-Forcing: it sees all it has made


EXPERIENCE, OBJECTIVE = "stages.nft.experience.", "stages.nft.objective."
ABLATED = {  # row of Table 4, Figure 7b or 8b -> what it changes of the whole method, astrolabe_causal
    "seq_detach": {EXPERIENCE + "clip": 0},
    "seq_full": {EXPERIENCE + "clip": 0, OBJECTIVE + "context": "full"},
    "clip_full": {OBJECTIVE + "context": "full"},
    "no_kl": {OBJECTIVE + "kl": "none", OBJECTIVE + "reference": "fixed"},
    "uniform_low": {
        OBJECTIVE + "kl": "uniform",
        OBJECTIVE + "reference": "fixed",
    },  # at 1e-4, the whole method's weight
    "uniform_high": {OBJECTIVE + "kl": "uniform", OBJECTIVE + "reference": "fixed", OBJECTIVE + "kl_weight": 5e-4},
    "vq": {EXPERIENCE + "rewards.mq": 0.0, EXPERIENCE + "rewards.ta": 0.0},
    "mq": {EXPERIENCE + "rewards.vq": 0.0, EXPERIENCE + "rewards.ta": 0.0, EXPERIENCE + "primary": "mq"},
    "ta": {EXPERIENCE + "rewards.vq": 0.0, EXPERIENCE + "rewards.mq": 0.0, EXPERIENCE + "primary": "ta"},
    "vq_mq": {EXPERIENCE + "rewards.ta": 0.0},
    "vq_ta": {EXPERIENCE + "rewards.mq": 0.0},
    "mq_ta": {EXPERIENCE + "rewards.vq": 0.0, EXPERIENCE + "primary": "mq"},
    "beta_low": {OBJECTIVE + "beta": 0.1},
    "x0": {OBJECTIVE + "space": "x0"},
    "adaptive": {OBJECTIVE + "space": "x0", OBJECTIVE + "adaptive": True},
}


def flat(fields, key=""):
    if isinstance(fields, dict):
        return {
            name: value
            for part, subfields in fields.items()
            for name, value in flat(subfields, f"{key}.{part}" if key else part).items()
        }
    return {key: fields}


@pytest.mark.parametrize("row", ABLATED)
def test_an_ablation_on_wan_changes_what_its_row_says_and_nothing_else(row):
    whole, ablated = (flat(load_recipe(name).model_dump()) for name in ("astrolabe_causal", f"astrolabe_{row}"))
    changed = {key: value for key, value in ablated.items() if key not in whole or whole[key] != value}
    assert changed == ABLATED[row] | {"name": f"astrolabe_{row}"}
    assert whole.keys() <= ablated.keys()


def test_krea_has_the_sizes_of_wan_14b():
    model = load_recipe(KREA).model
    assert (model.dim, model.ffn_dim, model.num_heads, model.num_layers) == (5120, 13824, 40, 40)


@pytest.mark.parametrize(("name", "frames"), [("astrolabe_long", 240), ("astrolabe_long_shapes", 60)])
def test_long_tuning_trains_windows_of_one_clip(name, frames):
    recipe = load_recipe(name, command="long-tune")
    experience = recipe.stages["nft"].experience
    assert experience is not None
    assert (experience.window, experience.frames) == ("random", frames)
    assert experience.clip == recipe.video.frames
    assert recipe.cache.window is not None


def test_the_recorded_studies_keep_their_hash():
    """Records and runs name it: an option that comes later must be off by default, and what changes these recipes needs
    the study run again.
    """
    assert load_recipe("astrolabe_causal_shapes").hash() == "53591c01be3b8142"
    assert load_recipe("astrolabe_self_forcing_shapes").hash() == "5d0ab2685a4b2855"


@pytest.mark.parametrize("name", WAN)
def test_shapes_counterparts_keep_the_method(name):
    wan, shapes = load_recipe(name), load_recipe(f"{name}_shapes")
    assert (shapes.command, shapes.backbone, shapes.paper, shapes.order) == ("rl", "shapes", wan.paper, wan.order)
    stage = shapes.stages["nft"]
    assert (stage.kind, stage.objective["beta"]) == ("nft", 1.0)
    assert all(stage.objective[key] == wan.stages["nft"].objective[key] for key in ("kl", "reference", "kl_patience"))
    assert stage.experience is not None
    assert stage.experience.advantage["kind"] == "group"
    assert stage.experience.rewards == {"vq": 3.0, "mq": 1.0, "ta": 2.0}  # ours: equal spread within a group
    assert stage.experience.primary == "vq"
    assert 0 < stage.experience.clip < shapes.video.frames  # candidates on a shared history
    assert stage.batch == stage.experience.prompts * stage.experience.group
    assert (len(shapes.sampler.steps), len(wan.sampler.steps)) == (6, 4)  # ours: six, by measurement
    assert shapes.video.block == wan.video.block
    assert shapes.lora is not None


def test_the_hash_names_what_is_computed_not_how_or_its_name():
    plain = load_recipe("astrolabe_causal_shapes").hash()
    assert load_recipe("astrolabe_causal_shapes", ["name=other", "runtime.save_every=1"]).hash() == plain
    shown = [f"stages.nft.experience.{key}" for key in ("samples_every=3", "collapse.stop=true", "collapse.falling=2")]
    assert (
        load_recipe("astrolabe_causal_shapes", shown).hash() == plain
    )  # so a run that collapsed goes on where it stopped
    assert load_recipe("astrolabe_causal_shapes", ["seed=1"]).hash() != plain


@pytest.mark.parametrize(("name", "rule", "says"), [
    ("self_forcing_ode_shapes", 'policy="ema"', "cache.policy: found 'ema', expected 'fixed'"),
    ("causal_forcing_shapes", "relative=true", "cache.relative: found true, expected false"),
    ("astrolabe_causal_shapes", 'policy="ema"', "cache.policy: found 'ema', expected 'fixed'"),
])  # fmt: skip
def test_a_cache_that_whole_clip_passes_cannot_show_is_refused(name, rule, says):
    with pytest.raises(RecipeError, match=re.escape(says)):
        load_recipe(name, ["cache.window=6", "cache.sink=3", f"cache.{rule}"])
    load_recipe(
        name, ["cache.window=9", "cache.sink=3", f"cache.{rule}"]
    )  # nothing leaves the window of a 9-frame clip
    load_recipe(name, ["cache.window=6", f"cache.{rule}"])  # no sink for the rule to move or blend into


def test_an_ema_sink_is_trained_on_rollouts():
    assert load_recipe("longlive_shapes", ['cache.policy="ema"', "cache.relative=true"]).cache.policy == "ema"


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("stages.nft.experience.rewards.vq=-1", "rewards.vq: found -1.0, expected a weight of 0 or more"),
        ("stages.nft.experience.rewards={}", "rewards: all weights are zero"),
        ("stages.nft.experience.rewards={vq=0.0}", "rewards: all weights are zero"),
        ("stages.nft.experience.rewards.vq=inf", "found inf, expected a finite number"),
        (
            "sampler.steps=[1000, 2000]",
            "sampler.steps: found [1000.0, 2000.0], expected strictly falling steps in (0, 1000]",
        ),
        ("sampler.steps=[250, 1000]", "sampler.steps: found [250.0, 1000.0]"),
        ("sampler.steps=[1000, 1000]", "sampler.steps: found [1000.0, 1000.0]"),
        ("sampler.steps=[1000, 0]", "sampler.steps: found [1000.0, 0.0]"),
        ("sampler.kind=dance", "sampler.noise: missing, 'dance' needs its noise level"),
        ("sampler.noise=0.5", "sampler.noise: found 0.5, 'renoise' has no noise level: leave it out"),
    ],
)
def test_weights_and_steps_out_of_range_are_refused(override, says):
    with pytest.raises(RecipeError, match=re.escape(says)):
        load_recipe("astrolabe_causal_shapes", [override])


@pytest.mark.parametrize(("overrides", "says"), [
    (["sampler.kind=cps", "sampler.noise=1.5"], "sampler.noise: found 1.5, expected a number from 0 to 1"),
    (["sampler.kind=flow", "sampler.noise=-1"], "sampler.noise: found -1.0, expected 0 or more"),
    (["sampler.kind=ddim"], "sampler.kind: found 'ddim', expected 'renoise', 'cps', 'dance', 'flow' or 'ode'"),
])  # fmt: skip
def test_kernels_that_do_not_exist_are_refused(overrides, says):
    with pytest.raises(RecipeError, match=re.escape(says)):
        load_recipe("astrolabe_causal_shapes", overrides)


def test_the_kernel_is_the_recipes_and_without_one_the_recipe_is_as_before():
    """The hash of the packaged recipe is pinned above; naming the default changes nothing, another kernel does."""
    plain = load_recipe("astrolabe_causal_shapes")
    assert plain.sampler.kernel() == Kernel("renoise")
    assert load_recipe("astrolabe_causal_shapes", ["sampler.kind=renoise"]).hash() == plain.hash()
    danced = load_recipe("astrolabe_causal_shapes", ["sampler.kind=dance", "sampler.noise=0.3"])
    assert danced.hash() != plain.hash()
    assert stream_spec(danced).kernel == Kernel("dance", 0.3)
    card = describe(danced, "student")  # and its weights are sampled with it
    assert SamplerSpec(**card["sampler"]).kernel() == Kernel("dance", 0.3)


def test_rewards_given_whole_are_the_only_ones():
    """So a selective penalty without a reward that judges the primary one is refused from the command line too."""
    alone = "stages.nft.experience.rewards={vq=1.0}"
    spec = load_recipe(
        "astrolabe_no_kl_shapes",
        [alone, "stages.nft.experience.primary=vq", "stages.nft.experience.rewards={vq=1.0, mq=0.0}"],
    )
    assert spec.stages["nft"].experience.rewards == {"vq": 1.0, "mq": 0.0}
    with pytest.raises(RecipeError, match="no auxiliary reward beside 'vq'"):
        load_recipe("astrolabe_all_shapes", [alone])


def test_each_use_of_the_teacher_has_its_own_guidance():
    """Wan 2.1 samples 50 steps at scale 5; DMD compares scores at 4; ODE pairs say theirs, since Wan's are of no use
    elsewhere.
    """
    wan = load_recipe("astrolabe_causal")
    assert (wan.teacher.steps, wan.teacher.guidance) == (50, 5.0)
    assert load_recipe("self_forcing_ode_shapes").stages["ode"].objective["guidance"] == 2.0
    with pytest.raises(RecipeError, match=re.escape("stages.ode.objective.guidance: missing")):
        load_recipe("self_forcing_ode_shapes", ['stages.ode.objective={kind="ode", steps=24}'])


@pytest.mark.parametrize(
    ("recipe", "table", "value"),
    [
        ("grpo_streaming_shapes", "stages.grpo.pairs", "{kinds={reverse=1.0}}"),
        ("dpo_temporal_shapes", "stages.dpo.experience", "{prompts=4, group=4, rewards={vq=1.0}}"),
        ("self_forcing_shapes", "stages.dmd.pairs", "{kinds={reverse=1.0}}"),
    ],
)
def test_a_table_that_the_stage_would_ignore_is_refused(recipe, table, value):
    with pytest.raises(RecipeError, match=f"{table}: found a table, .* reads none"):
        load_recipe(recipe, [f"{table}={value}"])


@pytest.mark.parametrize("paper", STUDIES)
def test_a_study_compares_a_run_with_the_base_it_starts_from(paper):
    for base, recipe in STUDIES[paper].pairs:
        assert load_recipe(recipe).base.student == base

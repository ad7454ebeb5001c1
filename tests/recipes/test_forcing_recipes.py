"""The recipes of Reward Forcing, long tuning and Delta Forcing: the papers' values, what each row changes, and what is
refused before any weights.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from astro_cli.config.errors import RecipeError
from astro_cli.recipe import load_recipe
from astro_cli.training.sequences import read_pairs

OBJECTIVE = "stages.dmd.objective."
REWARD_FORCING = {  # row of Table 3 or Figure 6 -> what it changes of the whole method
    "alpha_0_99": {"cache.alpha": 0.99},
    "alpha_0_9": {"cache.alpha": 0.9},
    "alpha_0_5": {"cache.alpha": 0.5},
    "beta_1": {OBJECTIVE + "beta": 1.0},
    "beta_2_3": {OBJECTIVE + "beta": pytest.approx(2 / 3)},
    "beta_1_3": {OBJECTIVE + "beta": pytest.approx(1 / 3)},
    "beta_1_5": {OBJECTIVE + "beta": 0.2},
    "wo_redmd": {OBJECTIVE + "kind": "dmd", OBJECTIVE + "reward": None, OBJECTIVE + "beta": None},
}
REWARD_FORCING["wo_ema"] = REWARD_FORCING["wo_redmd"] | {"cache.policy": "fixed", OBJECTIVE + "sink_gradient": False}
REWARD_FORCING["wo_sink"] = REWARD_FORCING["wo_ema"] | {"cache.sink": 0}


def flat(fields: object, key: str = "") -> dict[str, object]:
    if not isinstance(fields, dict):
        return {key: fields}
    found = dict[str, object]()
    for part, inner in fields.items():
        found |= flat(inner, f"{key}.{part}" if key else part)
    return found


def changes(whole: str, row: str) -> dict[str, object]:
    """Values of a row that differ from the whole method's; None: it has none."""
    before, after = (flat(load_recipe(name).model_dump()) for name in (whole, row))
    keys = [key for key in before | after if before.get(key) != after.get(key) and key != "name"]
    return {key: after.get(key) for key in keys}


@pytest.mark.parametrize("suffix", ["", "_shapes"])
@pytest.mark.parametrize("row", REWARD_FORCING)
def test_a_row_of_reward_forcing_changes_what_it_says_and_nothing_else(row, suffix):
    """Components are removed one after the other."""
    assert changes(f"reward_forcing{suffix}", f"reward_forcing_{row}{suffix}") == REWARD_FORCING[row]


@pytest.mark.parametrize(("suffix", "windows"), [("", (21, 15, 9)), ("_shapes", (15, 12, 9))])
def test_the_windows_of_figure_6(suffix, windows):
    names = (f"reward_forcing_window_21{suffix}", f"reward_forcing_window_15{suffix}", f"reward_forcing{suffix}")
    assert tuple(load_recipe(name).cache.window for name in names) == windows


def test_reward_forcing_on_wan_carries_section_4():
    recipe = load_recipe("reward_forcing")
    stage = recipe.stages["dmd"]
    assert (recipe.cache.window, recipe.cache.sink, recipe.cache.policy, recipe.cache.relative) == (9, 3, "ema", True)
    assert (recipe.video.block, recipe.sampler.steps, recipe.sampler.shift) == (3, (1000, 750, 500, 250), 5.0)
    assert (stage.steps, stage.batch) == (600, 64)
    assert (stage.optim["student"].lr, stage.optim["critic"].lr, stage.optim["student"].every) == (2e-6, 4e-7, 5)
    assert stage.objective == {
        "kind": "re_dmd",
        "reward": "mq",
        "beta": 0.5,
        "guidance": 4.0,
        "sink_gradient": True,
    }
    teacher, student = recipe.model_of("teacher"), recipe.model_of("student")
    assert (teacher.dim, teacher.num_layers, student.dim, student.num_layers) == (5120, 40, 1536, 30)


@pytest.mark.parametrize(
    ("recipe", "override", "says"),
    [
        ("reward_forcing_shapes", OBJECTIVE + "beta=0", "beta: found 0, expected greater than 0"),
        ("reward_forcing_shapes", OBJECTIVE + "beta=-1.0", "beta: found -1.0, expected greater than 0"),
        ("reward_forcing_shapes", OBJECTIVE + "reward=hps", "reward: found 'hps', expected 'vq', 'mq' or 'ta'"),
        ("reward_forcing_shapes", OBJECTIVE + "center=prompt", "data.samples: found 1, expected 2 or more with center"),
        ("reward_forcing_shapes", "stages.dmd.data.samples=3", "stages.dmd.batch: found 32, expected accumulate x"),
        ("reward_forcing_wo_ema_shapes", OBJECTIVE + "sink_gradient=true", "sink_gradient: found true, expected false"),
        ("reward_forcing_shapes", OBJECTIVE + "rollout_frames=14", "rollout_frames: found 14, expected a multiple of"),
        ("reward_forcing_shapes", OBJECTIVE + "rollout_frames=0", "rollout_frames: found 0, expected greater than 0"),
        ("reward_forcing_shapes", "cache.window=3", "cache.sink: found 3, expected fewer frames than the window (3)"),
        ("self_forcing_shapes", "stages.dmd.data.clips=x", "stages.dmd.data.clips: found 'x', expected none"),
        ("astrolabe_causal_shapes", "stages.nft.data.samples=2", "stages.nft.data.samples: found 2, expected 1"),
        ("teacher_shapes", "stages.clips.data.samples=2", "stages.clips.data.samples: found 2, expected 1"),
    ],
)
def test_what_reward_forcing_cannot_use_is_refused(recipe, override, says):
    with pytest.raises(RecipeError, match=re.escape(says)):
        load_recipe(recipe, [override])


def test_the_released_rule_has_no_centre():
    with pytest.raises(RecipeError, match=re.escape('rule: found "released", expected "paper" with center or clamp')):
        load_recipe("reward_forcing_shapes", [OBJECTIVE + "rule=released", OBJECTIVE + "clamp=2.0"])


TUNING = "stages.long_tuning.objective."


@pytest.mark.parametrize(
    ("recipe", "override", "says"),
    [
        ("long_tuning_shapes", TUNING + "overlap=4", "overlap: found 4, expected a multiple of video.block (3)"),
        ("long_tuning_shapes", TUNING + "overlap=9", "overlap: found 9, expected a multiple of video.block (3) below"),
        ("long_tuning_shapes", TUNING + "frames=14", "frames: found 14, expected at least 15: a chunk for each"),
        ("long_tuning_shapes", TUNING + "rollout_frames=9", "rollout_frames: found 9, expected none: a chunk has"),
        ("long_tuning_shapes", "cache={}", "cache.window: missing, long tuning needs a window"),
        ("long_tuning_shapes", "cache.window=5", "cache.window: found 5, expected at least 6 (sink 3 + block 3)"),
        ("long_tuning_shapes", "stages.long_tuning.data.samples=2", "data.samples: found 2, expected 1"),
        ("long_tuning_shapes", "stages.long_tuning.data.drop=0.1", "data.drop: found 0.1, expected none"),
        ("long_tuning_shapes", "stages.long_tuning.data.captions=9", "data.captions: found 9, expected none"),
        ("delta_forcing_shapes", TUNING + "mu=0.5", "s: missing, give it beside mu"),
        ("delta_forcing_shapes", TUNING + "phi=clip", "phi: found 'clip', expected 'codec', 'teacher', 'dinov2' or"),
        ("delta_forcing_wo_cont_shapes", TUNING + "trust=false", "trust: found false, expected true"),
    ],
)
def test_what_long_tuning_cannot_use_is_refused(recipe, override, says):
    with pytest.raises(RecipeError, match=re.escape(says)):
        load_recipe(recipe, [override])


def test_an_average_without_gradients_is_all_that_long_tuning_has():
    with pytest.raises(RecipeError, match=re.escape("sink_gradient: found true, expected false: earlier chunks")):
        load_recipe("long_tuning_shapes", ["cache.policy=ema", TUNING + "sink_gradient=true"])


def test_rows_of_delta_forcing_change_what_they_say_and_nothing_else():
    assert changes("delta_forcing_shapes", "delta_forcing_wo_cont_shapes") == {TUNING + "continuity": False}
    assert changes("delta_forcing_shapes", "delta_forcing_wo_trust_shapes") == {TUNING + "trust": False}
    assert changes("long_tuning_shapes", "delta_forcing_shapes") == {
        "paper": "arXiv:2605.14382",
        TUNING + "kind": "delta",
        TUNING + "phi": "codec",
        TUNING + "gate_sigma": 0.5,
        TUNING + "warmup": 10,
    }


PAIR = {"prompts": ["a red circle", "a blue circle"]}


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join(f"{json.dumps(line) if isinstance(line, dict) else line}\n" for line in lines))
    return path


def test_prompt_pairs_are_read_from_json_lines(tmp_path):
    path = write(tmp_path / "pairs.jsonl", PAIR, "", {"prompts": ["one", " then "]})
    assert read_pairs(path) == [("a red circle", "a blue circle"), ("one", "then")]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([PAIR, {"prompt": "a red circle"}], "line 2: found 1 of a video, expected two: the first and the one it"),
        ([{"prompts": ["a", "b", "c"]}], "line 1: found 3 of a video, expected two"),
        ([{"prompts": ["a red circle", "  "]}], "line 1: no prompts"),
        ([{"prompts": ["a red circle", 3]}], "line 1: no prompts"),
        (["a red circle"], "line 1: not JSON"),
        ([], "no prompt in this file"),
    ],
)
def test_a_file_of_pairs_without_a_second_prompt_is_refused_with_its_line(tmp_path, lines, says):
    with pytest.raises(RecipeError, match=re.escape(says)):
        read_pairs(write(tmp_path / "pairs.jsonl", *lines))


def test_a_text_file_has_no_second_prompts(tmp_path):
    with pytest.raises(RecipeError, match=re.escape("line 1: found 1 of a video, expected two")) as caught:
        read_pairs(write(tmp_path / "pairs.txt", "a red circle"))
    assert '{"prompts": ["...", "..."]}' in caught.value.hint

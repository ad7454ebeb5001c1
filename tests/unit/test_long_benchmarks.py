"""The long and the multi-prompt benchmark: prompts, bounds of segments, and which scores become which metric; the
oracle on long videos.
"""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from astro_cli.config.errors import RecordError
from astro_cli.core.rng import stream
from astro_cli.generate.arm import load_arm
from astro_cli.models import hashes
from astro_cli.models.shapes_backbone import load_shapes_backbone
from astro_cli.shapes.grammar import parse
from astro_cli.shapes.render import FREE, GRID, random_layout, render
from eval.records import store
from eval.world import run as world_run
from eval.world import shapes, shapes_long, shapes_multi
from eval.world.oracle_scores import score_clips
from eval.world.streams import done_of, frames_of, turning_points
from eval.world.suites import WORLD_SUITES, world_suite


def an_arm(block: int = 3, fps: float = 8.0) -> Any:
    backbone = load_shapes_backbone(empty=True)
    return cast(Any, SimpleNamespace(card={"video": {"block": block, "fps": fps}}, backbone=backbone))


def test_other_weights_under_one_name_are_said(tmp_path, capsys):
    benchmark: Any = SimpleNamespace(
        NAME="shapes",
        VERSION=1,
        prompt_set=lambda count: ["a"] * count,
        num_frames=lambda arm: 9,
        protocol=lambda arm: {},
    )
    for content in ("first", "first", "second"):
        (tmp_path / "weights").write_text(content)
        card = {"recipe_hash": "r", "codec": "shapes/codec", "video": {"fps": 8}, "sampling": "few_step"}
        backbone = load_shapes_backbone(empty=True)
        arm: Any = SimpleNamespace(
            name="tuned",
            path=tmp_path / "weights",
            card=card,
            backbone=backbone,
            pixels=(32, 32),
            weights_hash=lambda: hashes.digest(tmp_path / "weights"),
        )
        writer = world_run._writer(benchmark, arm, 1, 2, tmp_path)
        world_run._record(benchmark, arm, 2, writer, {"vq": [0.5, 0.5], "ta": [0.5, 0.5]})
        said = capsys.readouterr().err
        assert said.count("warning: ") == (content == "second")
    assert {record.protocol["num_frames"] for record in store.load([writer.path])} == {33}  # of 9 latent frames
    assert "shapes.jsonl: tuned, seed 1: was recorded of weights " in said


def test_two_arms_of_one_name_and_seed_are_refused():
    first, second = (cast(Any, SimpleNamespace(name="tuned", path=Path(at))) for at in ("a/final", "b/final"))
    world_run.check_distinct([(first, 0), (first, 1), (second, 2)])
    with pytest.raises(RecordError, match="tuned: recorded as seed 1 of one arm: a/final and b/final") as caught:
        world_run.check_distinct([(first, 0), (first, 1), (second, 1)])
    assert "--results" in caught.value.hint


def test_every_arm_suite_has_a_benchmark_that_makes_what_it_shows():
    for name, suite in WORLD_SUITES.items():
        benchmark = suite.load()
        assert name == benchmark.NAME
        assert set(suite.shown) - {"throughput"} <= set(benchmark.METRICS)
        assert len(benchmark.prompt_set(3)) == 3
    with pytest.raises(RecordError, match="no such suite") as refused:
        world_suite("shapes-lnog")
    assert "shapes-long" in refused.value.hint


def test_the_list_of_arm_suites_needs_no_torch():
    code = "import sys, eval.world.suites; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_seconds_become_whole_blocks():
    assert frames_of(an_arm(), 30) == 63  # 240 frames are in 61 latents, 1 + 60 x 4 frames; 21 blocks of 3
    assert frames_of(an_arm(), 60) == 123  # 480 frames in 121 latents
    assert frames_of(an_arm(), 10) == 21
    assert frames_of(an_arm(block=1, fps=16.0), 10) == 41
    assert shapes_long.num_frames(an_arm()) == 63


def test_a_prompt_takes_over_at_the_next_block():
    # the frames before 10 s, 80 of them, are in 21 latents, seven blocks; those
    # before 20 s in 41, so block 14 holds some
    assert shapes_multi.segment_starts(an_arm()) == [0, 21, 42, 63, 81, 102]
    assert turning_points(an_arm(block=1), [1.0, 2.5]) == [3, 6]
    assert turning_points(an_arm(), [1.0, 2.5]) == [3, 6]  # blocks end at frames 9 and 21


def test_a_story_changes_one_or_two_attributes_of_its_object():
    for script in shapes_multi.prompt_set(12):
        scenes = [parse(prompt) for prompt in script.split(shapes_multi.BETWEEN)]
        assert len(scenes) == 6
        for before, after in pairwise(scenes):
            assert (before.background, before.texture) == (after.background, after.texture)
            changed = [
                name
                for name in ("size", "color", "shape", "motion")
                if getattr(before.objects[0], name) != getattr(after.objects[0], name)
            ]
            assert 1 <= len(changed) <= 2
            assert after.complete


def test_scripts_are_a_stable_set_of_their_own():
    assert shapes_multi.prompt_set(3) == shapes_multi.prompt_set(8)[:3]
    assert len(set(shapes_multi.prompt_set(8))) == 8
    assert not {script.split(shapes_multi.BETWEEN)[0] for script in shapes_multi.prompt_set(8)} & set(
        shapes.prompt_set(8)
    )


def rendered(prompts: list[str], frames: int) -> torch.Tensor:
    scenes = [parse(prompt) for prompt in prompts]
    return render(scenes, random_layout(scenes, [stream("test", row) for row in range(len(prompts))]), frames)


PROMPTS = [
    "a large red circle moves right slowly over a gray plain background",
    "a large blue square bounces vertically fast over a black striped background",
]


def test_the_oracle_scores_a_long_video_as_it_scores_a_clip():
    scenes = [parse(prompt) for prompt in PROMPTS]
    clip, video = (score_clips(rendered(PROMPTS, frames), scenes) for frames in (9, 120))
    for metric in ("vq", "mq", "ta"):
        torch.testing.assert_close(clip[metric], video[metric], atol=0.03, rtol=0)
    assert video["ta"].tolist() == [1.0, 1.0]
    assert float(video["vq"].min()) > 0.95


def test_a_long_clip_is_measured_in_parts_that_change_nothing():
    """1152 frames are measured at once: the second of two videos of 600 is in a part of its own."""
    scenes = [parse(PROMPTS[0])] * 2
    frames = rendered([PROMPTS[0]] * 2, 600)
    both, second = score_clips(frames, scenes), score_clips(frames[1:], scenes[1:])
    assert float(both["vq"][1]) == float(second["vq"][0])


def test_thirds_show_where_a_video_decays():
    frames = rendered(PROMPTS[:1], 30)
    frames[:, 20:] = 0.45  # the object is gone in the last third
    scores = shapes_long.score_videos(frames, [parse(PROMPTS[0])], 5.0)  # so that it has three clips of two seconds
    assert {*scores, shapes_long.KV_GROWTH, shapes_long.TIME_GROWTH} == set(shapes_long.METRICS)
    assert float(scores["drift"]) > 50  # points: about 1, 1, 0 of 1
    assert float(scores["background_consistency"]) < 1
    assert float(scores["vq_first_third"]) > 0.95
    assert float(scores["vq_last_third"]) < 0.1
    assert float(scores["vq_last_third"]) < float(scores["vq"]) < float(scores["vq_first_third"])
    assert float(scores["ta_first_third"]) == 1.0


def test_segments_are_averaged_and_their_text_scores_kept():
    nan = float("nan")
    first = {"vq": torch.tensor([0.2, 0.4]), "ta": torch.tensor([1.0, 0.0]), "speed": torch.tensor([nan, nan])}
    second = {"vq": torch.tensor([0.6, 0.4]), "ta": torch.tensor([0.5, 0.5]), "speed": torch.tensor([1.0, nan])}
    found = shapes_multi.joined([first, second])
    assert found["vq"].tolist() == pytest.approx([0.4, 0.4])  # (.2 + .6) / 2
    assert found["ta"].tolist() == pytest.approx([0.75, 0.25])
    assert found["ta_segment_1"].tolist() == [1.0, 0.0]
    assert found["ta_segment_2"].tolist() == [0.5, 0.5]
    assert float(found["speed"][0]) == 1.0  # still in the first segment: no speed to score
    assert bool(found["speed"][1].isnan())


def test_progress_stays_below_a_batch_until_it_is_scored():
    assert done_of(range(32, 64), 0, 240) == 32
    assert done_of(range(32, 64), 120, 240) == 47
    assert done_of(range(32, 64), 240, 240) == 63


def test_beyond_the_trained_length_a_sink_is_kept_only_where_the_first_block_stays_true():
    """Where objects go round with the latents it does not; without a grid, as in Wan's world, it does."""
    arm = load_arm("shapes/causal_forcing")
    assert arm.stream_spec(9).cache.window is None
    for world, sink in ((GRID, 0), (FREE, 3)):
        cast(Any, arm.backbone).world = world
        long = arm.stream_spec(63).cache
        assert (long.window, long.sink, long.relative) == (9, sink, True)

"""`astro eval shapes-long` and `shapes-multi` on a tiny student and short videos: records, resuming, switches,
refusals.
"""

from __future__ import annotations

import json

import pytest
import torch
from test_training import run

from astro_cli.config.errors import CheckpointError
from astro_cli.generate import media
from astro_cli.generate.arm import load_arm
from eval.records import store
from eval.report import sheets
from eval.world import shapes, shapes_long, shapes_multi
from eval.world.oracle_scores import noise_seeds
from eval.world.run import evaluate_arm
from eval.world.streams import decoded_blocks
from eval.world.suites import world_suite

PROMPTS = 3


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """30 s become 6 s (15 latents), segments of 10 s become 2 s (starts 0, 6, 9, 15, 18, 21 of 27 latents)."""
    monkeypatch.setattr(shapes_long, "SECONDS", 6)
    monkeypatch.setattr(shapes_multi, "SECONDS", 2)


def evaluate(suite, tiny_base, tmp_path, monkeypatch):
    arguments = [
        "eval",
        suite,
        "--arm",
        str(tiny_base),
        "--seeds",
        "0",
        "--prompts",
        str(PROMPTS),
        "--results",
        str(tmp_path),
    ]
    assert run(arguments, monkeypatch) == 0
    return store.load_results(tmp_path)


@pytest.mark.parametrize(("suite", "frames"), [("shapes-long", 57), ("shapes-multi", 105)])
def test_a_suite_records_all_its_metrics_once(suite, frames, tiny_base, tmp_path, monkeypatch):
    records = evaluate(suite, tiny_base, tmp_path, monkeypatch)
    assert {record.metric for record in records} == set(world_suite(suite).load().METRICS)
    for record in records:
        assert record.benchmark == suite
        assert record.protocol["num_frames"] == frames
        assert record.protocol["cache"] == {"window": 9, "sink": 0, "relative": True, "policy": "fixed", "alpha": 0.999}
        counts = {"kv_memory_growth": 1, "frame_time_growth": 3}
        assert len(record.scores) == counts.get(record.metric, PROMPTS)
        assert record.direction == ("down" if record.metric in (*counts, "drift") else "up")
        if record.metric == "kv_memory_growth":  # 15 latents against 12 through a window of 9
            assert record.scores == [1.0]
        if record.metric == "frame_time_growth":
            assert all(0.05 < score < 20 for score in record.scores if score is not None)
    assert len({record.prompt_set_hash for record in records}) == 1
    if suite == "shapes-multi":
        assert records[0].protocol["switch"] == {"recache": "bidirectional", "renew_sink": False}
        assert records[0].protocol["segments"] == [0, 6, 9, 15, 18, 21]
    assert len(evaluate(suite, tiny_base, tmp_path, monkeypatch)) == len(records)


def test_an_evaluation_cut_while_recording_is_made_again(tiny_base, tmp_path, monkeypatch):
    first = evaluate("shapes-long", tiny_base, tmp_path, monkeypatch)
    path = store.record_path(tmp_path, "shapes-long")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:4]))  # vq, mq and ta are among them
    again = {
        record.metric: record.scores
        for record in store.latest(evaluate("shapes-long", tiny_base, tmp_path, monkeypatch))
    }
    before = {record.metric: record.scores for record in first}
    assert again.keys() == before.keys()
    timed = {"frame_time_growth"}
    assert {name: again[name] for name in again.keys() - timed} == {name: before[name] for name in again.keys() - timed}


def test_another_version_of_a_benchmark_is_scored_again(tiny_base, tmp_path, monkeypatch):
    first = evaluate("shapes-multi", tiny_base, tmp_path, monkeypatch)
    monkeypatch.setattr(shapes_multi, "VERSION", 2)
    assert len(evaluate("shapes-multi", tiny_base, tmp_path, monkeypatch)) == 2 * len(first)


def test_a_long_video_begins_with_the_clip_of_the_short_benchmark(tiny_base):
    arm, prompts = load_arm(str(tiny_base)), shapes_long.prompt_set(2)
    assert prompts == shapes.prompt_set(2)
    clip = arm.backbone.decode(arm.generate(prompts, noise_seeds(0, 2), 9))
    video = torch.cat(list(decoded_blocks(arm, prompts, noise_seeds(0, 2), 15)), 1)
    assert video.shape == (2, 57, 3, 32, 32)
    torch.testing.assert_close(video[:, :33], clip, atol=1e-4, rtol=1e-4)


def test_segments_show_their_own_prompts(tiny_base):
    """A segment does not change with a later prompt, and does with its own."""
    arm, script = load_arm(str(tiny_base)), shapes_multi.prompt_set(1)[0].split(shapes_multi.BETWEEN)
    other = [*script[:2], "a large yellow triangle moves left fast over a white checkered background", *script[3:]]
    clips, changed = (
        [clip for clip, _ in shapes_multi.segments(arm, [each], noise_seeds(0, 1))] for each in (script, other)
    )
    assert [clip.shape[1] for clip in clips] == [21, 12, 24, 12, 12, 24]
    for place in (0, 1):
        assert torch.equal(clips[place], changed[place])
    assert not torch.equal(clips[2], changed[2])


def test_a_video_does_not_depend_on_its_batch(tiny_base, monkeypatch):
    arm, prompts = load_arm(str(tiny_base)), shapes_multi.prompt_set(3)
    together = shapes_multi.evaluate(arm, 0, prompts, lambda done, total: None)
    monkeypatch.setattr(shapes_multi, "BATCH", 2)
    seen = []
    apart = shapes_multi.evaluate(arm, 0, prompts, lambda done, total: seen.append((done, total)))
    assert apart["vq"] == pytest.approx(together["vq"], abs=1e-3)
    assert seen[-1] == (3, 3)
    assert seen == sorted(seen)


def test_teachers_and_other_backbones_are_refused(tmp_path):
    teacher = load_arm("shapes/teacher")
    with pytest.raises(CheckpointError, match="streamed by a few-step student"):
        evaluate_arm(teacher, 0, 1, tmp_path, lambda done, total: None, suite=world_suite("shapes-long"))
    foreign = load_arm("shapes/self_forcing")
    foreign.card["backbone"] = "wan"
    with pytest.raises(CheckpointError, match="scores arms of 'shapes'"):
        evaluate_arm(foreign, 0, 1, tmp_path, lambda done, total: None)
    assert not list(tmp_path.iterdir())


def test_sheets_show_times_and_the_prompts_of_segments(tiny_base, tmp_path, monkeypatch):
    pair = (load_arm(str(tiny_base)), load_arm(str(tiny_base)))
    drawn = []
    draw = media.contact_sheet
    monkeypatch.setattr(
        media,
        "contact_sheet",
        lambda rows, path, *rest, **named: (drawn.append((rows, named)), draw(rows, path, *rest, **named)),
    )
    sheets.long_sheet(pair, tmp_path / "long.png")
    sheets.multi_sheet(pair, tmp_path / "multi.png")
    (long, long_named), (multi, multi_named) = drawn
    assert [label.partition(":")[0] for label, _ in long] == ["base", "tuned"] * sheets.LONG_PROMPTS
    assert long[0][1].shape == (57, 32, 32, 3)
    assert long_named == {"every": 18, "fps": 8.0}  # 2.25 s
    script = shapes_multi.prompt_set(1)[0].split(shapes_multi.BETWEEN)
    assert [(row.label, row.start, row.is_switch) for row in multi][:4] == [
        (f"base: {script[0]}", 0, False),
        (f"tuned: {script[0]}", 0, False),
        (f"base: {script[1]}", 21, True),  # frames of the first segment
        (f"tuned: {script[1]}", 21, True),
    ]
    assert multi_named == {"every": 18, "fps": 8.0}
    for base, tuned in zip(multi[::2], multi[1::2], strict=True):
        assert (base.clip == tuned.clip).all()  # one and the same student, the same noise
    assert (tmp_path / "long.png").stat().st_size > 0
    assert (tmp_path / "multi.png").stat().st_size > 0


def test_the_tables_columns_and_the_claims_have_their_metrics():
    """Tables 2 and 3 and the claims as-long and as-multi name only what the benchmarks record."""
    from eval.papers.claims import load_claims
    from eval.papers.published import load_table

    for table_id, suite in (("astrolabe-2", "shapes-long"), ("astrolabe-3", "shapes-multi")):
        loaded = load_table(table_id)
        assert loaded.benchmark["shapes"] == suite
        wanted = {column.shapes for column in loaded.columns if column.shapes}
        assert wanted
        assert wanted <= set(world_suite(suite).load().METRICS)
    for claim in load_claims("astrolabe").claims:
        suite = claim.benchmark.get("shapes")
        if suite in ("shapes-long", "shapes-multi"):
            metrics = {metric for part in json.loads(claim.model_dump_json())["parts"] for metric in part["metrics"]}
            assert metrics <= set(world_suite(suite).load().METRICS)

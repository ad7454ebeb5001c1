"""VBench's own result files: what is taken over, and what is refused."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from astro_cli.config.errors import IntegrityError, RecordError
from eval.prompt_sets.base import Prompt, PromptSet
from eval.records import store
from eval.scoring import ingest as module
from eval.scoring.ingest import IngestError, ingest
from eval.vbench.totals import DIMENSIONS

TEXTS = ("a cat", "a dog", "a bird")


@pytest.fixture(autouse=True)
def prompts(monkeypatch: pytest.MonkeyPatch) -> PromptSet:
    """Three prompts instead of VBench's 946: two for every dimension, the third for dynamic degree alone."""
    every = {"dimension": list(DIMENSIONS)}
    made = PromptSet(
        "vbench",
        "1",
        tuple(
            Prompt(f"p{i}", text, {"dimension": ["dynamic_degree"]} if i == 2 else every)
            for i, text in enumerate(TEXTS)
        ),
    )
    monkeypatch.setattr(module, "prompt_set", lambda name: made)
    return made


def videos(value: Any, count: int = 2, indices: Iterable[int | str] = range(5)) -> list[dict[str, Any]]:
    return [
        {"video_path": f"/data/{text}-{index}.mp4", "video_results": value}
        for text in TEXTS[:count]
        for index in indices
    ]


def entry(value: Any, count: int = 2, samples: int = 5) -> list[Any]:
    """A dimension all of whose videos have one value; above 1 it is imaging quality's."""
    return [value / 100 if value > 1 else value, videos(value, count, range(samples))]


def write(tmp_path: Path, data: Any) -> Path:
    path = tmp_path / "x_eval_results.json"
    path.write_text(json.dumps(data))
    return path


def records(tmp_path: Path) -> dict[str, store.Record]:
    return {record.metric: record for record in store.load_results(tmp_path / "r")}


def take(tmp_path: Path, data: Any) -> module.Ingested:
    return ingest(write(tmp_path, data), "vbench", "arm", 3, tmp_path / "r")


def test_dimensions_become_records_in_percent(tmp_path):
    found = take(tmp_path, {"subject_consistency": entry(0.9), "imaging_quality": entry(70.0)})
    made = records(tmp_path)
    assert made["subject_consistency"].scores[2] is None  # the third prompt is for another dimension
    assert made["subject_consistency"].scores[:2] == pytest.approx([90.0, 90.0])
    assert made["imaging_quality"].scores[:2] == pytest.approx([70.0, 70.0])  # 0..100 per video already
    assert (made["imaging_quality"].seed, made["imaging_quality"].protocol["scorer"]) == (3, "official")
    assert made["imaging_quality"].protocol["official_aggregates"] == {
        "subject_consistency": 90.0,
        "imaging_quality": 70.0,
    }
    assert {total.key: total.coverage for total in found.totals} == {
        "quality": "2/7",
        "semantic": "0/9",
        "total": "2/16",
    }


def test_booleans_are_0_and_1(tmp_path):
    data = entry(True, count=3)
    data[0], data[1][0]["video_results"] = 14 / 15, False
    take(tmp_path, {"dynamic_degree": data})
    assert records(tmp_path)["dynamic_degree"].scores == pytest.approx([80.0, 100.0, 100.0])  # 4 of 5


def test_sixteen_dimensions_give_the_totals(tmp_path):
    values: dict[str, Any] = dict.fromkeys(DIMENSIONS, 0.5) | {"imaging_quality": 50.0}
    data = {name: entry(value, count=3 if name == "dynamic_degree" else 2) for name, value in values.items()}
    found = take(tmp_path, data)
    assert found.complete
    made = records(tmp_path)
    means = {
        key: fmean(score for score in made[key].scores if score is not None) for key in ("total", "quality", "semantic")
    }
    assert means["total"] == pytest.approx((4 * means["quality"] + means["semantic"]) / 5)
    again = take(tmp_path, data)
    assert again.written == []


def sixteen() -> dict[str, Any]:
    """All dimensions of VBench, each with a value of its own."""
    values = {name: 0.3 + 0.04 * place for place, name in enumerate(DIMENSIONS)} | {"imaging_quality": 65.0}
    return {name: entry(value, count=3 if name == "dynamic_degree" else 2) for name, value in values.items()}


def zipped(path: Path, files: dict[str, Any]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data if isinstance(data, bytes) else json.dumps(data))
    return path


def test_sixteen_files_one_after_another_are_one_evaluation(tmp_path):
    data = sixteen()
    ingest(write(tmp_path, data), "vbench", "whole", 0, tmp_path / "r")
    for place, name in enumerate(sorted(data), 1):
        path = tmp_path / f"{name}_eval_results.json"
        path.write_text(json.dumps({name: data[name]}))
        found = ingest(path, "vbench", "pieces", 0, tmp_path / "r")
        assert found.totals[-1].coverage == f"{place}/16"
        assert len(found.missing.get("total", [])) == 16 - place
    assert found.complete
    scores: dict[str, dict[str, Any]] = {"whole": {}, "pieces": {}}
    for record in store.latest(store.load_results(tmp_path / "r")):
        scores[record.arm][record.metric] = record.scores
    assert scores["pieces"] == scores["whole"]
    assert len(scores["whole"]) == 16 + 3
    again = ingest(path, "vbench", "pieces", 0, tmp_path / "r")
    assert (again.written, again.complete) == ([], True)


def test_pieces_of_other_arms_and_seeds_do_not_add_up(tmp_path):
    data = sixteen()
    last = {"scene": data.pop("scene")}
    take(tmp_path, data)
    for arm, seed in (("other", 3), ("arm", 4)):
        found = ingest(write(tmp_path, last), "vbench", arm, seed, tmp_path / "r")
        assert found.totals[-1].coverage == "1/16"
    assert take(tmp_path, last).complete


def test_the_leaderboards_zip_is_read(tmp_path):
    data = sixteen()
    looked_at = [
        {"prompt_en": text, "dimension": ["color"], "video_list": [f"{text}-{index}.mp4" for index in range(5)]}
        for text in TEXTS[:2]
    ]
    color = {"color": [data["color"][0], data["color"][1][1:]]}  # of the first video nothing was found
    del data["color"]
    path = zipped(
        tmp_path / "arm.zip",
        {
            "run/a_eval_results.json": {name: data[name] for name in list(data)[:8]},
            "run/b_eval_results.json": {name: data[name] for name in list(data)[8:]},
            "run/c_eval_results.json": color,
            "run/c_full_info.json": looked_at,
            "__MACOSX/run/._a_eval_results.json": b"\x00\x05",
            "read me.txt": b"",
        },
    )
    found = ingest(path, "vbench", "arm", 0, tmp_path / "r")
    assert found.complete
    assert {outcome.key: outcome.counted for outcome in found.outcomes}["color"] == 9


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "arm.zip: holds no file of results"),
        ({"x.json": b"{"}, "arm.zip: x.json: no JSON of scores"),
        (
            {"a.json": {"scene": entry(0.5)}, "b.json": {"scene": entry(0.5)}},
            "arm.zip: b.json: scene: is also in",
        ),
    ],
)
def test_what_zip_is_refused(files, says, tmp_path):
    with pytest.raises(IngestError) as caught:
        ingest(zipped(tmp_path / "arm.zip", files), "vbench", "arm", 0, tmp_path / "r")
    assert says in str(caught.value)
    assert not (tmp_path / "r").exists()


def test_a_damaged_zip_is_refused(tmp_path):
    path = zipped(tmp_path / "arm.zip", {"a_eval_results.json": {"scene": entry(0.5)}})
    data = bytearray(path.read_bytes())
    data[60:80] = bytes(20)
    path.write_bytes(data)
    with pytest.raises(IngestError, match="damaged zip"):
        ingest(path, "vbench", "arm", 0, tmp_path / "r")


def test_missing_videos_are_named(tmp_path):
    found = take(
        tmp_path, {"scene": [0.5, [row for row in videos(0.5) if not row["video_path"].endswith("dog-3.mp4")]]}
    )
    assert found.missing["scene"] == ["a dog-3.mp4"]


def test_missing_samples_leave_a_dimension_out(tmp_path):
    found = take(tmp_path, {"scene": entry(0.5, samples=4), "color": entry(0.5)})
    assert {outcome.key: outcome.coverage for outcome in found.outcomes} == {"scene": "8/10", "color": "10/10"}
    assert records(tmp_path).keys() == {"color"}


def test_clips_of_a_long_video_are_averaged(tmp_path):
    clips = [
        {"video_path": f"split_clip/{text}-{index}/{text}-{index}_{clip:03d}.mp4", "video_results": 0.2 * (1 + clip)}
        for text in TEXTS[:2]
        for index in range(5)
        for clip in range(3)
    ]
    averages = [{"video_path": f"{text}-{index}.mp4", "video_results": 0.4} for text in TEXTS[:2] for index in range(5)]
    ingest(
        write(tmp_path, {"scene": [0.4, clips, averages]}), "vbench-long", "arm", 0, tmp_path / "r"
    )  # VBench-Long's own three parts
    assert records(tmp_path)["scene"].scores[:2] == pytest.approx([40.0, 40.0])
    whole = ingest(write(tmp_path, {"scene": [0.4, clips]}), "vbench", "other", 0, tmp_path / "r")
    assert (whole.outcomes[0].coverage, len(whole.unknown)) == ("0/10", 30)  # VBench scores no clips


def test_strangers_are_listed(tmp_path):
    data = entry(0.5)
    data[1].append({"video_path": "a whale-0.mp4", "video_results": 0.5})
    assert take(tmp_path, {"scene": data}).unknown == ["a whale-0.mp4"]


VIDEO = '{"video_path": "a cat-0.mp4", "video_results": 0.5}'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f'{{"scene": [NaN, [{VIDEO}]]}}', "scene[0]: found NaN"),
        ('{"scene": [NaN, []]}', "scene[0]: found NaN"),
        ("[" * 100_000, "no JSON"),
        ("{", "no JSON"),
        ("[]", "expected a dimension"),
        ('{"scene": [0.5, []]}', "scene"),
        ('{"scene": 0.5}', "scene"),
        (f'{{"scne": [0.5, [{VIDEO}]]}}', "did you mean 'scene'"),
        (f'{{"scene": ["0.5", [{VIDEO}]]}}', "scene[0]"),
        (f'{{"scene": [0.5, [{VIDEO.replace("0.5", "null")}]]}}', "scene[0].video_results: found null"),
        (f'{{"scene": [0.5, [{VIDEO.replace("0.5", "1e999")}]]}}', "expected a number"),
        ('{"scene": [0.5, [{"video_results": 0.5}]]}', "video_path"),
        (f'{{"scene": [0.5, [{VIDEO.replace("0.5", "93")}]]}}', "scene[0].video_results: found 93, expected 0 to 1"),
        (f'{{"scene": [0.5, [{VIDEO.replace("0.5", "-0.1")}]]}}', "expected 0 to 1"),
        (f'{{"scene": [50, [{VIDEO}]]}}', "scene[0]: found 50"),
        (f'{{"imaging_quality": [0.5, [{VIDEO.replace("0.5", "101")}]]}}', "expected 0 to 100"),
        (f'{{"scene": [0.5, [{VIDEO}, {VIDEO}]]}}', "scene[1].video_path: a cat-0.mp4 is listed twice"),
        (f'{{"scene": [0.5, [{VIDEO}, {VIDEO.replace("-0", "-00")}]]}}', "a second video of index 0 of 'a cat'"),
    ],
)
def test_what_is_refused(text, says, tmp_path):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(IngestError) as caught:
        ingest(path, "vbench", "arm", 0, tmp_path / "r")
    assert says in str(caught.value)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "r").exists()


def test_a_suite_without_official_files(tmp_path):
    with pytest.raises(IngestError, match="no official result files"):
        ingest(write(tmp_path, {"scene": entry(0.5)}), "hpsv3", "arm", 0, tmp_path / "r")
    with pytest.raises(IngestError, match="cannot be read"):
        ingest(tmp_path / "none.json", "vbench", "arm", 0, tmp_path / "r")


def test_indices_past_the_samples_do_not_count(tmp_path):
    found = take(tmp_path, {"scene": [0.5, videos(0.5, indices=range(10, 15))]})
    assert (found.outcomes[0].coverage, len(found.extra), found.unknown) == ("0/10", 10, [])
    more = videos(0.5) + videos(0.1, indices=(5, 6, "x"))  # "a cat-x" is of no prompt
    found = take(tmp_path, {"scene": [(10 * 0.5 + 6 * 0.1) / 16, more]})
    assert (found.outcomes[0].coverage, len(found.extra), len(found.unknown)) == ("10/10", 4, 2)
    assert records(tmp_path)["scene"].scores[:2] == pytest.approx([50.0, 50.0])


@pytest.mark.parametrize(("dimension", "aggregate", "listed"), [
    ("scene", 0.2, videos(0.93)), ("imaging_quality", 0.7, videos(0.7)), ("scene", 0.6, videos(0.5)),
    ("subject_consistency", 0.6, videos(0.5)), ("motion_smoothness", 0.95, [*videos(0.9), *videos(0.96, indices=(5,))]),
])  # fmt: skip
def test_a_number_its_videos_do_not_give_is_refused(dimension, aggregate, listed, tmp_path):
    with pytest.raises(IntegrityError, match=rf"{dimension}\[0\]: .*but the mean of its \d+ videos is") as caught:
        take(tmp_path, {dimension: [aggregate, listed]})
    assert caught.value.exit_code == 4
    assert ("per video it is 0 to 100, in all 0 to 1" in caught.value.hint) == (dimension == "imaging_quality")
    assert not (tmp_path / "r").exists()


def test_means_over_frames_are_accepted(tmp_path):
    listed = videos(0.8, 1) + [video | {"video_results": 0.9} for video in videos(0.9, 2)[5:]]
    counted = [video | {"cnt_per_video": 80 if video["video_results"] == 0.9 else 20} for video in listed]
    assert (
        take(tmp_path, {"background_consistency": [0.88, counted]}).complete is False
    )  # 0.8 x 0.9 + 0.2 x 0.8; no totals
    with pytest.raises(IntegrityError):
        take(tmp_path, {"background_consistency": [0.87, counted]})
    # Not counted, weights 1 : 2 explain 0.85 +- 0.354 x 0.05 = 0.0177 at most.
    take(tmp_path, {"subject_consistency": [0.8667, listed]})
    with pytest.raises(IntegrityError):
        take(tmp_path, {"subject_consistency": [0.869, listed]})
    styles = [video | {"frame_results": [0.1, 0.3], "cur_sim": 0.3} for video in videos(0.2)]
    take(
        tmp_path, {"appearance_style": [0.3, styles]}
    )  # VBench's own mean over last frames, where several processes made it


def test_cosines_may_be_negative(tmp_path):
    take(tmp_path, {"overall_consistency": [-0.02, videos(-0.02)]})
    assert records(tmp_path)["overall_consistency"].scores[:2] == pytest.approx([-2.0, -2.0])


def test_camera_motion_has_its_directions_between(tmp_path, prompts, monkeypatch):
    made = PromptSet(
        "vbench-i2v",
        "1",
        tuple(Prompt(prompt.id, prompt.text, {"dimension": ["camera_motion"]}) for prompt in prompts.prompts),
    )
    monkeypatch.setattr(module, "prompt_set", lambda name: made)
    listed = videos(1.0, 3)
    found = ingest(
        write(tmp_path, {"camera_motion": [1.0, {"pan_left": 1.0}, listed]}), "vbench-i2v", "arm", 0, tmp_path / "r"
    )
    assert found.outcomes[0].coverage == "15/15"


def test_an_arm_needs_a_name(tmp_path):
    with pytest.raises(RecordError, match="--name"):
        ingest(write(tmp_path, {"scene": entry(0.5)}), "vbench", " ", 0, tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_other_scores_of_an_arm_are_not_replaced(tmp_path):
    take(tmp_path, {"scene": entry(0.5)})
    with pytest.raises(
        IntegrityError, match=r"scene of arm is recorded already: other scores, from x_eval_results\.json"
    ) as caught:
        take(tmp_path, {"color": entry(0.4), "scene": entry(0.6)})
    assert caught.value.exit_code == 4
    assert records(tmp_path).keys() == {"scene"}
    take(tmp_path, {"color": entry(0.4), "scene": entry(0.5)})  # the same scores and more
    assert records(tmp_path).keys() == {"scene", "color"}
    evaluated = records(tmp_path)["scene"]
    store.append(
        store.record_path(tmp_path / "r", "vbench"),
        evaluated.model_copy(update={"protocol": evaluated.protocol | {"scorer": "scene-1-2"}}),
    )
    with pytest.raises(IntegrityError, match="scorer scene-1-2, now official"):
        take(tmp_path, {"scene": entry(0.5)})


def test_color_leaves_out_videos_without_the_object(tmp_path):
    listed = videos(0.5)
    data = {"color": [0.5, listed[1:5]]}  # nothing of the second prompt, and not the first video of the first
    assert take(tmp_path, data).outcomes[0].coverage == "4/10"
    looked_at = [
        {"prompt_en": "a cat", "dimension": ["color"], "video_list": [video["video_path"] for video in listed]},
        {"prompt_en": "a whale", "dimension": ["scene"]},
    ]
    beside = tmp_path / "x_full_info.json"
    beside.write_text(json.dumps(looked_at))
    found = take(tmp_path, data).outcomes[0]
    assert (found.coverage, found.counted) == ("10/10", 4)
    assert records(tmp_path)["color"].scores == [pytest.approx(50.0), None, None]
    beside.write_text('[{"dimension": "color"}]')
    with pytest.raises(IngestError, match=r"x_full_info\.json"):
        take(tmp_path, data)

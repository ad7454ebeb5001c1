"""`astro doctor world` on the packaged bases: what it prints for a teacher and for a student, and what it refuses."""

import json

import pytest

from tests.command_line import run

ATTRIBUTES = ["direction", "axis", "speed", "color", "shape"]


def test_a_teacher_is_measured_by_its_loss_and_by_its_videos(monkeypatch, capsys):
    assert run(["doctor", "world", "shapes/teacher", "--clips", "4", "--prompts", "2", "--json"], monkeypatch) == 0
    report = json.loads(capsys.readouterr().out)
    assert [gap["sigma"] for gap in report["gaps"]] == [0.5, 0.7, 0.8, 0.9, 0.95]
    assert all(list(gap["added"]) == ATTRIBUTES for gap in report["gaps"])
    assert report["gaps"][1]["added"]["color"][0] > 0.05  # the teacher uses the colour ...
    assert report["gaps"][1]["added"]["direction"][0] > 0.05  # ... and the direction (docs/log.md, entry 14)
    assert report["videos"][-1]["kind"] == "all"
    assert report["videos"][-1]["prompts"] == 2
    assert all(row["prompts"] for row in report["videos"])


def test_a_student_has_no_gaps_and_is_measured_by_its_videos(monkeypatch, capsys):
    assert run(["doctor", "world", "shapes/causal_forcing", "--prompts", "4", "--frames", "12"], monkeypatch) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "share of prompts shown, videos of 45 frames"  # of 12 latent frames
    assert lines[1].split()[:4] == ["motion", "prompts", "path", "borders"]
    assert lines[-1].split()[:2] == ["all", "4"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["shapes/teacher", "--frames", "10"], "--frames: found 10, expected a multiple of the block (3)"),
        (["shapes/teahcer"], "no such weights"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments, said, monkeypatch, capsys):
    assert run(["doctor", "world", *arguments], monkeypatch) == 2
    assert said in capsys.readouterr().err

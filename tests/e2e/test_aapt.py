"""AAPT as commands: three stages in one run, resumed to the same bits; the long extension; a student sampled from a
picture and evaluated; what does not fit is refused.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from test_training import same_bits, without_times

from astro_cli.models import weights
from astro_cli.models.wan.transformer import CausalWan
from astro_cli.recipe import load_recipe
from astro_cli.training import checkpoints
from astro_cli.training.build import _initialise
from tests.command_line import run
from tests.tiny_world import TINY

STAGES = ("adaptation", "consistency", "adversarial")
FINAL = ("student", "discriminator")
INPUT = "patch_embedding.weight"
RED = "a large red circle moves right slowly over a gray plain background"


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The current folder, with weights of the same network without extra channels."""
    monkeypatch.chdir(tmp_path)
    config = load_recipe("aapt_shapes", TINY, "distill").model.model_copy(update={"extra_channels": 0})
    network = CausalWan(config)
    _initialise(network, 0)
    weights.write(Path("narrow.safetensors"), network.state_dict())
    return tmp_path


def distill(name: str, monkeypatch, *arguments: str, out: str = "run", stages: tuple[str, ...] = STAGES) -> int:
    """A run of two steps a stage on clips of four latent frames."""
    values = [f"stages.{stage}.{key}" for stage in stages for key in ("steps=2", "batch=2", "data.pool=4")]
    values += [*TINY, "video.frames=4", "cache.window=3", "runtime.save_every=1", "base.student=narrow.safetensors"]
    sets = [argument for value in values for argument in ("--set", value)]
    return run(["distill", "--recipe", name, *sets, "--out", out, *arguments], monkeypatch)


def test_three_stages_in_one_run_resume_to_the_same_bits(folder, monkeypatch):
    monkeypatch.setattr(checkpoints, "KEEP", 99)
    assert distill("aapt_shapes", monkeypatch) == 0
    rows = without_times(Path("run/metrics.jsonl"))
    assert [row["stage"] for row in rows] == [stage for stage in STAGES for _ in range(2)]
    assert {"discriminator/pairs", "discriminator/aR1", "discriminator/aR2", "student/gap"} <= rows[-1].keys()
    assert {f"discriminator/{kind}_{place}" for kind in ("real", "fake") for place in (1, 2, 3)} <= rows[-1].keys()
    names = sorted(path.name for path in Path("run/checkpoints").iterdir())
    # The discriminator's weights are in the checkpoint behind the adaptation, two stages before it is trained.
    for kept in names[2:5]:
        shutil.copytree("run", "again")
        shutil.rmtree("again/final")
        for name in names[names.index(kept) + 1 :]:
            shutil.rmtree(Path("again/checkpoints") / name)
        assert distill("aapt_shapes", monkeypatch, "--resume", out="again") == 0
        for role in FINAL:
            assert same_bits(Path(f"run/final/{role}.safetensors"), Path(f"again/final/{role}.safetensors")), kept
        assert without_times(Path("again/metrics.jsonl")) == rows
        shutil.rmtree("again")


def test_adaptation_keeps_the_weights_it_starts_from_and_gives_them_to_the_discriminator(folder, monkeypatch):
    still = [f"--set=stages.{stage}.steps=0" for stage in STAGES]
    assert distill("aapt_shapes", monkeypatch, *still) == 0
    narrow, student, judge = (
        load_file(name) for name in ("narrow.safetensors", *(f"run/final/{role}.safetensors" for role in FINAL))
    )
    channels = narrow[INPUT].shape[1]
    assert student[INPUT].shape[1] == 2 * channels
    assert torch.equal(student[INPUT][:, :channels], narrow[INPUT])
    assert student[INPUT][:, channels:].abs().max() > 0  # fresh, not zero
    assert all(torch.equal(student[name], value) for name, value in narrow.items() if name != INPUT)
    assert all(torch.equal(judge[f"trunk.{name}"], value) for name, value in student.items())


@pytest.mark.parametrize(
    "name", ["aapt_teacher_forced_shapes", "aapt_wo_recycling_shapes", "aapt_bidirectional_d_shapes"]
)
def test_the_rows_train(name, folder, monkeypatch):
    assert distill(name, monkeypatch) == 0
    last = without_times(Path("run/metrics.jsonl"))[-1]
    places = [key for key in last if key.startswith("discriminator/fake_")]
    assert len(places) == (1 if "bidirectional" in name else 3)


@pytest.mark.slow
def test_long_videos_train_in_segments_of_constant_memory(folder, monkeypatch):
    stages = (*STAGES, "long_once", "long")
    assert distill("aapt_long_shapes", monkeypatch, stages=stages) == 0
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    once, five = (next(row for row in rows if row["stage"] == stage) for stage in ("long_once", "long"))
    assert five["memory/saved_bytes"] == pytest.approx(once["memory/saved_bytes"], rel=0.05)


def test_a_model_with_a_camera_trains_streams_and_is_measured(folder, monkeypatch, capsys):
    assert distill("aapt_camera_shapes", monkeypatch) == 0
    video = ["sample", RED, "--weights", "run", "--frames", "9", "--out", "videos"]
    assert run([*video, "--camera", "right 1s, rest"], monkeypatch) == 0
    (card,) = (json.loads(path.read_text()) for path in Path("videos").glob("*.json"))
    assert card["camera"] == "right 1s, rest"
    evaluate = ["eval", "shapes-camera", "--arm", "run", "--prompts", "2", "--results", "results"]
    assert run(evaluate, monkeypatch) == 0
    rows = [json.loads(line) for line in Path("results/records/shapes-camera.jsonl").read_text().splitlines()]
    assert {(row["metric"], row["direction"]) for row in rows} == {
        ("camera_error", "down"),
        ("camera_error_object", "down"),
        ("camera_agreement", "up"),
    }
    refusals = {
        "rihgt": "found 'rihgt', expected one of rest, left, right, up, down",
        "right, left": "'right' does not say how long",
        "right 0s": "found 0 s, expected more than 0",
        "": "found ''",
    }
    capsys.readouterr()
    for camera, says in refusals.items():
        assert run([*video, "--camera", camera], monkeypatch) == 2
        assert f"error: --camera: {camera}" in (error := capsys.readouterr().err)
        assert says in error
    other = ["--weights", "shapes/self_forcing"]
    assert run(["sample", RED, *other, "--camera", "left"], monkeypatch) == 2
    assert "was trained without a camera" in capsys.readouterr().err
    assert run(["eval", "shapes-camera", "--arm", "shapes/self_forcing", "--prompts", "1"], monkeypatch) == 2
    assert "video.camera: found false" in capsys.readouterr().err


def test_a_camera_is_added_to_an_adapted_model(folder, monkeypatch):
    still = [f"--set=stages.{stage}.steps=0" for stage in STAGES]
    assert distill("aapt_shapes", monkeypatch, *still, out="i2v") == 0
    assert distill("aapt_camera_shapes", monkeypatch, *still, "--set", "base.student=i2v") == 0
    adapted, camera = (load_file(f"{name}/final/student.safetensors")[INPUT] for name in ("i2v", "run"))
    assert camera.shape[1] == adapted.shape[1] + 6
    assert torch.equal(camera[:, : adapted.shape[1]], adapted)
    assert camera[:, adapted.shape[1] :].abs().max() > 0  # fresh, not zero


def test_a_trained_student_streams_from_a_picture_and_is_evaluated(folder, monkeypatch, capsys):
    assert distill("aapt_consistency_shapes", monkeypatch, stages=STAGES[:2]) == 0
    Image.new("RGB", (32, 32), (90, 90, 90)).save("first.png")
    sample = ["sample", RED, "--weights", "run", "--seconds", "5", "--out", "videos"]
    assert run([*sample, "--image", "first.png"], monkeypatch) == 0  # past the trained length, through the window
    (card,) = (json.loads(path.read_text()) for path in Path("videos").glob("*.json"))
    assert (card["image"], card["given_frames"], card["sampler"]["recycle"] if "sampler" in card else "previous") == (
        "../first.png",
        1,
        "previous",
    )
    assert run(["sample", RED, "--weights", "run", "--frames", "9", "--out", "videos"], monkeypatch) == 0  # rendered
    assert len(list(Path("videos").glob("*.mp4"))) == 2
    evaluate = ["eval", "shapes", "--arm", "run", "--prompts", "2", "--timing", "none", "--results", "results"]
    assert run(evaluate, monkeypatch) == 0


@pytest.mark.parametrize(
    ("name", "override", "says"),
    [
        ("aapt_shapes", "model.extra_channels=0", "model.extra_channels: found 0 with sampler.recycle 'previous'"),
        ("aapt_shapes", "model.extra_channels=3", "model.extra_channels: found 3 with"),
        ("aapt_shapes", "video.block=3", "video.block: found 3, expected 1"),
        ("aapt_shapes", "sampler.steps=[1000, 500]", "expected one step: a frame is one forward"),
        ("aapt_shapes", 'order=["adversarial"]', "base.discriminator: missing"),
        ("aapt_shapes", "roles.discriminator.model.num_layers=2", "roles.discriminator.model: found other sizes"),
        ("aapt_shapes", "runtime.gradient_checkpointing=true", "runtime.gradient_checkpointing: found true"),
        ("aapt_long_shapes", "stages.long.objective.overlap=9", "overlap: found 9, expected fewer than the 9 frames"),
        ("aapt_long_shapes", "cache={}", "cache.window: missing, a long video needs a window"),
        (
            "aapt_teacher_forced_shapes",
            "stages.adversarial.objective.extensions=1",
            "teacher forcing rolls nothing out",
        ),
        ("self_forcing_shapes", "model.extra_channels=4", "with sampler.recycle None"),
        ("aapt_camera_shapes", "model.extra_channels=16", "expected 16, those of a latent frame, and 6 of the camera"),
        ("aapt_camera_shapes", "stages.adaptation.data.pan=0.5", "no caption says them"),
        ("self_forcing_shapes", "video.camera=true", "model.extra_channels: found 0"),
        ("aapt", "video.camera=true", "video.camera: found true, only the embedded world's cameras are known"),
    ],
)
def test_recipes_that_do_not_fit_are_refused(name, override, says, monkeypatch, capsys):
    command = ["distill", "--recipe", name, "--set", override, "--dry-run"]
    if override == "video.block=3":
        command += ["--set", "cache.window=9", "--set", "cache.sink=3"]
    assert run(command, monkeypatch) == 2
    assert says in capsys.readouterr().err


def test_weights_of_the_other_kind_are_refused(folder, monkeypatch, capsys):
    """Text-to-video weights where an adapted model is wanted, and the reverse."""
    only = ["--set", 'order=["consistency"]']
    assert distill("aapt_consistency_shapes", monkeypatch, *only, stages=STAGES[:2]) == 2
    error = capsys.readouterr().err
    assert f"narrow.safetensors: {INPUT}: another size" in error
    assert "the recipe's model takes image-to-video weights" in error
    assert distill("aapt_consistency_shapes", monkeypatch, "--set", 'order=["adaptation"]', stages=STAGES[:1]) == 0
    tiny = [argument for value in (*TINY, "model.in_channels=16") for argument in ("--set", value)]
    other = ["distill", "--recipe", "self_forcing_shapes", *tiny, "--set", "base.student=run", "--out", "other"]
    capsys.readouterr()
    assert run(other, monkeypatch) == 2
    assert INPUT in capsys.readouterr().err


def test_a_discriminator_of_another_depth_is_refused_on_resume(folder, monkeypatch, capsys):
    assert distill("aapt_shapes", monkeypatch) == 0
    shutil.rmtree("run/final")
    assert distill("aapt_shapes", monkeypatch, "--set", "model.num_layers=3", "--resume") == 2
    assert "error: " in capsys.readouterr().err

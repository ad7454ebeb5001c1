"""Trackers: accelerate's own names; one that is not installed is refused before anything is built; curves and clips
reach them, and what a tracker does not take is said.
"""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker
from PIL import Image

from astro_cli.config.errors import RecipeError
from astro_cli.spec.parts import Tracker
from astro_cli.training import tracking
from astro_cli.training.tracking import MEDIA, TrackedClip, check_tracker, track_clips

SMALL = ("experience.prompts=2", "experience.group=2", "batch=4")


def test_the_names_are_those_of_accelerate_and_each_takes_clips():
    assert set(get_args(Tracker)) == {"none", *LOGGER_TYPE_TO_CLASS}
    assert MEDIA.keys() == LOGGER_TYPE_TO_CLASS.keys()


def test_one_that_is_not_installed_is_refused_with_the_line_that_brings_it(monkeypatch):
    monkeypatch.setattr(tracking, "get_available_trackers", lambda: ["tensorboard"])
    check_tracker("none")
    check_tracker("tensorboard")
    with pytest.raises(RecipeError, match=r"runtime: tracker: found 'comet_ml', which is not installed") as caught:
        check_tracker("comet_ml")
    assert caught.value.hint.startswith("pip install comet-ml, or")


def test_a_run_with_a_missing_tracker_leaves_no_folder(astro, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "get_available_trackers", list)
    out = tmp_path / "run"
    code, _, err = astro(
        "rl", "--recipe", "astrolabe_causal_shapes", "--set", 'runtime.tracker="wandb"', "--out", str(out)
    )
    assert code == 2
    assert err.splitlines()[0] == "error: runtime: tracker: found 'wandb', which is not installed"
    assert not out.exists()


def test_tensorboard_gets_settings_curves_and_the_best_and_worst_clip(astro, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    out, experience = tmp_path / "run", "stages.nft.experience"
    arguments = (
        "rl",
        "--recipe",
        "astrolabe_causal_shapes",
        "--out",
        str(out),
        "--set",
        'runtime.tracker="tensorboard"',
    )
    small = {
        f"{experience}.prompts": 2,
        f"{experience}.group": 2,
        "stages.nft.batch": 4,
        f"{experience}.samples_every": 2,
    }
    code, _, err = astro(*arguments, "--steps", "3", *(f"--set={key}={value}" for key, value in small.items()))
    assert code == 0, err
    assert "warning" not in err
    events = accumulator.EventAccumulator(str(out / "astro"), {"images": 0, "scalars": 0, "tensors": 0}).Reload()
    curves = events.Tags()["scalars"]
    assert {"reward/total", "reward/vq", "reward/mq", "reward/ta", "student/loss", "seconds"} <= set(curves)
    assert [event.step for event in events.Scalars("reward/total")] == [1, 2, 3]
    assert sorted(events.Tags()["images"]) == ["samples/best", "samples/worst"]
    for name in ("best", "worst"):
        images = events.Images(f"samples/{name}")
        assert [image.step for image in images] == [1, 3]  # of epochs 0 and 2
        assert images[0].encoded_image_string == (out / "samples" / f"000000-{name}.gif").read_bytes()
        assert Image.open(io.BytesIO(images[0].encoded_image_string)).n_frames > 1
        (text, _) = events.Tensors(f"samples/{name}/prompt/text_summary")
        assert text.tensor_proto.string_val[0].endswith(b" background")
        assert b": a " in text.tensor_proto.string_val[0]
    assert list(out.glob("astro/*/hparams.yml"))


class Failing(GeneralTracker):
    """Takes the place of a tracker, and fails in the methods that `fails` names."""

    name = "tensorboard"
    requires_logging_directory = True
    fails: tuple[str, ...] = ()
    tracker = None

    def __init__(self, run_name: str, logging_dir: str) -> None:
        super().__init__()
        self.folder = Path(logging_dir, run_name)

    def _call(self, method: str) -> None:
        if method in self.fails:
            raise ConnectionError(f"{method} failed\nmore of it")

    def start(self) -> None:
        self.folder.mkdir(parents=True)
        self._call("start")

    def store_init_configuration(self, values) -> None:
        self._call("store")

    def log(self, values, step, **_) -> None:
        self._call("log")

    def finish(self) -> None:
        self._call("finish")


@pytest.fixture
def failing(monkeypatch):
    monkeypatch.setattr(tracking, "get_available_trackers", lambda: ["tensorboard"])
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "tensorboard", Failing)
    return lambda *methods: monkeypatch.setattr(Failing, "fails", methods)


def tracked(out: Path) -> list[str]:
    sets = ('runtime.tracker="tensorboard"', *(f"stages.nft.{key}" for key in SMALL))
    arguments = ["rl", "--recipe", "astrolabe_causal_shapes", "--steps", "2", "--out", str(out)]
    return arguments + [f"--set={override}" for override in sets]


@pytest.mark.parametrize("method", ["start", "store"])
def test_a_tracker_that_does_not_start_leaves_no_folder(astro, tmp_path, failing, method):
    out = tmp_path / "run"
    failing(method, "finish")
    code, _, err = astro(*tracked(out))
    assert code == 2
    assert err.splitlines()[-2:] == [
        f"error: runtime: tracker: tensorboard did not start: {method} failed",
        'hint: log in to it, or runtime.tracker = "none"',
    ]
    assert not out.exists()  # the next attempt begins as this one did


def test_a_tracker_that_fails_later_is_said_once_and_training_goes_on(astro, tmp_path, failing):
    out = tmp_path / "run"
    failing("log", "finish")
    code, _, err = astro(*tracked(out))
    assert code == 0, err
    assert err.count("log failed") == err.count("the tracker did not end as it should: finish failed") == 1
    assert "more of it" not in err
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 2
    assert (out / "final" / "card.json").is_file()


@pytest.mark.parametrize("package", ["wandb", "trackio", "swanlab"])
def test_trackers_with_videos_get_the_file_with_its_prompt(package, tmp_path, monkeypatch):
    made, logged = [], []
    video = lambda *arguments, **options: made.append((arguments, options)) or "video"  # noqa: E731
    monkeypatch.setitem(tracking.importlib.import_module("sys").modules, package, SimpleNamespace(Video=video))
    tracker = SimpleNamespace(name=package, log=lambda values, step: logged.append((values, step)))
    clip = TrackedClip("samples/best", tmp_path / "a.gif", "0.5: a red circle")
    assert track_clips(SimpleNamespace(trackers=[tracker]), [clip], 7) == []
    ((path,), options) = made[0]
    assert (path, options["caption"]) == (str(clip.file), clip.caption)
    assert logged == [({"samples/best": "video"}, 7)]


def test_a_clip_that_a_tracker_does_not_take_is_said_and_training_goes_on(tmp_path):
    def refuse(*_, **__):
        raise ConnectionError("no route to the service")

    trackers = [SimpleNamespace(name="mlflow", log_artifact=refuse)]
    clip = TrackedClip("samples/best", tmp_path / "a.gif", "a red circle")
    (warning,) = track_clips(SimpleNamespace(trackers=trackers), [clip], 1)
    assert warning == f"mlflow did not take samples/best: no route to the service; it is {clip.file}"

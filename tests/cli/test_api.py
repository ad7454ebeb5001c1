"""The Python API: lazily imported, the commands' own objects, and their errors."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

import astro_cli
from astro_cli import evaluate, load_student, stream, train
from astro_cli.config.errors import AstroError, PromptError, RecipeError, RecordError, StreamError
from astro_cli.config.seeds import LARGEST
from astro_cli.generate.arm import Arm
from astro_cli.generate.mp4 import Mp4Stream
from astro_cli.training.rundir import RunDir

RED = "a large red circle moves right slowly over a gray plain background"
BLUE = "a small blue square moves left fast over a gray plain background"
SMALL = [f"stages.nft.{key}" for key in ("experience.prompts=2", "experience.group=2", "batch=4")]

NAN, INF = float("nan"), float("inf")


@pytest.fixture(scope="module")
def student() -> Arm:
    return load_student(device="cpu")


def test_the_package_imports_no_torch_and_knows_its_functions() -> None:
    code = (
        "import sys, astro_cli; assert set(astro_cli.__all__) <= set(dir(astro_cli)); "
        "print(sorted({'torch', 'rich', 'typer', 'numpy'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
    with pytest.raises(AttributeError, match="no attribute 'fine_tune'"):
        _ = astro_cli.fine_tune


def test_the_default_student_is_that_of_astro_sample(student: Arm) -> None:
    assert student.name == load_student("shapes/causal_forcing").name == "causal_forcing_shapes"
    assert load_student("shapes/causal_forcing", dtype="bf16").network.config == student.network.config


def test_a_stream_has_the_frames_of_the_whole_video(student: Arm) -> None:
    blocks = list(stream(student, [RED, BLUE], frames=21, seed=3))
    video = np.concatenate(blocks, axis=1)
    latents = student.generate([RED, BLUE], [3, 4], student.backbone.num_latents(video.shape[1]))
    with torch.no_grad():
        whole = student.backbone.decode(latents).permute(0, 1, 3, 4, 2).numpy()
    assert len(blocks) > 1
    np.testing.assert_allclose(video, whole, atol=5e-5)
    alone = np.concatenate(list(stream(student, BLUE, frames=21, seed=4)), axis=1)
    np.testing.assert_allclose(alone[0], video[1], atol=5e-5)  # video i has the noise of seed + i


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ((), {}),
        (("--recache", "block_causal", "--renew-sink"), {"recache": "block_causal", "renew_sink": True}),
    ],
)
def test_a_switch_gives_the_frames_of_the_command(student: Arm, astro, monkeypatch, options, arguments) -> None:
    written, write = list[np.ndarray](), Mp4Stream.write
    monkeypatch.setattr(Mp4Stream, "write", lambda self, frame: (written.append(frame), write(self, frame)))
    assert astro("sample", RED, "--frames", "21", "--seed", "3", "--switch", f"9:{BLUE}", *options)[0] == 0
    turned = np.concatenate(list(stream(student, RED, frames=21, seed=3, switches=f"9:{BLUE}", **arguments)), axis=1)
    np.testing.assert_array_equal(turned[0], np.stack(written))


def test_a_switch_changes_what_comes_after_it(student: Arm) -> None:
    plain = np.concatenate(list(stream(student, RED, frames=33)), axis=1)
    turned, kept, plural = (
        np.concatenate(list(stream(student, RED, frames=33, switches=turns, recache=recache)), axis=1)
        for turns, recache in (
            (f"21:{BLUE}", "bidirectional"),
            (f"21:{BLUE}", "none"),
            ([f"21:{BLUE}"], "bidirectional"),
        )
    )
    assert np.array_equal(plain[:, :21], turned[:, :21])
    assert np.abs(plain[:, 21:] - turned[:, 21:]).mean() > 0.01
    assert np.abs(kept[:, 21:] - turned[:, 21:]).mean() > 0.001
    assert np.array_equal(plural, turned)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"prompts": []}, PromptError, "found none"),
        ({"prompts": "a corgi"}, PromptError, "corgi"),
        ({"prompts": RED, "seconds": 1, "frames": 3}, StreamError, "found frames too"),
        ({"prompts": RED, "switches": ["soon:x"]}, StreamError, "expected FRAME_OR_SECONDS:PROMPT"),
        ({"prompts": RED, "switches": "soon:x"}, StreamError, "soon:x: expected FRAME_OR_SECONDS:PROMPT"),
        ({"prompts": RED, "frames": 6, "switches": [f"60:{BLUE}"]}, StreamError, "switches: 60: past the end"),
        ({"prompts": RED, "frames": 6, "switches": f"0:{BLUE}"}, StreamError, "switches: 0: expected a time after"),
        ({"prompts": RED, "frames": 21, "switches": "9:a corgi"}, PromptError, "corgi"),
        ({"prompts": RED, "recache": "all"}, StreamError, "recache: found 'all', allowed: none, bidirectional"),
        ({"prompts": RED, "recache": "none", "renew_sink": True}, StreamError, "renew_sink: found True"),
    ],
)
def test_what_cannot_be_streamed_is_refused_before_anything_is_made(student, arguments, error, says) -> None:
    with pytest.raises(error) as caught:
        stream(student, **arguments)
    assert says in str(caught.value)


def test_a_run_is_trained_loaded_and_evaluated(student: Arm, tmp_path, capsys) -> None:
    run = train("astrolabe_causal_shapes", overrides=SMALL, steps=1, seed=5, out=tmp_path / "run", progress=False)
    assert isinstance(run, RunDir)
    assert run.finished
    assert capsys.readouterr() == ("", "")
    tuned = load_student(run.path)
    assert (tuned.name, tuned.seed) == ("astrolabe_causal_shapes", 5)
    before = evaluate(student, "shapes", seed=5, prompts=2, results=tmp_path)
    after = evaluate(tuned, "shapes", prompts=2, results=tmp_path)
    assert before.keys() == after.keys() >= {"vq", "mq", "ta"}
    record = after["vq"]
    assert (record.arm, record.seed, record.weights_hash) == (tuned.name, 5, tuned.weights_hash())
    assert record.mean == pytest.approx(sum(record.scores) / 2)
    again = evaluate(tuned, "shapes", prompts=2, results=tmp_path)
    assert again["vq"].created == record.created  # recorded: not scored again
    with pytest.raises(AstroError, match="holds this recipe's run already"):
        train("astrolabe_causal_shapes", overrides=SMALL, steps=1, seed=5, out=tmp_path / "run", progress=False)


def test_loras_of_two_strengths_have_two_hashes(tmp_path) -> None:
    from safetensors.torch import save_file

    layer = "blocks.0.attn1.to_q"
    size = load_student().network.config.dim
    halves = {f"{layer}.lora_A.weight": torch.ones(1, size), f"{layer}.lora_B.weight": torch.ones(size, 1)}
    save_file(halves, tmp_path / "a.safetensors")
    arms = [load_student(lora=[f"{tmp_path / 'a.safetensors'}:{strength}"]) for strength in (1, 0.5, 0)]
    assert len({arm.weights_hash() for arm in arms}) == 3
    assert arms[2].weights_hash() == load_student().weights_hash()


def test_wrong_names_are_refused(student: Arm, tmp_path) -> None:
    with pytest.raises(RecordError, match="no such suite"):
        evaluate(tmp_path, "shape")
    with pytest.raises(RecordError, match="scores a folder of videos, found a student"):
        evaluate(student, "vbench")
    with pytest.raises(RecipeError):
        train("astrolabe_casual_shapes")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        *[({"seconds": value}, f"seconds: found {value}, expected a number above 0") for value in (NAN, INF, -1, 0)],
        ({"seconds": "4"}, "seconds: found '4', expected a number above 0"),
        *[({"seed": value}, f"seed: found {value}, expected a whole number from 0") for value in (-1, 1.5, True)],
        ({"seed": LARGEST + 1}, "seed: found 9223372036854775808, expected a whole number from 0"),
        ({"frames": "12"}, "frames: found '12', expected a whole number from 1"),
        ({"frames": 0}, "frames: found 0, expected a whole number from 1"),
    ],
)
def test_lengths_and_seeds_that_cannot_be_are_refused(student: Arm, arguments, says) -> None:
    with pytest.raises(StreamError) as caught:
        stream(student, RED, **arguments)
    assert says in str(caught.value)


def test_numbers_of_numpy_are_numbers(student: Arm) -> None:
    own = next(stream(student, RED, frames=3, seed=3))
    assert np.array_equal(next(stream(student, RED, frames=np.int64(3), seed=np.int64(3))), own)
    assert np.array_equal(next(stream(student, RED, seconds=np.float32(0.1), seed=3)), own)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"dtype": "fp16"}, "dtype: found 'fp16', allowed: fp32, bf16"),
        ({"device": "tpu"}, "device: found 'tpu', allowed: auto, cpu, cuda"),
        ({"cache": {"windw": 12}}, "cache: windw: unknown key\nhint: did you mean 'window'?"),
        ({"cache": {"window": "12"}}, "cache: window: found '12', expected "),
        ({"cache": {"window": 0}}, "cache: window: found 0, expected greater than 0"),
        ({"cache": {"sink": -1}}, "cache: sink: found -1, expected greater than or equal to 0"),
        ({"cache": {"alpha": NAN}}, "cache: alpha: found nan, expected a finite number"),
        ({"cache": {"policy": "mean"}}, "cache: policy: found 'mean', expected 'fixed' or 'ema'"),
        ({"cache": 12}, "cache: found 12, expected fields: window, sink, relative, policy, alpha"),
    ],
)
def test_a_student_is_not_loaded_with_wrong_values(arguments, says) -> None:
    with pytest.raises(RecipeError) as caught:
        load_student(**arguments)
    assert says in str(caught.value)


def test_right_fields_of_a_cache_are_taken() -> None:
    arm = load_student(cache={"window": 12, "sink": 3, "relative": True, "alpha": 1})
    cache = arm.stream_spec(3).cache
    assert (cache.window, cache.sink, cache.relative, cache.alpha) == (12, 3, True, 1)
    assert load_student(cache={"window": None}).stream_spec(3).cache.window is None


@pytest.mark.parametrize(
    ("suite", "arguments", "says"),
    [
        *[("shapes", {"prompts": value}, f"prompts: found {value}, expected a whole number") for value in (-2, 0, 1.5)],
        ("vbench", {"prompts": 0}, "prompts: found 0, expected a whole number"),
        ("shapes", {"seed": -1}, "seed: found -1, expected a whole number from 0"),
        ("nope", {}, "nope: no such suite\nhint: allowed: "),
        ("shapes-lnog", {}, "no such suite\nhint: did you mean 'shapes-long'?"),
        ("vbnch", {}, "no such suite\nhint: did you mean 'vbench'?"),
    ],
)
def test_an_evaluation_that_cannot_be_is_refused(student: Arm, tmp_path, suite, arguments, says) -> None:
    with pytest.raises(RecordError) as caught:
        evaluate(student, suite, results=tmp_path, **arguments)
    assert says in str(caught.value)
    assert list(tmp_path.iterdir()) == []

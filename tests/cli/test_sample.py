"""`astro sample` on the embedded world: prompts, seeds, switches, batches, interruption, typing, refusals."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch

from astro_cli.commands import interactive
from astro_cli.commands.preview import HALF_BLOCK, half_blocks
from astro_cli.config.errors import StreamError
from astro_cli.generate.media import to_uint8
from astro_cli.generate.mp4 import Mp4Stream
from astro_cli.generate.plan import Length, Switch, Video, batches, parse_switches, place, plan
from astro_cli.models import weights
from astro_cli.models.shapes_backbone import load_shapes_backbone
from astro_cli.models.wan_backbone import WanBackbone
from eval.inputs.sidecars import list_sidecars

RED, BLUE = "a large red circle moves right slowly over a gray plain background", "a small blue square moves left fast"
GREEN = "a small green cross stays still"
ROUNDING = 1  # of 255: matrix products of another batch size round differently


def sidecars(folder: Path = Path("samples")) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


@pytest.fixture
def written(monkeypatch) -> dict[str, list[np.ndarray]]:
    """Every frame as it goes into a video file, by the file's path: what was made, before H.264 loses some of it."""
    frames: dict[str, list[np.ndarray]] = {}
    write = Mp4Stream.write

    def record(self, frame):
        frames.setdefault(str(self.path), []).append(to_uint8(frame).astype(int))
        write(self, frame)

    monkeypatch.setattr(Mp4Stream, "write", record)
    return frames


def decode(path: Path | str) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


# --- what is made


def test_prompts_times_seeds_in_any_batch_are_the_same_videos(run_sample, written):
    arguments = (RED, BLUE, "--seeds", "0,3", "--frames", "21", "--switch", f"9:{GREEN}")
    assert run_sample(*arguments, "--out", "one")[0] == 0
    assert run_sample(*arguments, "--out", "many", "--batch", "3")[0] == 0
    one, many = sidecars(Path("one")), sidecars(Path("many"))
    assert [(card["prompt"], card["seed"]) for card in one] == [(RED, 0), (RED, 3), (BLUE, 0), (BLUE, 3)]
    assert [card["batch"] for card in many] == [3, 3, 3, 1]
    clips = [np.stack(written[card["video"]]) for card in one]
    for clip, card in zip(clips, many, strict=True):
        assert np.abs(np.stack(written[card["video"]]) - clip).max() <= ROUNDING
        assert decode(card["video"]).shape == (21, 192, 192, 3)  # 32 pixels, enlarged
    assert np.abs(clips[0] - clips[1]).mean() > 5  # another seed is another video


def test_a_sidecar_says_how_its_video_was_made(run_sample):
    assert (
        run_sample(
            RED,
            "--frames",
            "21",
            "--switch",
            f"1.1s:{BLUE}",
            "--window",
            "9",
            "--sink",
            "3",
            "--relative",
            "--ema",
            "0.9",
        )[0]
        == 0
    )
    (card,) = sidecars()
    # 1.1 s is frame 8.8, asked for at 9, a block's start: the first block has 9 frames
    assert card["switches"] == [{"frame": 9, "seconds": 1.125, "prompt": BLUE}]
    assert (card["frames"], card["fps"], card["seed"], card["weights"]) == (21, 8.0, 0, "causal_forcing_shapes")
    assert card["cache"] == {"window": 9, "sink": 3, "relative": True, "policy": "ema", "alpha": 0.9}
    assert len(card["weights_hash"]) == len(card["recipe_hash"]) == 16
    for key in ("frames_per_second", "first_block_seconds", "peak_memory_bytes"):
        assert card[key] > 0
    stem = Path(card["video"]).with_suffix("")
    assert sorted(path.name for path in Path("samples").iterdir()) == [
        f"{stem.name}{end}" for end in (".json", ".mp4", ".png")
    ]


def test_a_switch_changes_what_comes_after_it_and_nothing_before(run_sample, written):
    for name, extra in (
        ("plain", ()),
        ("switched", ("--switch", f"9:{BLUE}")),
        ("kept", ("--switch", f"9:{BLUE}", "--recache", "none")),
    ):
        assert run_sample(RED, "--frames", "21", *extra, "--out", name)[0] == 0
    plain, switched, kept = (np.stack(frames) for frames in written.values())
    assert (switched[:9] == plain[:9]).all()
    assert np.abs(switched[9:] - plain[9:]).mean() > 2
    assert np.abs(switched[9:] - kept[9:]).mean() > 0.1


def test_prompts_come_from_files_and_standard_input(run_sample):
    Path("lines.txt").write_text(f"{RED}\n\n  {BLUE}  \n")
    assert run_sample("--prompts", "lines.txt", "--frames", "3", "--seed", "5", "--out", "a")[0] == 0
    assert run_sample("--frames", "3", "--seed", "5", "--out", "b", stdin=f"{RED}\n{BLUE}\n")[0] == 0
    for folder in ("a", "b"):
        assert [(card["prompt"], card["seed"]) for card in sidecars(Path(folder))] == [(RED, 5), (BLUE, 6)]
    Path("turns.jsonl").write_text(
        json.dumps({"prompts": [RED, BLUE, GREEN]}) + "\n" + json.dumps({"prompt": GREEN}) + "\n"
    )
    assert run_sample("--prompts", "turns.jsonl", "--frames", "45", "--out", "c")[0] == 0
    turns, single = sidecars(Path("c"))
    assert [(turn["frame"], turn["prompt"]) for turn in turns["switches"]] == [(21, BLUE), (33, GREEN)]
    assert (single["prompt"], single["switches"]) == (GREEN, [])


def test_a_length_that_is_rounded_is_said(run_sample):
    code, err = run_sample(RED, "--frames", "13", "--out", "a")
    assert code == 0
    assert (
        "note: 13 frames asked for, 21 are made: videos are whole blocks of 3 latent frames, so 9, 21, 33 frames" in err
    )
    assert sidecars(Path("a"))[0]["frames"] == 21
    for length in (("--frames", "9"), ("--seconds", "1.1"), ()):  # 1.1 s at 8 frames a second: 9
        assert "note:" not in run_sample(RED, *length, "--out", "b")[1]


def test_a_switch_that_waits_for_a_block_is_said(run_sample):
    code, err = run_sample(RED, "--frames", "21", "--switch", f"4:{BLUE}")
    assert code == 0
    assert "note: --switch 4: acts at frame 9, not 4: it waits for the next block" in err


def test_a_recipe_gives_the_cache(run_sample, tmp_path):
    recipe = tmp_path / "wide.toml"
    recipe.write_text('extends = "self_forcing_shapes"\nname = "wide"\n[cache]\nwindow = 6\nsink = 3\n')
    assert run_sample(RED, "--recipe", str(recipe), "--weights", "shapes/causal_forcing", "--frames", "6")[0] == 0
    (card,) = sidecars()
    assert (card["weights"], card["cache"]["window"], card["cache"]["sink"]) == ("wide", 6, 3)


# --- interruption and typing


@pytest.mark.parametrize("how", ["keyboard", "terminated"])
def test_an_interrupted_run_keeps_a_playable_file(run_sample, monkeypatch, how):
    from astro_cli.rollout.engine import Streamer

    next_block, made = Streamer.next_block, []

    def interrupted(self):
        made.append(1)
        if len(made) == 4:
            if how == "keyboard":
                raise KeyboardInterrupt
            signal.raise_signal(signal.SIGTERM)
        return next_block(self)

    monkeypatch.setattr(Streamer, "next_block", interrupted)
    before = signal.getsignal(signal.SIGTERM)
    code, err = run_sample(RED, "--frames", "45")
    assert code == 1
    (kept,) = Path("samples").iterdir()
    assert kept.name.endswith(".partial.mp4")
    assert f"what was made is in samples/{kept.name}" in err
    assert decode(kept).shape[0] == 33  # three blocks
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.fixture
def typed_at_once(monkeypatch) -> None:
    """All typed lines are there before the first block."""

    class Now:
        def __init__(self, target, args, **_):
            self.run = lambda: target(*args)

        def start(self):
            self.run()

    monkeypatch.setattr(interactive, "threading", SimpleNamespace(Thread=Now))  # of the prompts only


def test_typed_prompts_take_over_and_mistakes_are_shown(run_sample, typed_at_once):
    typed = f"a large red cirle\n{RED}\n\n  {BLUE} \na purpel thing\n{GREEN}\n/quit\n{RED}\n"
    code, err = run_sample("--interactive", stdin=typed)
    assert code == 0
    assert "unknown word 'cirle'" in err
    assert "unknown word 'purpel'" in err
    (card,) = sidecars()
    assert (card["prompt"], card["frames"]) == (BLUE, 21)  # no block of RED was made yet
    assert [(turn["frame"], turn["prompt"]) for turn in card["switches"]] == [(9, GREEN)]
    assert next(Path("samples").glob("*.preview.png")).stat().st_size > 0
    code, _ = run_sample(RED, "--interactive", "--frames", "9", "--out", "timed", stdin=f"{BLUE}\n")
    assert code == 0
    assert sidecars(Path("timed"))[0]["frames"] == 9
    code, err = run_sample(RED, "--interactive", "--out", "quit", stdin="/quit\n")
    assert code == 2
    assert "before its first block" in err
    assert not Path("quit").exists()


def test_a_prompt_typed_before_the_first_block_is_the_one_the_video_starts_with(run_sample, typed_at_once, written):
    options = ("--frames", "6", "--seed", "2")
    assert run_sample(RED, "--interactive", *options, "--out", "typed", stdin=f"a large red cirle\n{BLUE}\n")[0] == 0
    assert run_sample(BLUE, *options, "--out", "plain")[0] == 0
    typed, plain = (np.stack(frames) for frames in written.values())
    assert (typed == plain).all()
    (name,) = (path.name for path in Path("plain").glob("*.mp4"))
    listing = list_sidecars(Path("typed"), [*Path("typed").glob("*.mp4")], None)  # as `astro eval` reads the folder
    assert listing.findings == ()
    assert [(entry.prompt, entry.turns, entry.path.name) for entry in listing.entries] == [(BLUE, (), name)]


def test_half_blocks_show_two_pixels_a_cell():
    frame = np.zeros((4, 2, 3), dtype=np.uint8)
    frame[0], frame[1] = (255, 0, 0), (0, 0, 255)
    lines = half_blocks(frame, columns=2, rows=2)
    assert len(lines) == 2
    assert lines[0].startswith(f"\x1b[38;2;255;0;0m\x1b[48;2;0;0;255m{HALF_BLOCK}")
    assert [line.count(HALF_BLOCK) for line in lines] == [2, 2]


# --- planning


class Wan(WanBackbone):
    def __init__(self) -> None:  # counts frames only
        pass


def test_switches_on_wan_begin_with_the_first_block_without_an_earlier_frame():
    length = Length(21, 3, Wan())
    assert length.frames == 81
    # latent n > 0 shows frames 4n - 3 .. 4n; frame 80 at 5 s is in latent 20, so latent 21 would be the first without
    # an earlier one
    assert [length.starts_at(frame) for frame in (0, 1, 9, 10, 21, 69)] == [0, 3, 3, 6, 6, 18]
    assert place([Switch(2.0, True, "b", "2s"), Switch(69, False, "c", "69")], length) == ((9, "b"), (18, "c"))
    with pytest.raises(StreamError, match="past the end"):
        place([Switch(70, False, "b", "70")], length)


@pytest.mark.parametrize("backbone", [Wan(), load_shapes_backbone(empty=True)])
def test_a_switch_at_frame_0_is_refused_on_every_backbone(backbone):
    assert backbone.num_frames(0) == backbone.num_latents(0) == 0
    with pytest.raises(StreamError, match="after the beginning"):
        place([Switch(0, False, "b", "0")], Length(21, 3, backbone))


def names(prompts: list[str], *switches: Switch, seed: int = 4, **settings: str) -> list[str]:
    videos = plan([[prompt] for prompt in prompts], [seed], 0, list(switches), Length(9, 3, Wan()), settings)
    return [video.stem for video in videos]


def test_names_tell_prompts_and_settings_apart():
    same = "x" * 70
    first, second = names([same + "1", same + "2"])
    assert first != second
    assert [name.rpartition("-")[0] for name in (first, second)] == ["x" * 60 + "-seed4"] * 2
    fox, cat = names(["きつねが走る", "ねこが眠る"])  # another script: its letters stay
    assert fox.startswith("きつねが走る-seed4-")
    assert cat.startswith("ねこが眠る-seed4-")
    assert len(set(names(["🦊🦊", "🐈"]))) == 2  # no letter at all: the hash tells them apart
    turned = [Switch(4, False, "b", "4")]
    others = [names([same], *turned), names([same], weights_hash="1"), names([same], seed=5)]
    assert len({*names([same]), *(name for (name,) in others)}) == 4
    assert names([same]) == names([same])
    long = names(["ありがとう" * 100])[0]
    assert len(f"{long}.partial.mp4".encode()) < 255
    twice = names([same, same])
    assert twice[1] == f"{twice[0]}-2"  # asked for twice, made twice


def test_two_calls_into_one_folder_keep_both_videos(run_sample):
    plain, striped = (
        f"a large yellow triangle bounces vertically slowly over a white {kind} background"
        for kind in ("plain", "striped")
    )
    assert plain[:60] == striped[:60]
    for prompt in (plain, striped, plain):  # the last call makes the first video again
        assert run_sample(prompt, "--frames", "3")[0] == 0
    cards = sidecars()
    assert sorted(card["prompt"] for card in cards) == sorted((plain, striped))
    assert all(Path(card["video"]).is_file() for card in cards)
    assert run_sample(plain, "--frames", "21")[0] == 0
    assert len(sidecars()) == 3


def test_a_video_of_another_prompt_is_never_replaced(run_sample):
    assert run_sample(RED, "--frames", "3")[0] == 0
    (path,) = Path("samples").glob("*.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prompt": BLUE}))
    before = path.with_suffix(".mp4").read_bytes()
    code, err = run_sample(RED, "--frames", "3")
    assert code == 2
    assert f"{path.with_suffix('.mp4')}: prompt: holds the video of '{BLUE}', seed 0" in err
    assert path.with_suffix(".mp4").read_bytes() == before


def test_batches_switch_together():
    group = [
        Video("a", 0, ((3, "b"),), "1"),
        Video("a", 1, ((3, "c"),), "2"),
        Video("a", 2, ((6, "b"),), "3"),
        Video("a", 3, ((6, "b"),), "4"),
    ]
    assert [[video.seed for video in part] for part in batches(group, 8)] == [[0, 1], [2, 3]]
    assert [[video.seed for video in part] for part in batches(group, 1)] == [[0], [1], [2], [3]]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [("5s:a b", (5.0, True, "a b")), ("80: a  b ", (80.0, False, "a b")), ("2.5s:a: b", (2.5, True, "a: b"))],
)
def test_switch_options_are_parsed(given, wanted):
    (found,) = parse_switches([given])
    assert (found.time, found.seconds, found.prompt) == wanted


# --- what is refused


def test_weights_that_are_not_finite_make_no_video(run_sample, tmp_path):
    packaged = weights.PACKAGED / "shapes" / "causal_forcing.safetensors"
    state = weights.read(packaged)
    state["proj_out.weight"][0, 0] = float("nan")
    weights.write(tmp_path / "mine.safetensors", state)
    (tmp_path / "mine.json").write_bytes(packaged.with_suffix(".json").read_bytes())
    code, err = run_sample(RED, "--weights", "mine.safetensors")
    assert code == 2
    assert "error: mine.safetensors: proj_out.weight: 1 of its " in err
    assert not Path("samples").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "prompt: empty"),
        (("",), "prompt: empty"),
        (("a red cirle",), "unknown word 'cirle'"),
        ((RED, "--switch", "3s:a red cirle", "--seconds", "6"), "unknown word 'cirle'"),
        ((RED, "--switch", "soon:a red circle"), "--switch: soon:a red circle: expected FRAME_OR_SECONDS:PROMPT"),
        ((RED, "--switch", "3:"), "expected FRAME_OR_SECONDS:PROMPT"),
        ((RED, "--switch", "2.5:a red circle"), "expected FRAME_OR_SECONDS:PROMPT"),
        ((RED, "--switch", f"0:{BLUE}"), "--switch: 0: expected a time after the beginning"),
        (
            (RED, "--switch", f"90s:{BLUE}"),
            "--switch: 90s: past the end: the last block begins at frame 21 (2.6 s) of 33",
        ),
        (
            (RED, "--switch", f"9:{BLUE}", "--switch", f"3:{GREEN}"),
            "--switch: 3: takes over at frame 9, not after the switch before it",
        ),
        ((RED, "--recache", "none", "--renew-sink"), "--renew-sink"),
        ((RED, "--seeds", "0,x"), "--seeds: 0,x: expected whole numbers"),
        ((RED, "--seeds", "0,1,0"), "--seeds: 0,1,0: found a seed twice"),
        ((RED, "--seeds", "0", "--seed", "1"), "--seeds: 0: found --seed too"),
        ((RED, "--seconds", "1", "--frames", "9"), "--seconds: 1: found --frames too"),
        ((RED, "--window", "7", "--sink", "3"), "cache: window: found 7, expected a multiple of the block (3)"),
        ((RED, "--window", "3", "--sink", "3"), "cache: sink: found 3, expected fewer frames than the window (3)"),
        ((RED, "--ema", "0.9", "--window", "6", "--sink", "0"), "--ema: 0.9: there is no sink"),
        ((RED, "--size", "30x32"), "--size: 30x32: expected HEIGHTxWIDTH in multiples of 8 and 8 pixels"),
        ((RED, "--weights", "shapes/causal_forcig"), "did you mean 'shapes/causal_forcing'?"),
        ((RED, "--weights", "nowhere.safetensors"), "no such checkpoint"),
        ((RED, "--wan", "."), "not a checkpoint"),
        ((RED, "--weights", "shapes/teacher", "--frames", "90"), "multi-step teacher and makes clips of 33 frames"),
        ((RED, "--weights", "shapes/teacher", "--switch", f"3:{BLUE}"), "multi-step teacher and takes no switches"),
        ((RED, "--weights", "shapes/teacher", "--interactive"), "multi-step teacher and does not stream"),
        ((RED, "--lora", "nowhere"), "nowhere"),
        ((RED, BLUE, "--interactive"), "--interactive: streams one video"),
        (("--interactive",), "--interactive: the input ended before a prompt"),
        ((RED, "--prompts", "x.txt"), "--prompts: x.txt: found prompts on the command line too"),
        (("--prompts", "x.txt"), "x.txt: --prompts: cannot be read"),
        (("--recipe", "astrolabe_casual_shapes", RED), "did you mean 'astrolabe_causal_shapes.toml'?"),
    ],
)
def test_bad_input_is_refused_and_leaves_nothing(run_sample, tmp_path, arguments, says):
    code, err = run_sample(*arguments)
    assert code == 2
    assert says in err
    assert "error: " in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param("[" * 100_000, "line 1: nested too deeply", id="nested"),
        ("{", "line 1: not JSON"),
        ("[]", "line 1: no prompts"),
        ('{"prompts": ["a", ""]}', "line 1: no prompts"),
        ("\n", "no prompt in this file"),
    ],
)
def test_a_bad_prompt_file_is_refused(run_sample, tmp_path, content, says):
    (tmp_path / "bad.jsonl").write_text(content)
    code, err = run_sample("--prompts", "bad.jsonl")
    assert code == 2
    assert says in err
    assert [path.name for path in tmp_path.iterdir()] == ["bad.jsonl"]


def test_shapes_weights_take_no_wan_folder(run_sample):
    assert "leave --wan out" in run_sample(RED, "--weights", "shapes/causal_forcing", "--wan", ".")[1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_is_refused_where_there_is_none(run_sample):
    assert "no CUDA device is available" in run_sample(RED, "--device", "cuda")[1]

"""`astro prefer` on Wan 2.1 from a tiny random folder in the real layout: a user's videos in another order of frames,
pairs of a file, and the policy's own rollouts.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import reward_folders
from small_videos import moving_noise, write_video
from test_bad_input import message
from test_training import run, same_bits
from wan_folder import write_wan_folder

from astro_cli.generate.mp4 import write_mp4

SETS = (
    "model.dim=24", "model.ffn_dim=32", "model.num_heads=2", "model.num_layers=2", "model.freq_dim=8",
    "model.text_dim=16", "video.frames=3", "video.block=3", "video.height=4", "video.width=6", "video.fps=8",
    "seed=0", "lora.rank=2", "sampler.steps=2", "runtime.precision=no", "runtime.gradient_checkpointing=false",
    "runtime.device=cpu", "runtime.save_every=1",
)  # fmt: skip
STAGE = ("steps=2", "batch=4", "accumulate=2", "objective.validation=1", "objective.validation_every=1")
FORMS = "pairs.forms=[{frames=3, height=4, width=6}, {frames=2, height=4, width=4}]"


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(tmp_path / "checkpoints"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = write_wan_folder(tmp_path / "checkpoints" / "Wan2.1-T2V-1.3B-Diffusers")

    def of(recipe: str, out: str, *more: str) -> list[str]:
        stage = [f"stages.dpo.{item}" for item in (*STAGE, *more)]
        flags = [part for item in (*SETS, f"base.student={folder / 'transformer'}", *stage) for part in ("--set", item)]
        return ["prefer", "--recipe", recipe, *flags, "--out", str(tmp_path / out)]

    return of


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Three that move and one that does not."""
    folder = tmp_path / "videos"
    for seed, name in enumerate("abc"):
        write_video(folder / f"{name}.mp4", seed=seed, frames=9)
    write_mp4(moving_noise(5, 9)[:1].repeat(9, 0), folder / "still.mp4", 8)
    for path in list(folder.iterdir()):
        path.with_suffix(".txt").write_text("a red circle moves right")
    return folder


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_users_videos_are_perturbed_then_encoded(videos, arguments, tmp_path, monkeypatch, capsys):
    kept = f"data.clips={videos}"
    assert run(arguments("dpo_temporal", "one", kept, FORMS, "steps=3"), monkeypatch) == 0
    text = capsys.readouterr().err.replace("\n", " ")
    assert "still.mp4: nothing moves: reverse changes pixels by 0.00" in text
    found = rows(tmp_path / "one")
    assert found[0]["student/preference_loss"] == pytest.approx(math.log(2), abs=1e-4)  # beta multiplies rounding
    assert {"validation/margin/reverse", "validation/margin/shuffle", "validation/margin/freeze"} <= found[0].keys()
    assert all(row["student/grad_norm"] > 0 for row in found)
    assert len({row["pairs/frames"] for row in found}) == 2
    whole = tmp_path / "one" / "final" / "student.safetensors"
    assert run(arguments("dpo_temporal", "two", kept, FORMS, "steps=3"), monkeypatch) == 0
    assert same_bits(whole, tmp_path / "two" / "final" / "student.safetensors")


def test_pairs_of_a_file_and_the_policys_own(videos, arguments, tmp_path, monkeypatch):
    path = videos / "pairs.jsonl"
    named = (("a", "b"), ("b", "c"), ("c", "a"))
    lines = [{"prompt": "a red circle", "chosen": f"{a}.mp4", "rejected": f"{b}.mp4"} for a, b in named]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run(arguments("dpo_human", "file", f"data.pairs={path}"), monkeypatch) == 0
    assert "margin/file" in rows(tmp_path / "file")[1]
    assert all(row["student/grad_norm"] > 0 for row in rows(tmp_path / "file"))
    reward_folders.write_videoalign(tmp_path / "checkpoints")
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a large red circle moves right\na cat sleeps\n")
    exact = 'pairs.scorers={videoalign={dtype="float32"}}'
    hard = (f"data.prompts={prompts}", exact, "pairs.group=2", "steps=1", "objective.validation=0")
    assert run(arguments("dpo_hard", "hard", *hard), monkeypatch) == 0
    assert rows(tmp_path / "hard")[0]["margin/group"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("recipe", "sets", "says"), [
    ("dpo_temporal", ["data={}"], "stages.dpo.data.clips: missing, a folder of videos with prompts"),
    ("dpo_temporal", [], "[ ] clips: videos"),
    ("dpo_human", [], "[ ] pairs: pairs.jsonl"),
    ("dpo_hard", [], "[ ] prompts: prompts/teleboost.txt"),
    ("dpo_human", ["pairs.kinds={rater=1.0}", "data={}"], "pairs.kinds.rater: found a share on Wan"),
    ("dpo_hard", ['pairs.rewards={"videoalign.vqq"=1.0, "videoalign.ta"=0.0}'], "rewards.videoalign.vqq: unknown"),
])  # fmt: skip
def test_what_is_missing_or_wrong_is_said_before_a_folder_is_made(
    recipe, sets, says, arguments, tmp_path, monkeypatch, capsys
):
    assert run(arguments(recipe, "run", *sets), monkeypatch) == 2
    assert says in message(capsys)
    assert not (tmp_path / "run").exists()

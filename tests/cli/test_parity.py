"""`astro doctor parity` on recordings made here at other sizes by the plain loop (bench/stream.py), which shares no
code with the engine.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from astro_cli.__main__ import main
from astro_cli.core.flow import warp_timesteps
from astro_cli.models.wan.config import WanConfig
from astro_cli.models.wan.transformer import CausalWan
from bench.plain_loop import PlainLoop, plain_block

GOLDEN = Path(__file__).parents[1] / "golden"
STEPS = warp_timesteps((1000, 750, 500), 3.0).float()
# (dim, heads, layers), (rows, columns) of latents, frames, block, cases: odd head counts and widths, blocks of 1 and 4,
# other windows and sinks
SIZES = {
    "framewise": (
        (30, 3, 2),
        (4, 6),
        12,
        1,
        {
            "win5_sink2": {"window": 5, "sink": 2, "policy": "fixed", "keys": "roped"},
            "relative": {"window": 4, "sink": 1, "policy": "fixed", "keys": "unroped_relative"},
        },
    ),
    "blocks_of_4": (
        (40, 5, 3),
        (6, 4),
        24,
        4,
        {
            "global": {"window": None, "sink": 0, "policy": "none", "keys": "roped"},
            "win8_sink2": {"window": 8, "sink": 2, "policy": "fixed", "keys": "roped"},
            "ema": {"window": 12, "sink": 4, "policy": "ema", "keys": "unroped_relative", "alpha": 0.5},
        },
    ),
    "image": (
        (24, 1, 1),
        (8, 4),  # one token a row: oneDNN's bfloat16 convolution is wrong on CPUs with AMX (torch 2.13)
        13,
        4,
        {
            "alone": {"window": None, "sink": 0, "policy": "none", "keys": "roped", "first_frame_alone": True},
            "alone_win9": {"window": 9, "sink": 1, "policy": "fixed", "keys": "roped", "first_frame_alone": True},
        },
    ),
    "switched": (
        (24, 2, 2),
        (4, 4),
        16,
        2,
        {
            "keep": {
                "window": 6,
                "sink": 2,
                "policy": "fixed",
                "keys": "roped",
                "switch": {
                    "frame": 10,
                    "context": "in.ctx2",
                    "recache": "bidirectional",
                    "recache_frames": 6,
                    "keep_sink": True,
                },
            },
            "renew": {
                "window": 6,
                "sink": 2,
                "policy": "fixed",
                "keys": "roped",
                "switch": {
                    "frame": 10,
                    "context": "in.ctx2",
                    "recache": "bidirectional",
                    "recache_frames": 6,
                    "keep_sink": False,
                },
            },
            "early": {
                "window": 6,
                "sink": 2,
                "policy": "fixed",
                "keys": "roped",
                "switch": {"frame": 4, "context": "in.ctx2", "recache": "bidirectional", "keep_sink": False},
            },
            "text_only": {
                "window": 6,
                "sink": 2,
                "policy": "fixed",
                "keys": "roped",
                "switch": {"frame": 3, "context": "in.ctx2", "recache": "none"},
            },
        },
    ),
}


@torch.no_grad()
def record(folder: Path, name: str) -> None:
    """Write one recording: descriptor, tensors and its weights."""
    (dim, heads, layers), (height, width), frames, block, cases = SIZES[name]
    torch.manual_seed(len(name))
    network = CausalWan(
        WanConfig(
            dim=dim, ffn_dim=48, num_heads=heads, num_layers=layers, in_channels=3, freq_dim=10, text_dim=7, text_len=5
        )
    ).eval()
    tensors = {
        "in.noise": torch.randn(2, frames, 3, height, width),
        "in.ctx": torch.randn(2, 5, 7),
        "in.ctx2": torch.randn(2, 5, 7),
    }
    tensors |= {
        "in.renoise": torch.randn(frames // block + 1, len(STEPS) - 1, 2, block, 3, height, width),
        "in.warped": STEPS,
    }
    for case, rule in cases.items():
        record_case(network, case, rule, block, tensors)
    model = {
        "dim": dim,
        "ffn_dim": 48,
        "num_heads": heads,
        "num_layers": layers,
        "in_dim": 3,
        "out_dim": 3,
        "freq_dim": 10,
        "text_dim": 7,
        "text_len": 5,
        "patch_size": [1, 2, 2],
        "model_type": "t2v",
        "eps": 1e-6,
    }
    info = {"model": model, "frames_per_block": block, "weights": f"w_{name}.safetensors", "source": "the plain loop"}
    info["cases"] = {case: {"kind": "cache", **rule} for case, rule in cases.items()}
    (folder / f"{name}.json").write_text(json.dumps(info))
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / f"{name}.safetensors")
    save_file(network.state_dict(), folder / info["weights"])


def record_case(network: CausalWan, case: str, rule: dict, block: int, tensors: dict[str, torch.Tensor]) -> None:
    noise, text, switch = tensors["in.noise"], tensors["in.ctx"], dict(rule.get("switch") or {})
    frames, grid = noise.shape[1], (noise.shape[-2] // 2, noise.shape[-1] // 2)
    relative = rule["keys"] == "unroped_relative"
    loop = PlainLoop(
        network, 2, grid, rule["window"] or frames, rule["sink"], relative=relative, alpha=rule.get("alpha")
    )
    video, start, index = [], 0, 0
    while start < frames:
        if switch and start >= switch["frame"]:
            text = tensors[switch["context"]]
            loop.switch()
            recache(loop, torch.cat(video, 1), text, switch, rule)
            switch = {}
        size = 1 if rule.get("first_frame_alone") and start == 0 else block

        def keep(step: int, x_t: torch.Tensor, flow: torch.Tensor, prefix: str = f"{case}.b{index}") -> None:
            tensors[f"{prefix}.s{step}.x_t"], tensors[f"{prefix}.s{step}.flow"] = x_t.clone(), flow.clone()

        fresh = tensors["in.renoise"][index, :, :, :size]
        video.append(
            plain_block(
                loop, noise[:, start : start + size], STEPS, text, start, lambda step, fresh=fresh: fresh[step], keep
            )
        )
        start, index = start + size, index + 1
    tensors[f"{case}.out"] = torch.cat(video, 1)
    tensors[f"{case}.cache_end"] = torch.stack((loop.global_end[0], loop.local_end[0]))
    last = len(loop.k) - 1
    tensors[f"{case}.cache_k.{last}"], tensors[f"{case}.cache_v.{last}"] = loop.k[last].clone(), loop.v[last].clone()


def recache(loop: PlainLoop, video: torch.Tensor, text: torch.Tensor, switch: dict, rule: dict) -> None:
    """LongLive's released pass: one forward over the last frames that the window holds, in which a kept sink's slots
    are not written.
    """
    if switch["recache"] == "none":
        return
    made = video.shape[1]
    first = made - min(rule["window"], made)
    loop.protected = loop.sink if switch["keep_sink"] else 0
    loop.forward(video[:, first:], torch.zeros(2, made - first), text, first)
    loop.protected = 0


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("recordings")
    for name in SIZES:
        record(folder, name)
    return folder


@pytest.fixture
def parity(monkeypatch, capsys):
    """Runs `astro doctor parity ...`: (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["astro", "doctor", "parity", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        return (caught.value.code if isinstance(caught.value.code, int) else 0), out, err

    return run


@pytest.fixture
def copied(recordings, tmp_path) -> Path:
    """One recording in a folder of its own, to be damaged."""
    for name in ("image.json", "image.safetensors", "w_image.safetensors"):
        (tmp_path / name).write_bytes((recordings / name).read_bytes())
    return tmp_path


def test_recordings_of_other_sizes_pass_unseen(parity, recordings):
    code, out, err = parity(recordings, "--json")
    report = json.loads(out)
    assert (code, err) == (0, "")
    assert report["passed"]
    assert [(case["recording"], case["case"]) for case in report["cases"]] == [
        (name, case) for name in sorted(SIZES) for case in SIZES[name][4]
    ]
    for case in report["cases"]:
        assert [check["compared"] for check in case["checks"]] == ["flow", "out", "cache", "counts"]
        assert all(check["largest_error"] <= 1e-5 for check in case["checks"]), case


def test_the_released_recordings_pass(parity):
    code, out, _ = parity(GOLDEN)
    assert code == 0
    assert "13 of 13 cases pass" in out
    assert all(line.split()[-1] == "ok" for line in out.splitlines()[1:-1])


def test_a_wrong_number_fails_with_its_case(parity, copied):
    tensors = load_file(copied / "image.safetensors")
    tensors["alone.b1.s0.flow"][0, 0] += 1e-3
    save_file(tensors, copied / "image.safetensors")
    code, out, _ = parity(copied)
    assert code == 1
    assert [line.split()[1:3] for line in out.splitlines() if line.endswith("FAIL")] == [["alone", "flow"]]
    assert "1 of 2 cases pass" in out


def test_missing_optional_tensors_are_not_compared(parity, copied):
    tensors = load_file(copied / "image.safetensors")
    kept = {
        key: value for key, value in tensors.items() if key.startswith("in.") or key.endswith(".out") or ".s0." in key
    }
    save_file(kept, copied / "image.safetensors")
    code, out, _ = parity(copied, "--json")
    assert code == 0
    assert [[check["compared"] for check in case["checks"]] for case in json.loads(out)["cases"]] == [
        ["flow", "out"]
    ] * 2


def edit(folder: Path, **changes: object) -> None:
    """Change keys of the descriptor, and those it does not have in its last case."""
    path = folder / "image.json"
    info = json.loads(path.read_text())
    for key, value in changes.items():
        target = info if key in info else info["cases"]["alone_win9"]
        target[key] = value
    path.write_text(json.dumps(info))


@pytest.mark.parametrize(("change", "key", "word"), [
    ({"kind": "flipbook"}, "cases.alone_win9.kind", "'mask', 'teacher_forcing', 'bidirectional' or 'cache'"),
    ({"keys": "upside_down"}, "cases.alone_win9.keys", "'roped' or 'unroped_relative'"),
    ({"sink": 9}, "cases.alone_win9.sink", "fewer frames than the window"),
    ({"window": 7}, "cases.alone_win9.window", "a multiple of the block"),
    ({"context": "in.nothing"}, "in.nothing", "missing"),
    ({"switch": {"frame": 40, "context": "in.ctx2"}}, "cases.alone_win9.40", "past the end"),
    ({"frames_per_block": 5}, "cases.alone.frames", "1 + a multiple of the block"),
    ({"weights": "elsewhere.safetensors"}, "elsewhere.safetensors", "missing"),
])  # fmt: skip
def test_bad_descriptors_are_refused_with_file_and_key(parity, copied, change, key, word):
    edit(copied, **change)
    code, _, err = parity(copied)
    assert code == 2
    assert err.startswith(f"error: {copied}")
    assert key in err
    assert word in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda folder: (folder / "image.json").write_text("{"), "not readable JSON"),
        (lambda folder: (folder / "image.json").unlink(), "no recordings here"),
        (lambda folder: (folder / "image.safetensors").unlink(), "image.safetensors: missing"),
        (
            lambda folder: (folder / "w_image.safetensors").write_bytes(
                (folder / "w_image.safetensors").read_bytes()[:300]
            ),
            "damaged",
        ),
        (
            lambda folder: (folder / "w_image.safetensors").write_bytes((folder / "image.safetensors").read_bytes()),
            "weights of another model",
        ),
        (lambda folder: (folder / "image.json").write_text(json.dumps({"cases": {}})), "missing"),
    ],
)
def test_unusable_folders_are_refused(parity, copied, damage, word):
    damage(copied)
    code, out, err = parity(copied)
    assert (code, out) == (2, "")
    assert word in err
    assert err.startswith("error: ")


def test_no_folder(parity, tmp_path):
    code, _, err = parity(tmp_path / "nowhere")
    assert code == 2
    assert "no such folder" in err


def test_bfloat16_has_its_own_tolerance(parity, copied):
    code, out, _ = parity(copied, "--dtype", "bfloat16", "--json")
    assert code == 0
    assert {check["tolerance"] for case in json.loads(out)["cases"] for check in case["checks"]} == {0.1, 0.0}

"""Hub ids: they resolve in the local Hugging Face cache, pins included, and one that is not there names the line that
brings it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
import torch
from hub_cache import COMMIT
from released_layouts import forward, network, write_diffusers

from astro_cli.config.errors import CheckpointError
from astro_cli.models.checkpoint import into, load_transformer
from astro_cli.models.importing import import_checkpoint
from astro_cli.models.wan_backbone import wan_folder
from astro_cli.rewards import scorer_places
from astro_cli.zoo import hub
from astro_cli.zoo.entries import known, of_path
from astro_cli.zoo.hub import HubId
from astro_cli.zoo.places import locate
from eval.judges import judge_location
from eval.networks import weights_paths
from eval.vbench import vbench_files

WAN, SF = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "gdhe17/Self-Forcing"
INDEX = "transformer/diffusion_pytorch_model.safetensors.index.json"
OTHER = "f" * 40


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch, hub_cache):
    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(tmp_path / "checkpoints"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a/b", HubId("a/b")),
        ("a/b@v1.0", HubId("a/b", "v1.0")),
        ("a/b/x/y.pt", HubId("a/b", None, "x/y.pt")),
        ("a/b@main/y.pt", HubId("a/b", "main", "y.pt")),
        ("a/b@refs/pr/1", HubId("a/b", "refs/pr/1")),
        ("a/b@refs/convert/x/y/z.pt", HubId("a/b", "refs/convert/x", "y/z.pt")),
        ("a/b@refs/y.pt", HubId("a/b", "refs", "y.pt")),
        ("self_forcing", None),
        ("/a/b", None),
        ("./a/b", None),
        ("~/a", None),
        ("a/b/../../c", None),
        ("C:\\a\\b", None),
        ("", None),
    ],
)
def test_the_form_of_a_hub_id(text, expected):
    assert hub.parse(text) == expected
    assert expected is None or str(expected) == text


def test_a_repository_resolves_to_its_snapshot_and_a_file_to_its_link(hub_cache):
    snapshot = hub_cache.put("me/net", {"config.json": b"{}", "lora/a.safetensors": b"1"})
    assert locate("me/net") == locate("me/net@main") == locate(f"me/net@{COMMIT}") == snapshot
    assert locate("me/net/lora/a.safetensors") == snapshot / "lora/a.safetensors"


def test_a_pin_takes_its_own_snapshot(hub_cache):
    new = hub_cache.put("me/net", {"config.json": b"{}"})
    old = hub_cache.put("me/net", {"config.json": b"[]"}, commit=OTHER, ref="v1")
    assert [locate(f"me/net@{pin}") for pin in ("main", "v1", OTHER)] == [new, old, old]
    other = hub_cache.put("me/net", {"config.json": b"{}"}, commit="e" * 40, ref="refs/pr/1")
    assert locate("me/net@refs/pr/1") == other
    assert locate("me/net@refs/pr/1/config.json") == other / "config.json"


def test_a_repository_of_files_stands_for_its_first_release(hub_cache):
    snapshot = hub_cache.put(SF, {"checkpoints/ode_init.pt": b"1", "checkpoints/self_forcing_dmd.pt": b"2"})
    student = snapshot / "checkpoints/self_forcing_dmd.pt"
    assert locate(SF) == locate("self_forcing") == locate(f"{SF}@main") == student
    file = "checkpoints/ode_init.pt"
    assert locate(f"{SF}/{file}") == locate("self_forcing_ode_init") == snapshot / file
    assert [known(text).name for text in (SF, f"{SF}@main", f"{SF}/{file}")] == [
        "self_forcing",
        "self_forcing",
        "self_forcing_ode_init",
    ]
    assert of_path(student).name == "self_forcing"


def test_the_checkpoints_folder_goes_before_the_cache_for_names_and_after_it_for_hub_ids(hub_cache, folder):
    snapshot = hub_cache.put(SF, {"checkpoints/self_forcing_dmd.pt": b"2"})
    own = folder / "checkpoints/Self-Forcing/checkpoints/self_forcing_dmd.pt"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"1")
    assert locate("self_forcing") == own
    assert locate(SF) == snapshot / "checkpoints/self_forcing_dmd.pt"
    shutil.rmtree(hub_cache.folder)
    assert locate(SF) == own
    with pytest.raises(CheckpointError):
        locate(f"{SF}@main")  # a pin is of the cache


def test_a_path_goes_before_a_hub_id(hub_cache, folder):
    hub_cache.put("me/net", {"config.json": b"{}"})
    (folder / "me/net").mkdir(parents=True)
    assert str(locate("me/net")) == "me/net"


def test_a_part_of_a_folder_is_not_taken_for_the_whole(hub_cache):
    hub_cache.put(WAN, {"vae/config.json": b"{}"})
    with pytest.raises(CheckpointError, match="in the Hugging Face cache"):
        locate(WAN)
    snapshot = hub_cache.put(WAN, {INDEX: b"{}"})
    assert locate(WAN) == wan_folder(None) == wan_folder(WAN) == snapshot


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("me/net", "hf download me/net"),
        ("me/net@v1", "hf download me/net --revision v1"),
        ("me/net/x/y.safetensors", "hf download me/net x/y.safetensors"),
        (SF, f"hf download {SF} checkpoints/self_forcing_dmd.pt"),
        (f"{SF}@abc", f"hf download {SF} checkpoints/self_forcing_dmd.pt --revision abc"),
        (WAN, f"hf download {WAN}"),
        ("causal_forcing", "hf download zhuhz22/Causal-Forcing chunkwise/causal_forcing.pt"),
    ],
)
def test_what_is_not_in_the_cache_names_the_line_that_brings_it(text, line):
    with pytest.raises(CheckpointError) as caught:
        locate(text)
    assert str(hub.cache_folder()) in caught.value.what
    assert caught.value.exit_code == 2
    assert line in caught.value.hint.replace("of the hub: ", "").split("; ")


def test_a_mistyped_path_in_a_folder_that_is_here_is_no_hub_id(folder):
    (folder / "runs").mkdir()
    with pytest.raises(CheckpointError) as caught:
        locate("runs/mine/final/student.safetensors")
    assert "hf download" not in caught.value.hint


def test_the_cache_is_that_of_the_environment(folder):
    folder.joinpath("home").mkdir()
    code = "from astro_cli.zoo.hub import cache_folder; print(cache_folder())"
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_CACHE"}
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == str(folder / "home" / "hub")


def test_a_transformer_of_the_cache_computes_what_its_folder_does(hub_cache, folder):
    wanted = network(3)
    snapshot = hub_cache.put_folder(WAN, write_diffusers(folder / "made", wanted.state_dict(), root=True, size="1KB"))
    checkpoint = load_transformer(WAN)
    loaded = network(4)
    into(loaded, checkpoint)
    assert torch.equal(forward(loaded), forward(wanted))
    assert all(path.is_relative_to(snapshot) for path in checkpoint.files)


def test_an_import_of_a_hub_id_takes_the_releases_or_the_repositorys_name(hub_cache, folder):
    for repo in (WAN, "me/tuned"):
        hub_cache.put_folder(repo, write_diffusers(folder / "made", network(1).state_dict(), root=True, size="1KB"))
    options = {"lora": (), "dtype": None, "ema": None, "report": lambda *_: None}
    for source, name in ((WAN, "wan_1.3b_diffusers"), ("me/tuned", "tuned")):
        written, _ = import_checkpoint(source, None, **options)
        assert written == folder / "checkpoints" / name


def test_scorers_are_found_in_the_cache(hub_cache, folder, monkeypatch):
    assert "HPSv3" in scorer_places.missing_hpsv3()
    weights = hub_cache.put("MizzenAI/HPSv3", {"HPSv3.safetensors": b"1"}) / "HPSv3.safetensors"
    base = hub_cache.put("Qwen/Qwen2-VL-7B-Instruct", {"config.json": b"{}", "tokenizer.json": b"{}"})
    assert scorer_places.missing_hpsv3() == ""
    assert (scorer_places.find(scorer_places.HPSV3), scorer_places.find(scorer_places.HPSV3_BASE)) == (weights, base)

    files = ("model_config.json", "checkpoint-9/model.pth", "checkpoint-10/model.pth")
    videoalign = hub_cache.put("KlingTeam/VideoReward", dict.fromkeys(files, b"{}"))
    hub_cache.put("Qwen/Qwen2-VL-2B-Instruct", {"config.json": b"{}", "tokenizer.json": b"{}"})
    assert scorer_places.missing_videoalign().startswith("put prompt_template.py of the VideoAlign code")
    template = scorer_places.target("VideoReward") / "prompt_template.py"  # the code's, which the hub does not have
    template.parent.mkdir(parents=True)
    template.write_text("")
    assert scorer_places.missing_videoalign() == ""
    assert scorer_places.find_videoalign() == videoalign
    assert scorer_places.videoalign_template(videoalign) == template
    assert scorer_places.videoalign_step(videoalign).name == "checkpoint-10"

    xl = hub_cache.put("alibaba-pai/VideoCLIP-XL", {"VideoCLIP-XL.bin": b"1"})
    assert weights_paths.require("videoclip_xl/VideoCLIP-XL.bin") == xl / "VideoCLIP-XL.bin"


@pytest.mark.parametrize("name", vbench_files.HUB)
def test_networks_of_vbench_are_found_in_the_cache(hub_cache, folder, monkeypatch, name):
    monkeypatch.setenv(vbench_files.CACHE_VARIABLE, str(folder / "vbench"))
    hub_id = vbench_files.HUB[name]
    own = folder / "vbench" / vbench_files.FILES[name][0]
    assert vbench_files.path_of(name) == own
    assert vbench_files.need(name).missing().startswith(f"weights: hf download {hub_id.repo} {hub_id.file}, or put ")
    cached = hub_cache.put(hub_id.repo, {hub_id.file: b"1"}) / hub_id.file
    assert vbench_files.require(name) == cached
    assert vbench_files.need(name).missing() == ""
    own.parent.mkdir(parents=True)
    own.write_bytes(b"2")
    assert vbench_files.require(name) == own  # VBench's own folder comes first


def test_networks_that_are_no_model_of_the_hub_name_no_line_of_it(hub_cache, folder, monkeypatch):
    monkeypatch.setenv(vbench_files.CACHE_VARIABLE, str(folder / "vbench"))
    for name in vbench_files.FILES.keys() - vbench_files.HUB.keys():
        with pytest.raises(CheckpointError) as caught:
            vbench_files.require(name)
        assert caught.value.hint.startswith("put ")


def test_judges_and_embedders_are_found_in_the_cache(hub_cache, monkeypatch):
    monkeypatch.delenv("ASTRO_JUDGE_URL", raising=False)
    assert "hf download Qwen/Qwen3-VL-Embedding-8B" in judge_location.missing_embedder()
    snapshot = hub_cache.put("Qwen/Qwen3-VL-Embedding-8B", {"config.json": b"{}"})
    assert judge_location.missing_embedder() == ""
    assert judge_location.require("Qwen/Qwen3-VL-Embedding-8B") == judge_location.require("Qwen3-VL-Embedding-8B")
    assert judge_location.require("Qwen3-VL-Embedding-8B") == snapshot
    with pytest.raises(CheckpointError) as caught:
        judge_location.require("you/judge")
    assert caught.value.hint.startswith("hf download you/judge, or put")

"""Bad transformer checkpoints are refused by name and with what was found."""

from __future__ import annotations

import os

import pytest
import torch
from released_layouts import (
    CONFIG,
    network,
    original,
    refusal,
    write_original,
    write_pickle,
)
from safetensors.torch import load_file, save_file

from astro_cli.config.errors import CheckpointError
from astro_cli.models.checkpoint import into, load_transformer

pytestmark = pytest.mark.usefixtures("nowhere")


def test_a_missing_shard_is_named(tmp_path):
    folder = write_original(tmp_path / "w", network().state_dict(), shards=True)
    (folder / "diffusion_pytorch_model-00002-of-00003.safetensors").unlink()
    text = refusal(folder)
    assert "names 1 of 3 shards that are not in its folder: diffusion_pytorch_model-00002-of-00003.safetensors" in text
    assert "diffusion_pytorch_model.safetensors.index.json" in text


def test_shards_without_their_index_are_refused(tmp_path):
    folder = write_original(tmp_path / "w", network().state_dict(), shards=True)
    (folder / "diffusion_pytorch_model.safetensors.index.json").unlink()
    assert "missing: 3 shards without their index" in refusal(folder)


@pytest.mark.parametrize("content", ["{", "[]", '{"weight_map": 3}', '{"weight_map": {"a": "../x.safetensors"}}'])
def test_a_bad_index_is_refused(content, tmp_path):
    (tmp_path / "diffusion_pytorch_model.safetensors.index.json").write_text(content)
    assert "weight_map: " in refusal(tmp_path)


def test_a_shard_without_a_promised_tensor_is_named(tmp_path):
    folder = write_original(tmp_path / "w", network().state_dict(), shards=True)
    shard = folder / "diffusion_pytorch_model-00003-of-00003.safetensors"
    state = load_file(shard)
    lost = sorted(state)[0]
    save_file({key: value for key, value in state.items() if key != lost}, shard)
    text = refusal(folder)
    assert f"lacks 1 tensors its index promises: {lost}" in text
    assert shard.name in text


@pytest.mark.parametrize("file", ["diffusion_pytorch_model-00001-of-00003.safetensors", "cut.pt"])
def test_a_truncated_file_is_named_with_its_size(file, tmp_path):
    folder = write_original(tmp_path / "w", network().state_dict(), shards=True)
    write_pickle(folder / "cut.pt", {"generator": original(network().state_dict())})
    path = folder / file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    text = refusal(path if path.suffix == ".pt" else folder, config=CONFIG)
    assert file in text
    assert f"({path.stat().st_size} bytes)" in text


class Code:
    """Unpickling it would run a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_refused_and_does_not_run(zipped, tmp_path):
    ran = tmp_path / "ran"
    path = tmp_path / "evil.pt"
    torch.save({"generator": Code(f"touch {ran}")}, path, _use_new_zipfile_serialization=zipped)
    text = refusal(path)
    assert "refused, nothing of it ran" in text
    assert f"{os.system.__module__}.system" in text
    assert not ran.exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            {"weights": {"a": torch.zeros(1)}, "step": 3},
            "unknown nesting: found weights, step (holding a), expected generator_ema, generator, model",
        ),
        ({"generator": {"inner": {"a": torch.zeros(1)}}}, "unknown nesting: found generator (holding inner)"),
        ({}, "unknown nesting: found nothing"),
        ([1, 2], "holds a list, expected a dict of tensors"),
        ({"conv.weight": torch.zeros(1)}, "no Wan transformer: found conv; expected patch_embedding"),
        (
            {"blocks.0.x": torch.zeros(1), "patch_embedding.weight": torch.zeros(2, 2, 1, 2, 2)},
            "missing: 3 of the tensors",
        ),
    ],
)
def test_other_content_is_refused_with_what_was_found(content, says, tmp_path):
    torch.save(content, tmp_path / "x.pt")
    assert says in refusal(tmp_path / "x.pt")


@pytest.mark.parametrize(("name", "content", "says"), [
    ("x.pt", b"hello, world", "not a checkpoint (12 bytes)"), ("x.pt", b"", "not a checkpoint (0 bytes)"),
    ("x.pt", b"\x80\x02hello", "x.pt"), ("x.safetensors", b"hello, world", "damaged or not safetensors (12 bytes)"),
    ("x.txt", b"hello", "not a checkpoint: found .txt"),
])  # fmt: skip
def test_what_is_no_checkpoint_is_refused(name, content, says, tmp_path):
    (tmp_path / name).write_bytes(content)
    assert says in refusal(tmp_path / name)


def test_missing_extra_and_misshaped_tensors_are_counted(tmp_path):
    state = network().state_dict()
    lost = {key: value for key, value in state.items() if not key.startswith("blocks.1.attn2.norm")}
    text = refusal(
        write_pickle(tmp_path / "x.pt", original(lost | {"blocks.1.attn2.add_k_proj.weight": torch.zeros(2)})),
        config=CONFIG,
    )
    assert (
        "2 missing (first: blocks.1.attn2.norm_k.weight); 1 unexpected (first: blocks.1.attn2.add_k_proj.weight)"
        in text
    )
    text = refusal(write_pickle(tmp_path / "y.pt", original(state | {"proj_out.bias": torch.zeros(3)})), config=CONFIG)
    assert "proj_out.bias is (3,), expected (16,) (1 tensors differ)" in text  # 2 x 2 pixels of 4 channels


def test_two_copies_and_quantised_weights_are_refused(tmp_path):
    state = network().state_dict()
    twice = original(state) | {"proj_out.bias": state["proj_out.bias"]}
    assert "a second tensor for proj_out.bias" in refusal(write_pickle(tmp_path / "x.pt", twice), config=CONFIG)
    whole = state | {"proj_out.bias": torch.zeros(16, dtype=torch.int8)}
    assert "stored as torch.int8" in refusal(write_pickle(tmp_path / "y.pt", whole), config=CONFIG)
    save_file(state | {"proj_out.bias": torch.zeros(16, dtype=torch.float8_e4m3fn)}, tmp_path / "z.safetensors")
    assert "stored as F8_E4M3" in refusal(tmp_path / "z.safetensors", config=CONFIG)


def test_a_folder_must_say_which_file(tmp_path):
    assert "not a checkpoint: no safetensors and no torch.save file" in refusal(tmp_path)
    for name in ("a.pt", "b.pt"):
        write_pickle(tmp_path / name, original(network().state_dict()))
    assert "found 2 files that may be the transformer: a.pt, b.pt" in refusal(tmp_path)


def test_a_network_of_another_size_is_left_unchanged(tmp_path):
    found = load_transformer(write_original(tmp_path / "w", network(1).state_dict()))
    other = network(2, CONFIG.model_copy(update={"ffn_dim": 48}))
    before = {key: value.clone() for key, value in other.state_dict().items()}
    with pytest.raises(CheckpointError, match="another size"):
        into(other, found)
    assert all(torch.equal(value, before[key]) for key, value in other.state_dict().items())

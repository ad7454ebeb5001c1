"""Transformer checkpoints: every released layout gives the network that wrote it; bad files are refused by name and
with what was found.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from released_layouts import (
    CONFIG,
    LAYOUTS,
    diffusers_model,
    forward,
    network,
    original,
    original_config,
    write_original,
    write_pickle,
)
from safetensors.torch import load_file, save_file

from astro_cli.config.errors import CheckpointError
from astro_cli.models.checkpoint import expected, into, load_transformer
from astro_cli.models.wan import sizes
from astro_cli.models.wan.config import WanConfig
from astro_cli.models.wan.transformer import CausalWan

GOLDEN = Path(__file__).parents[1] / "golden"
# Sizes of Wan 2.1 (config.json of Wan-AI/Wan2.1-T2V-1.3B and -14B); parameters and tensors follow from them.
REAL = {
    "1.3B": (WanConfig(), 1_418_996_800, 825),
    "14B": (WanConfig(dim=5120, ffn_dim=13824, num_heads=40, num_layers=40), 14_288_491_584, 1095),
}


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    """No checkpoint of this machine's is found."""
    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(tmp_path / "none"))


def shaped(checkpoint_of: CausalWan) -> CausalWan:
    """An untrained network of the same sizes, to be filled."""
    return network(99, checkpoint_of.config)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_released_layout_gives_the_network_that_wrote_it(layout, tmp_path):
    write, form, nesting, has_config = LAYOUTS[layout]
    wanted, other = network(1), network(2)
    path = write(tmp_path, wanted.state_dict(), other.state_dict())
    found = load_transformer(path, config=None if has_config else CONFIG)
    assert (found.format, found.nesting) == (form, nesting)
    assert found.config.model_dump(exclude={"text_len"}) == CONFIG.model_dump(exclude={"text_len"})
    filled = shaped(wanted)
    assert not torch.allclose(forward(filled), forward(wanted))
    into(filled, found)
    assert torch.equal(forward(filled), forward(wanted))
    assert found.parameters == sum(p.numel() for p in wanted.parameters())


def test_real_names_of_the_recordings(tmp_path):
    info = json.loads((GOLDEN / "self_forcing.json").read_text())["model"]
    config = WanConfig(
        dim=info["dim"],
        ffn_dim=info["ffn_dim"],
        num_heads=info["num_heads"],
        num_layers=info["num_layers"],
        in_channels=info["in_dim"],
        freq_dim=info["freq_dim"],
        text_dim=info["text_dim"],
        text_len=info["text_len"],
    )
    found = load_transformer(GOLDEN / "weights.safetensors", config=config)
    assert found.config == config
    torch.testing.assert_close(
        found.state["blocks.2.attn2.to_out.0.weight"],
        load_file(GOLDEN / "weights.safetensors")["blocks.2.cross_attn.o.weight"],
    )


# --- the choice of the moving average, the dtype


@pytest.fixture
def both(tmp_path) -> tuple[Path, dict, dict]:
    plain, ema = network(1).state_dict(), network(2).state_dict()
    path = write_pickle(
        tmp_path / "both.pt", {"generator": original(plain, "model."), "generator_ema": original(ema, "model.")}
    )
    return path, plain, ema


def test_the_moving_average_is_taken_unless_refused(both):
    path, plain, ema = both
    key = "blocks.1.ffn.net.2.weight"
    for choice, state, nesting in (
        (None, ema, "generator_ema"),
        (True, ema, "generator_ema"),
        (False, plain, "generator"),
    ):
        found = load_transformer(path, config=CONFIG, ema=choice)
        assert found.nesting == nesting
        assert torch.equal(found.state[key], state[key])


def test_a_moving_average_that_is_not_there_is_refused(tmp_path):
    path = write_pickle(tmp_path / "flat.pt", original(network().state_dict()))
    assert "found tensors without nesting, expected generator_ema" in refusal(path, config=CONFIG, ema=True)
    path = write_pickle(tmp_path / "ema.pt", {"generator_ema": original(network().state_dict())})
    assert "found generator_ema (holding" in refusal(path, config=CONFIG, ema=False)


def test_tensors_are_cast_when_read_and_when_they_fill_a_network(both):
    path, _, ema = both
    found = load_transformer(path, config=CONFIG, dtype=torch.bfloat16)
    assert {value.dtype for value in found.state.values()} == {torch.bfloat16}
    assert torch.equal(found.state["proj_out.bias"], ema["proj_out.bias"].bfloat16())
    wide = network()
    into(wide, found)
    assert wide.dtype == torch.float32
    assert torch.equal(wide.proj_out.weight, ema["proj_out.weight"].bfloat16().float())


# --- sizes


@pytest.mark.parametrize("size", REAL)
def test_the_real_sizes_on_the_meta_device(size):
    config, parameters, tensors = REAL[size]
    state = expected(config)
    assert all(value.is_meta for value in state.values())
    assert (sum(value.numel() for value in state.values()), len(state)) == (parameters, tensors)
    # without config.json the shapes alone give the size back; heads are 128 wide at the released widths
    assert sizes.settle(sizes.from_shapes(state, Path("x")), {}, None, Path("x")) == config
    assert sizes.name(config.model_dump()) == size


def test_a_network_on_the_meta_device_takes_the_tensors(tmp_path):
    wanted = network(1)
    found = load_transformer(write_original(tmp_path / "w", wanted.state_dict(), shards=True), dtype=torch.bfloat16)
    with torch.device("meta"):
        filled = CausalWan(found.config)
    into(filled, found)
    assert filled.dtype == torch.bfloat16
    assert all(p.requires_grad and not p.is_meta for p in filled.parameters())
    assert torch.equal(filled.proj_out.weight, wanted.proj_out.weight.bfloat16())


def test_14b_weights_in_a_1_3b_config_name_both_sizes():
    where = Path("krea-realtime-video-14b.safetensors")
    with pytest.raises(CheckpointError) as caught:
        sizes.settle(sizes.from_shapes(expected(REAL["14B"][0]), where), {}, REAL["1.3B"][0], where)
    assert "found 14B weights (dim 5120, ffn_dim 13824, num_layers 40, num_heads 40)" in str(caught.value)
    assert "expected 1.3B (dim 1536, ffn_dim 8960, num_layers 30, num_heads 12)" in str(caught.value)


def test_another_size_than_wanted_is_refused(tmp_path):
    path = write_original(tmp_path / "w", network().state_dict())
    wanted = CONFIG.model_copy(update={"num_layers": 2})
    assert "found 24-wide 3-layer weights (num_layers 3), expected 24-wide 2-layer (num_layers 2)" in refusal(
        path, config=wanted
    )
    assert "(num_heads 2), expected 24-wide 3-layer (num_heads 4)" in refusal(
        path, config=CONFIG.model_copy(update={"num_heads": 4})
    )


def test_config_json_must_fit_the_tensors(tmp_path):
    folder = write_original(tmp_path / "w", network().state_dict())
    (folder / "config.json").write_text(json.dumps(original_config() | {"num_layers": 4}))
    assert "num_layers: config.json says 4, the tensors are of 3" in refusal(folder)
    (folder / "config.json").write_text(json.dumps(original_config() | {"num_heads": 5}))
    assert "impossible sizes" in refusal(folder)
    (folder / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKLWan", "z_dim": 16}))
    assert "found AutoencoderKLWan, expected WanTransformer3DModel or WanModel" in refusal(folder)
    (folder / "config.json").write_text(json.dumps(original_config() | {"model_type": "i2v"}))
    assert "an image-to-video model" in refusal(folder)
    (folder / "config.json").write_text("{")
    assert "no readable config" in refusal(folder)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "vace", "_class_name": "VaceWanModel"}, "a VACE model"),
        ({"_class_name": "WanVACETransformer3DModel"}, "a VACE model"),
        ({"model_type": "ti2v"}, "the text-image-to-video model of Wan 2.2"),
        ({"model_type": "flf2v"}, "a model of first and last frames"),
        ({"model_type": "s2v"}, "a speech-to-video model"),
        ({"image_dim": 1280}, "an image-to-video model"),
    ],
)
def test_relatives_of_wan_are_named(change, says, tmp_path):
    folder = write_original(tmp_path / "w", network().state_dict())
    (folder / "config.json").write_text(json.dumps(original_config() | change))
    assert f"{says}, expected text-to-video of Wan 2.1" in refusal(folder)


@pytest.mark.parametrize(("channels", "says"), [(48, "text-image-to-video"), (36, "image-to-video")])
def test_relatives_without_a_config_are_known_by_their_channels(channels, says, tmp_path):
    state = network(config=CONFIG.model_copy(update={"in_channels": channels})).state_dict()
    assert says in refusal(write_pickle(tmp_path / "x.pt", original(state)), config=CONFIG)


def test_a_vace_file_is_known_by_its_names(tmp_path):
    state = network().state_dict() | {"vace_blocks.0.proj_out.weight": torch.zeros(2, 2)}
    assert "a VACE model" in refusal(write_pickle(tmp_path / "x.pt", original(state)), config=CONFIG)


@pytest.mark.parametrize("named", ["the pipeline", "one of the two", "a file of it"])
def test_half_of_a_model_of_two_transformers_is_refused(named, tmp_path):
    state = network().state_dict()
    pipeline, release = tmp_path / "pipe", tmp_path / "Wan2.2-T2V-A14B"
    for part in ("transformer", "transformer_2"):
        diffusers_model(state).save_pretrained(pipeline / part)
    for part in ("high_noise_model", "low_noise_model"):
        write_original(release / part, state)
    file = "diffusion_pytorch_model.safetensors"
    places = {
        "the pipeline": (pipeline, release),
        "one of the two": (pipeline / "transformer", release / "low_noise_model"),
        "a file of it": (pipeline / "transformer" / file, release / "high_noise_model" / file),
    }
    for place in places[named]:
        assert "half of a Wan 2.2 model with two transformers" in refusal(place)


def test_a_model_beside_the_two_halves_of_another_is_whole(tmp_path):
    state = network().state_dict()
    for part in ("high_noise_model", "low_noise_model"):
        write_original(tmp_path / part, state)
    load_transformer(write_original(tmp_path / "own", state), config=CONFIG)


def test_half_of_a_model_is_known_without_the_other_half(tmp_path):
    state = network().state_dict()
    pipe = tmp_path / "pipe"
    diffusers_model(state).save_pretrained(pipe / "transformer")
    index = {"_class_name": "WanPipeline", "transformer": ["diffusers", "WanTransformer3DModel"]}
    for more in ({"boundary_ratio": 0.875}, {"transformer_2": ["diffusers", "WanTransformer3DModel"]}):
        (pipe / "model_index.json").write_text(json.dumps(index | more))
        assert "half of a Wan 2.2 model" in refusal(pipe)
        assert "half of a Wan 2.2 model" in refusal(pipe / "transformer")
    (pipe / "model_index.json").write_text(json.dumps(index | {"boundary_ratio": None, "transformer_2": [None, None]}))
    assert load_transformer(pipe).config == CONFIG.model_copy(update={"text_len": 512})
    lone = tmp_path / "wan2.2_t2v_low_noise_14B_fp16.safetensors"
    save_file(original(state), lone)
    assert "half of a Wan 2.2 model" in refusal(lone, config=CONFIG)


def test_two_averages_in_an_unknown_file_are_said(capsys, tmp_path):
    both = {"generator": original(network(2).state_dict()), "generator_ema": original(network(1).state_dict())}
    known = write_pickle(tmp_path / "chunkwise" / "causal_forcing.pt", both)
    assert load_transformer(known, config=CONFIG).nesting == "generator"
    load_transformer(write_pickle(tmp_path / "mine.pt", both), config=CONFIG, ema=True)
    load_transformer(write_pickle(tmp_path / "one.pt", {"generator": both["generator"]}), config=CONFIG)
    assert capsys.readouterr().err == ""
    renamed = tmp_path / "mine.pt"
    assert load_transformer(renamed, config=CONFIG).nesting == "generator_ema"
    said = capsys.readouterr().err
    assert said.startswith(f"warning: {renamed}: generator_ema is taken, generator left out: no known release")
    other = write_pickle(tmp_path / "other.pt", {"model": both["generator"], "model_ema": both["generator_ema"]})
    assert load_transformer(other, config=CONFIG).nesting == "model"
    assert "model is taken, model_ema left out" in capsys.readouterr().err


def test_a_pointer_of_git_lfs_is_named(tmp_path):
    folder = write_original(tmp_path / "w", network().state_dict())
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    other = write_original(tmp_path / "other", network().state_dict())
    weights_file = "diffusion_pytorch_model.safetensors"
    for path in (folder / weights_file, other / "config.json", tmp_path / "x.pt"):
        path.write_text(pointer)
        text = refusal(path if path.suffix == ".pt" else path.parent)
        assert path.name in text
        assert "a pointer of git LFS, not the file itself" in text
        assert "hint: run `git lfs pull`" in text


def test_an_unknown_width_does_not_give_the_heads(tmp_path):
    assert "num_heads: width 24 does not give it" in refusal(
        write_pickle(tmp_path / "x.pt", original(network().state_dict()))
    )


# --- bad files


def refusal(path: Path | str, **arguments) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_transformer(path, **arguments)
    return str(caught.value)


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


# --- where checkpoints are found


def test_files_below_the_checkpoints_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(tmp_path))
    monkeypatch.chdir(tmp_path.parent)
    wanted = network(1).state_dict()
    path = write_pickle(
        tmp_path / "Self-Forcing" / "checkpoints" / "self_forcing_dmd.pt", {"generator_ema": original(wanted)}
    )
    # by the recipe's relative path, by part of it, by another ending, by the release's name
    for source in (
        "checkpoints/self_forcing_dmd.pt",
        "self_forcing_dmd.pt",
        "checkpoints/self_forcing_dmd.safetensors",
        "self_forcing",
    ):
        assert load_transformer(source, config=CONFIG).source == path
    folder = write_original(tmp_path / "models" / "Wan2.1-T2V-1.3B", wanted)
    for source in ("Wan2.1-T2V-1.3B", "wan_1.3b", str(folder)):
        assert load_transformer(source).source.parent == folder


def test_what_is_not_here_says_where_it_belongs(monkeypatch, tmp_path):
    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(tmp_path))
    text = refusal("longlive")
    assert (
        "put models/longlive_base.pt of Efficient-Large-Model/LongLive-1.3B at "
        f"{tmp_path}/LongLive-1.3B/models/longlive_base.pt"
    ) in text
    assert "did you mean 'self_forcing'?" in refusal("selfforcing")
    assert "no such checkpoint" in refusal("")
    assert "no such checkpoint" in refusal(tmp_path / "no.pt")


def test_a_finished_run_gives_its_student(tmp_path):
    wanted = network(1)
    (tmp_path / "run" / "final").mkdir(parents=True)
    save_file(wanted.state_dict(), tmp_path / "run" / "final" / "student.safetensors")
    (tmp_path / "run" / "final" / "student.json").write_text(json.dumps({"model": CONFIG.model_dump(mode="json")}))
    found = load_transformer(tmp_path / "run")
    assert found.config == CONFIG
    assert torch.equal(found.state["proj_out.weight"], wanted.proj_out.weight)


def test_a_recipe_on_wan_starts_from_a_released_file(monkeypatch, tmp_path):
    from astro_cli.recipe import load_recipe
    from astro_cli.training import build

    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(tmp_path))
    config = CONFIG.model_copy(update={"text_len": 512})
    wanted = network(1, config)
    write_pickle(tmp_path / "chunkwise" / "causal_forcing.pt", {"generator": original(wanted.state_dict(), "model.")})
    fields = {**config.model_dump(mode="json"), "patch": [2, 2]}
    recipe = load_recipe("astrolabe_causal", [f"model.{key}={value}" for key, value in fields.items()])
    assert recipe.base.student == "chunkwise/causal_forcing.safetensors"
    assert torch.equal(forward(build._network(recipe, "student").eval()), forward(wanted))
    shutil.rmtree(tmp_path / "chunkwise")
    with pytest.raises(CheckpointError, match=r"not imported, and neither below"):
        build._network(recipe, "student")


def test_the_table_has_every_transformer_entry_of_section_9():
    from astro_cli.zoo.entries import ENTRIES, of_path

    assert len({entry.name for entry in ENTRIES}) == len(ENTRIES)
    for entry in ENTRIES:
        path = Path("some") / entry.folder / entry.file
        owner = of_path(path) or of_path(path.parent) or of_path(path.parent.parent)
        assert owner == entry
    assert LAYOUTS.keys() >= {"Self-Forcing", "LongLive", "Reward Forcing", "MemFlow", "Krea 14B"}

"""Wan's text side: against the original encoder written plainly, cleaning, cutting, the empty prompt, and what is
refused.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional
from wan_folder import WORDS, write_text_encoder, write_tokenizer

from astro_cli.config.errors import CheckpointError
from astro_cli.models import umt5
from astro_cli.models.umt5 import TextEncoder, clean, load_text_encoder

PROMPTS = [
    "a large red circle moves right",
    "a small blue square moves left slowly over a gray plain background",
    "",
    "zebra",
]


# --- the original encoder (Wan 2.1, wan/modules/t5.py), plainly


class Layer(nn.Module):
    def __init__(self, dim: int, inner: int, heads: int, buckets: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.RMSNorm(dim, 1e-6), nn.RMSNorm(dim, 1e-6)
        self.attn = nn.ModuleDict({name: nn.Linear(dim, dim, bias=False) for name in "qkvo"})
        self.ffn = nn.ModuleDict(
            {
                "gate": nn.Sequential(nn.Linear(dim, inner, bias=False)),
                "fc1": nn.Linear(dim, inner, bias=False),
                "fc2": nn.Linear(inner, dim, bias=False),
            }
        )
        self.pos_embedding = nn.ModuleDict({"embedding": nn.Embedding(buckets, heads)})

    def forward(self, x_BMD: torch.Tensor, hidden_BM: torch.Tensor) -> torch.Tensor:
        y = self.norm1(x_BMD)
        q, k, v = (self.attn[name](y).unflatten(-1, (self.heads, -1)).transpose(1, 2) for name in "qkv")
        scores = q @ k.mT + self.bias(y.shape[1])  # T5 does not divide by sqrt(d)
        scores = scores.masked_fill(hidden_BM[:, None, None, :], torch.finfo(scores.dtype).min)
        x_BMD = x_BMD + self.attn["o"]((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        y = self.norm2(x_BMD)
        return x_BMD + self.ffn["fc2"](self.ffn["fc1"](y) * functional.gelu(self.ffn["gate"](y), approximate="tanh"))

    def bias(self, length: int) -> torch.Tensor:
        """Relative position bias (heads, M, M): exact buckets up to 8 places, then logarithmic ones up to 128, and a
        sign.
        """
        embedding = self.pos_embedding["embedding"]
        half = embedding.num_embeddings // 2
        exact = half // 2
        place = torch.arange(length)
        offset = place[None, :] - place[:, None]
        away = offset.abs()
        far = exact + (torch.log(away.clamp(min=1) / exact) / math.log(128 / exact) * (half - exact)).long()
        bucket = (offset > 0) * half + torch.where(away < exact, away, far.clamp(max=half - 1))
        return embedding(bucket).permute(2, 0, 1)


class Original(nn.Module):
    def __init__(
        self, words: int, dim: int = 16, inner: int = 24, heads: int = 4, layers: int = 3, buckets: int = 32
    ) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(words, dim)
        self.blocks = nn.ModuleList(Layer(dim, inner, heads, buckets) for _ in range(layers))
        self.norm = nn.RMSNorm(dim, 1e-6)

    @torch.no_grad()
    def forward(self, tokens_BM: torch.Tensor) -> torch.Tensor:
        """States, padded positions zeroed as Wan's pipeline does."""
        padding_BM = tokens_BM == 0
        x_BMD = self.token_embedding(tokens_BM)
        for block in self.blocks:
            x_BMD = block(x_BMD, padding_BM)
        return self.norm(x_BMD).masked_fill(padding_BM[..., None], 0)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Original]:
    """A folder as Wan-AI/Wan2.1-T2V-1.3B has it, with a tiny random encoder."""
    folder = tmp_path_factory.mktemp("original")
    words = write_tokenizer(folder / "google" / "umt5-xxl")
    torch.manual_seed(0)
    model = Original(words)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    torch.save(model.state_dict(), folder / "models_t5_umt5-xxl-enc-bf16.pth")
    return folder, model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as Wan-AI/Wan2.1-T2V-1.3B-Diffusers has it, in shards."""
    folder = tmp_path_factory.mktemp("diffusers")
    write_text_encoder(folder, max_shard_size="4KB")
    return folder


@pytest.fixture
def encoder(folder: Path) -> TextEncoder:
    return load_text_encoder(folder)


def padded_tokens(encoder: TextEncoder, prompts: list[str]) -> torch.Tensor:
    made = encoder.tokenizer(prompts, padding="max_length", max_length=512, truncation=True, return_tensors="pt")
    return made["input_ids"]


def test_the_original_file_gives_the_original_encoders_states(original):
    folder, model = original
    encoder = load_text_encoder(folder)
    states_BMD = encoder.encode(PROMPTS)
    tokens_BM = padded_tokens(encoder, PROMPTS)
    assert states_BMD.shape == (4, 512, 16)
    assert (tokens_BM != 0).sum(1).tolist()[:3] == [7, 13, 1]  # words and the end mark
    torch.testing.assert_close(states_BMD, model(tokens_BM), atol=2e-5, rtol=0)
    assert states_BMD[0, 6].abs().max() > 0.1
    assert (states_BMD[0, 7:] == 0).all()


def test_a_diffusers_folder_gives_transformers_padded_states(folder, encoder):
    from transformers import UMT5EncoderModel

    assert len(list((folder / "text_encoder").glob("*.safetensors"))) > 1
    model = UMT5EncoderModel.from_pretrained(folder / "text_encoder").eval()
    tokens_BM = padded_tokens(encoder, PROMPTS)
    mask_BM = tokens_BM != 0
    with torch.no_grad():
        wanted = model(tokens_BM, attention_mask=mask_BM.long()).last_hidden_state * mask_BM[..., None]
    torch.testing.assert_close(encoder.encode(PROMPTS), wanted, atol=2e-5, rtol=0)


def test_a_prompts_states_do_not_depend_on_the_batch(encoder):
    together = encoder.encode(PROMPTS)
    for index, prompt in enumerate(PROMPTS):
        assert torch.equal(load_like(encoder).encode([prompt])[0], together[index])


def load_like(encoder: TextEncoder) -> TextEncoder:
    return TextEncoder(encoder.model, encoder.tokenizer)


@pytest.fixture
def calls(encoder, monkeypatch) -> list[int]:
    """Tokens of every prompt the encoder's network has seen."""
    seen, forward = [], encoder.model.forward

    def counted(tokens, **options):
        seen.append(tokens.shape[1])
        return forward(tokens, **options)

    monkeypatch.setattr(encoder.model, "forward", counted)
    return seen


def test_a_prompt_is_encoded_once(encoder, calls):
    encoder.encode(["a red circle", "a  red\ncircle ", "a blue circle"])
    assert calls == [4, 4]  # three words and the end mark; the second is the first once it is cleaned
    encoder.encode(["a blue circle"])
    assert calls == [4, 4]
    encoder.encode(["a blue circle", "a large blue circle", "a red circle"])
    assert calls == [4, 4, 5]  # of these, only one is new


def test_remembered_states_are_the_computed_ones_and_survive_what_a_caller_does(encoder, calls):
    first = encoder.encode(PROMPTS)
    kept = first.clone()
    first.zero_()
    assert torch.equal(encoder.encode(PROMPTS[::-1]), kept.flip(0))
    assert len(calls) == len(PROMPTS)


def test_the_prompt_that_was_not_asked_for_longest_is_forgotten(encoder, calls, monkeypatch):
    monkeypatch.setattr(umt5, "REMEMBERED", 2)
    encoder.encode(["a red circle", "a blue circle", "a red circle", "a large blue circle"])
    assert len(calls) == 3
    encoder.encode(["a red circle", "a large blue circle"])
    assert len(calls) == 3
    encoder.encode(["a blue circle"])
    assert len(calls) == 4


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ("  a\t red \n\ncircle ", "a red circle"),
        ("salt &amp;amp; pepper", "salt & pepper"),
        ("", ""),
        ("&lt;b&gt;", "<b>"),
    ],
)
def test_cleaning(prompt, wanted):
    assert clean(prompt) == wanted


def test_a_prompt_that_is_too_long_is_cut_with_a_warning(encoder, capsys):
    words = [WORDS[index % len(WORDS)] for index in range(600)]
    long = encoder.encode([" ".join(words)])
    err = capsys.readouterr().err
    kept, dropped = " ".join(words[505:511]), " ".join(words[511:517])
    assert err == f"warning: prompt: 601 tokens, 512 fit; kept up to '... {kept}', dropped from '{dropped} ...'\n"
    assert torch.equal(long, load_like(encoder).encode([" ".join(words[:511])]))  # 511 words and the end mark
    assert (long[0, 511] != 0).any()
    encoder.encode(["a red circle"])
    assert capsys.readouterr().err == ""


def test_bfloat16_weights_run_as_they_are(original, tmp_path):
    folder, model = original
    shutil.copytree(folder, tmp_path / "wan")
    half = {key: value.bfloat16() for key, value in model.state_dict().items()}
    torch.save(half, tmp_path / "wan" / "models_t5_umt5-xxl-enc-bf16.pth")
    encoder = load_text_encoder(tmp_path / "wan")
    assert encoder.model.dtype == torch.bfloat16
    states = encoder.encode(PROMPTS[:1])
    assert states.dtype == torch.float32
    assert (states - model(padded_tokens(encoder, PROMPTS[:1]))).abs().max() < 0.1
    assert load_text_encoder(tmp_path / "wan", torch.float32).model.dtype == torch.float32


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("a missing shard", "names 1 of"),
        ("a truncated shard", "damaged or not safetensors"),
        ("a damaged index", "expected tensor names with their shards"),
        ("a path in the index", "names 1 of"),
        ("another size", "another size"),
        ("more layers", "missing (first:"),
        ("another model", "found a t5, expected umt5"),
        ("no tokenizer", "no readable tokenizer"),
        ("a damaged tokenizer", "no readable tokenizer"),
        ("another tokenizer", "the encoder knows 20"),
        ("nothing", "neither text_encoder/"),
    ],
)
def test_a_bad_folder_is_refused(folder, tmp_path, damage, says):
    copy = tmp_path / "wan"
    shutil.copytree(folder, copy)
    part = copy / "text_encoder"
    shard, index, config = (
        sorted(part.glob("*.safetensors"))[0],
        part / "model.safetensors.index.json",
        part / "config.json",
    )
    values = json.loads(config.read_text())
    if damage == "a missing shard":
        shard.unlink()
    elif damage == "a truncated shard":
        shard.write_bytes(shard.read_bytes()[:-10])
    elif damage == "a damaged index":
        index.write_text('{"weight_map": 3}')
    elif damage == "a path in the index":
        index.write_text(index.read_text().replace(shard.name, f"../text_encoder/{shard.name}"))
    elif damage in ("another size", "more layers", "another model", "another tokenizer"):
        change = {"another size": {"d_ff": 32}, "more layers": {"num_layers": 9}, "another model": {"model_type": "t5"}}
        config.write_text(json.dumps(values | change.get(damage, {"vocab_size": 20})))
    elif damage == "no tokenizer":
        shutil.rmtree(copy / "tokenizer")
    elif damage == "a damaged tokenizer":
        (copy / "tokenizer" / "tokenizer.json").write_text("{")
    else:
        shutil.rmtree(part)
    with pytest.raises(CheckpointError, match=re.escape(says)):
        load_text_encoder(copy)


def test_an_original_file_of_another_model_is_refused(original, tmp_path):
    shutil.copytree(original[0], tmp_path / "wan")
    torch.save({"token_embedding.weight": torch.zeros(3, 4)}, tmp_path / "wan" / "models_t5_umt5-xxl-enc-bf16.pth")
    with pytest.raises(CheckpointError, match="not Wan's UMT5 encoder"):
        load_text_encoder(tmp_path / "wan")

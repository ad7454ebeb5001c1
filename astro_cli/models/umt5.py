"""UMT5, the text side of Wan 2.1: prompt -> encoder states, zero past the prompt's end. Owns cleaning, tokens and file
names.

Source: Wan 2.1 (arXiv 2503.20314). The network and the tokenizer are transformers'.
Dimensions: B prompt, M text token, D text width.

**Deviations**: prompts are encoded one by one at their true length, so a prompt's states do not depend on the batch;
masked padding, as Wan has it, gives the same states. `ftfy` repairs broken Unicode only where it is installed.
"""

from __future__ import annotations

import html
import re
from collections import OrderedDict
from collections.abc import Mapping
from importlib import import_module, util
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase, UMT5Config, UMT5EncoderModel

from astro_cli.config.errors import CheckpointError, warn
from astro_cli.models import parts, tokenizer_files
from astro_cli.models.wan.config import TEXT_LEN

REMEMBERED = 1024  # prompts whose states are kept; a prompt of 100 words is about 1 MB
QUOTED = 6  # words quoted on each side of the cut of a prompt that is too long
FOLDER, TOKENIZER = "text_encoder", "tokenizer"
ORIGINAL_FILE, ORIGINAL_TOKENIZER = "models_t5_umt5-xxl-enc-bf16", "google/umt5-xxl"
_LAYER = r"^blocks\.(\d+)\."
_ATTENTION, _FEED = r"encoder.block.\1.layer.0.", r"encoder.block.\1.layer.1."
_NAMES = (
    (r"^token_embedding\.", "shared."),
    (r"^norm\.", "encoder.final_layer_norm."),
    (_LAYER + r"norm1\.", _ATTENTION + "layer_norm."),
    (_LAYER + r"attn\.([qkvo])\.", _ATTENTION + r"SelfAttention.\2."),
    (_LAYER + r"pos_embedding\.embedding\.", _ATTENTION + "SelfAttention.relative_attention_bias."),
    (_LAYER + r"norm2\.", _FEED + "layer_norm."),
    (_LAYER + r"ffn\.gate\.0\.", _FEED + "DenseReluDense.wi_0."),
    (_LAYER + r"ffn\.fc1\.", _FEED + "DenseReluDense.wi_1."),
    (_LAYER + r"ffn\.fc2\.", _FEED + "DenseReluDense.wo."),
)


class TextEncoder:
    """Wan's prompt encoder. An instance computes the states of a prompt once.

    Args:
        model: the encoder, in the dtype it shall run in.
        tokenizer: its tokenizer; ends every prompt with the end mark.
        length: tokens of the states, M.
    """

    def __init__(self, model: UMT5EncoderModel, tokenizer: PreTrainedTokenizerBase, length: int = TEXT_LEN) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer, self.length = tokenizer, length
        self._states: OrderedDict[str, torch.Tensor] = OrderedDict()

    def to(self, device: torch.device | str) -> TextEncoder:
        self.model.to(device)  # type: ignore[arg-type]
        return self

    def encode(self, prompts: list[str]) -> torch.Tensor:
        """States (B, M, D), float32 on the encoder's device, zero past each prompt's end. The empty prompt is its end
        mark alone.

        A prompt of more than M tokens is cut; a warning on stderr quotes the words at the cut.
        """
        states_BMD = torch.zeros(len(prompts), self.length, self.model.config.d_model, device=self.model.device)
        for row_MD, prompt in zip(states_BMD, prompts, strict=True):
            prompt_MD = self._encode_one(clean(prompt))
            row_MD[: len(prompt_MD)] = prompt_MD
        return states_BMD

    @torch.no_grad()
    def _encode_one(self, prompt: str) -> torch.Tensor:
        """(tokens, D) states of a cleaned prompt at its true length."""
        if prompt not in self._states:
            tokens = torch.tensor([self._tokens(prompt)], device=self.model.device)
            self._states[prompt] = self.model(tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state[0]
            if len(self._states) > REMEMBERED:
                self._states.popitem(last=False)
        self._states.move_to_end(prompt)
        return self._states[prompt]

    def _tokens(self, prompt: str) -> list[int]:
        tokens: list[int] = self.tokenizer(prompt, add_special_tokens=False, verbose=False)["input_ids"]  # type: ignore[assignment]
        end, room = self.tokenizer.eos_token_id, self.length - 1
        if len(tokens) > room:
            kept, dropped = (str(self.tokenizer.decode(part)).split() for part in (tokens[:room], tokens[room:]))
            warn(
                f"prompt: {len(tokens) + 1} tokens, {self.length} fit; "
                f"kept up to '... {' '.join(kept[-QUOTED:])}', dropped from '{' '.join(dropped[:QUOTED])} ...'"
            )
        return [*tokens[:room], end]  # type: ignore[list-item]


def clean(prompt: str) -> str:
    """As Wan cleans: repaired Unicode (with ftfy), HTML entities resolved twice, runs of white space as one space."""
    if util.find_spec("ftfy") is not None:
        prompt = import_module("ftfy").fix_text(prompt)
    return re.sub(r"\s+", " ", html.unescape(html.unescape(prompt))).strip()


def load_text_encoder(folder: str | Path, dtype: torch.dtype | None = None) -> TextEncoder:
    """The text encoder of a Wan 2.1 folder, in diffusers' layout (`text_encoder/`, `tokenizer/`) or the original one.

    Args:
        dtype: to run in; default that of the file.

    Raises:
        CheckpointError: files that are missing, damaged or of another model.
    """
    folder = Path(folder)
    if (folder / FOLDER).is_dir():
        config = parts.configured(lambda table: UMT5Config(**table), folder / FOLDER, "umt5")
        state, where, tokenizer = parts.state(folder / FOLDER), folder / FOLDER, folder / TOKENIZER
        parts.check_depth(config.to_dict(), state, where)
    else:
        where = parts.original_file(folder, ORIGINAL_FILE, f"{FOLDER}/")
        state = {transformers_name(key): value for key, value in parts.state(where).items()}
        config, tokenizer = config_of(state, where), folder / ORIGINAL_TOKENIZER
    state.pop("encoder.embed_tokens.weight", None)  # the same tensor as `shared`
    words = load_tokenizer(tokenizer)
    if len(words) > config.vocab_size:
        raise CheckpointError(
            tokenizer, "", f"of another model: {len(words)} tokens, the encoder knows {config.vocab_size}"
        )
    model = parts.assemble(lambda: UMT5EncoderModel(config), state, where, dtype, tied=("encoder.embed_tokens.weight",))
    model.tie_weights()
    return TextEncoder(model, words)


def text_files(folder: str | Path) -> tuple[Path, ...]:
    """What `load_text_encoder` reads from that folder.

    Raises:
        CheckpointError: there is no text encoder.
    """
    folder = Path(folder)
    if (folder / FOLDER).is_dir():
        read = [folder / FOLDER, folder / TOKENIZER]
    else:
        read = [parts.original_file(folder, ORIGINAL_FILE, f"{FOLDER}/"), folder / ORIGINAL_TOKENIZER]
    files = [path for part in read for path in (part.iterdir() if part.is_dir() else [part]) if path.is_file()]
    return tuple(sorted(files))


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Raises: CheckpointError, no tokenizer there, a damaged one, or one without an end mark."""
    hint = "copy the folder of google/umt5-xxl that comes with Wan 2.1 (tokenizer.json, tokenizer_config.json)"
    tokenizer = tokenizer_files.load(folder, hint)
    if tokenizer.eos_token_id is None:
        raise CheckpointError(folder, "eos_token", "missing: the encoder wants prompts with an end mark")
    return tokenizer


def transformers_name(key: str) -> str:
    """transformers' name of a parameter named as in Wan's original T5 encoder."""
    for pattern, name in _NAMES:
        key, replaced = re.subn(pattern, name, key)
        if replaced:
            break
    return key


def config_of(state: Mapping[str, torch.Tensor], where: Path) -> UMT5Config:
    """Sizes of an encoder, read from its weights.

    Raises:
        CheckpointError: not an UMT5 encoder.
    """
    first = "encoder.block.0.layer."
    try:
        bias, query = (
            state[f"{first}0.SelfAttention.relative_attention_bias.weight"],
            state[f"{first}0.SelfAttention.q.weight"],
        )
        vocabulary, width = state["shared.weight"].shape
        inner = state[f"{first}1.DenseReluDense.wi_0.weight"].shape[0]
    except (KeyError, ValueError) as error:
        raise CheckpointError(where, "", f"not Wan's UMT5 encoder: {error} is missing") from error
    layers = len({key.split(".")[2] for key in state if key.startswith("encoder.block.")})
    buckets, heads = bias.shape
    return UMT5Config(
        vocab_size=vocabulary,
        d_model=width,
        d_kv=query.shape[0] // heads,
        d_ff=inner,
        num_layers=layers,
        num_heads=heads,
        relative_attention_num_buckets=buckets,
    )

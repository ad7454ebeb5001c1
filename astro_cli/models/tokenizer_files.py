"""A tokenizer's folder, as transformers writes it, checked before the library reads it."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from astro_cli.config.errors import CheckpointError
from astro_cli.config.files import Reader


def load(folder: Path, hint: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder; nothing is downloaded.

    Raises:
        CheckpointError: none there, or a damaged one; `hint` says what to do.
    """
    reader = Reader(CheckpointError, what="no readable tokenizer", hint=hint)
    table = reader.table(folder / "tokenizer.json")
    if not isinstance(table.get("model"), dict):
        reader.fail(folder, "tokenizer.json has no 'model'")
    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # the library has no error of its own for damaged files: it raises what it meets
        reader.fail(folder, str(error), error)

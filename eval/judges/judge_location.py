"""Finds the judge: environment variables and folders of models. Free of torch."""

from __future__ import annotations

import os
from pathlib import Path

from astro_cli.config.errors import CheckpointError
from astro_cli.config.files import expanded
from astro_cli.zoo.places import checkpoints_folder

URL_VARIABLE, KEY_VARIABLE, MODEL_VARIABLE = "ASTRO_JUDGE_URL", "ASTRO_JUDGE_KEY", "ASTRO_JUDGE_MODEL"
JUDGE = "Qwen3-VL-235B-A22B-Instruct"  # Reward Forcing's
EMBEDDER_VARIABLE = "ASTRO_EMBEDDING_MODEL"
EMBEDDER = "Qwen3-VL-Embedding-8B"


def endpoint_url() -> str:
    return os.environ.get(URL_VARIABLE, "").rstrip("/")


def judge_model() -> str:
    return os.environ.get(MODEL_VARIABLE) or JUDGE


def embedding_model() -> str:
    return os.environ.get(EMBEDDER_VARIABLE) or EMBEDDER


def folder_of(model: str) -> Path | None:
    """A transformers folder: a path, or a name below `<checkpoints>/eval`."""
    places = (
        expanded(model),
        checkpoints_folder() / "eval" / model,
        checkpoints_folder() / "eval" / Path(model).name,
    )
    return next((place for place in places if (place / "config.json").is_file()), None)


def require(model: str) -> Path:
    """Raises: CheckpointError: no such folder, with where it belongs."""
    folder = folder_of(model)
    if folder is None:
        raise CheckpointError(
            model, "config.json", "no such model folder", hint=f"put it at {checkpoints_folder() / 'eval' / model}"
        )
    return folder


def missing_judge() -> str:
    """What a judge lacks; "" where an endpoint is named or the model's folder is here."""
    if endpoint_url() or folder_of(judge_model()):
        return ""
    put = checkpoints_folder() / "eval" / judge_model()
    return (
        f"a judge: set {URL_VARIABLE} to an OpenAI-compatible endpoint, or put the model's folder at {put} "
        f"({MODEL_VARIABLE} names another)"
    )


def missing_embedder() -> str:
    """What the embedding model lacks; "" where its folder is here."""
    if folder_of(embedding_model()):
        return ""
    put = checkpoints_folder() / "eval" / embedding_model()
    return f"an embedding model: put the folder of Qwen/{EMBEDDER} at {put} ({EMBEDDER_VARIABLE} names another)"

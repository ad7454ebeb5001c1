"""Finds the judge: environment variables and folders of models. Free of torch."""

from __future__ import annotations

import os
from pathlib import Path

from astro_cli.config.errors import CheckpointError
from astro_cli.config.files import expanded
from astro_cli.zoo import hub
from astro_cli.zoo.places import checkpoints_folder

URL_VARIABLE, KEY_VARIABLE, MODEL_VARIABLE = "ASTRO_JUDGE_URL", "ASTRO_JUDGE_KEY", "ASTRO_JUDGE_MODEL"
JUDGE = "Qwen3-VL-235B-A22B-Instruct"  # Reward Forcing's
EMBEDDER_VARIABLE = "ASTRO_EMBEDDING_MODEL"
EMBEDDER = "Qwen3-VL-Embedding-8B"
OWNER = "Qwen"  # of both on the hub


def endpoint_url() -> str:
    return os.environ.get(URL_VARIABLE, "").rstrip("/")


def judge_model() -> str:
    return os.environ.get(MODEL_VARIABLE) or JUDGE


def embedding_model() -> str:
    return os.environ.get(EMBEDDER_VARIABLE) or EMBEDDER


def folder_of(model: str) -> Path | None:
    """A transformers folder: a path, a name below `<checkpoints>/eval`, or a hub id in the Hugging Face cache (without
    an owner: Qwen's).
    """
    places = (
        expanded(model),
        checkpoints_folder() / "eval" / model,
        checkpoints_folder() / "eval" / Path(model).name,
    )
    here = next((place for place in places if (place / "config.json").is_file()), None)
    return here or ((hub_id := _hub_id(model)) and hub.cached(hub_id, having="config.json")) or None


def _hub_id(model: str) -> hub.HubId | None:
    return hub.parse(model if "/" in model else f"{OWNER}/{model}")


def _bring(model: str) -> str:
    """Where a model's folder belongs, and the line that brings it from the hub."""
    put = f"put the model's folder at {checkpoints_folder() / 'eval' / model}"
    return put if (hub_id := _hub_id(model)) is None else f"{hub.download_line(hub_id)}, or {put}"


def require(model: str) -> Path:
    """Raises: CheckpointError: no such folder, with where it belongs."""
    folder = folder_of(model)
    if folder is None:
        raise CheckpointError(model, "config.json", "no such model folder", hint=_bring(model))
    return folder


def missing_judge() -> str:
    """What a judge lacks; "" where an endpoint is named or the model's folder is here."""
    if endpoint_url() or folder_of(judge_model()):
        return ""
    return (
        f"a judge: set {URL_VARIABLE} to an OpenAI-compatible endpoint, or {_bring(judge_model())} "
        f"({MODEL_VARIABLE} names another)"
    )


def missing_embedder() -> str:
    """What the embedding model lacks; "" where its folder is here."""
    if folder_of(embedding_model()):
        return ""
    return f"an embedding model: {_bring(embedding_model())} ({EMBEDDER_VARIABLE} names another)"

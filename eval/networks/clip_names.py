"""The released CLIP files that scorers may name, and where they lie. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass

from eval.contract import Need
from eval.networks.weights_paths import need

ENDINGS = (".pt", ".safetensors", ".pth", ".bin")


@dataclass(frozen=True)
class Form:
    """What tells one release from another: patch size in pixels, text positions."""

    patch: int
    context: int
    folder: str
    release: str


OPENAI_CONTEXT, LONG_CONTEXT = 77, 248
FORMS = {
    "ViT-B-32": Form(32, OPENAI_CONTEXT, "clip", "OpenAI's CLIP ViT-B/32"),
    "ViT-B-16": Form(16, OPENAI_CONTEXT, "clip", "OpenAI's CLIP ViT-B/16"),
    "ViT-L-14": Form(14, OPENAI_CONTEXT, "clip", "OpenAI's CLIP ViT-L/14"),
    "longclip-B": Form(16, LONG_CONTEXT, "longclip", "Long-CLIP-B"),
    "longclip-L": Form(14, LONG_CONTEXT, "longclip", "Long-CLIP-L"),
}


def file_names(name: str) -> tuple[str, ...]:
    """Below `<checkpoints>/eval`, the released name first."""
    return tuple(f"{FORMS[name].folder}/{name}{ending}" for ending in ENDINGS)


def clip_need(name: str) -> Need:
    return need(FORMS[name].release, *file_names(name))

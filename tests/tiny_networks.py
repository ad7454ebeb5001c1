"""Tiny random networks of scorers, written in the layouts of the released files, and samples to score.

A helper of tests.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from eval.contract import Sample, Segment, VideoInfo, VideoWatcher

State = dict[str, torch.Tensor]
WIDTH, FEATURES, VOCABULARY = (
    64,
    16,
    49408,
)  # one head of 64; the real vocabulary, because the tokeniser is the real one


def random_state(shapes: dict[str, tuple[int, ...]], seed: int) -> State:
    generator = torch.Generator().manual_seed(seed)
    state = {name: 0.1 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    gains = [name for name in shapes if name.endswith("weight") and ".ln_" in f".{name}"]
    return state | {name: 1 + state[name] for name in gains}


def block_shapes(prefix: str, layers: int = 1) -> dict[str, tuple[int, ...]]:
    """Residual attention blocks in OpenAI's names."""
    w = WIDTH
    one = {
        "attn.in_proj_weight": (3 * w, w),
        "attn.in_proj_bias": (3 * w,),
        "attn.out_proj.weight": (w, w),
        "attn.out_proj.bias": (w,),
        "ln_1.weight": (w,),
        "ln_1.bias": (w,),
        "ln_2.weight": (w,),
        "ln_2.bias": (w,),
        "mlp.c_fc.weight": (4 * w, w),
        "mlp.c_fc.bias": (4 * w,),
        "mlp.c_proj.weight": (w, 4 * w),
        "mlp.c_proj.bias": (w,),
    }
    return {
        f"{prefix}transformer.resblocks.{layer}.{name}": shape for layer in range(layers) for name, shape in one.items()
    }


def text_shapes(context: int, prefix: str = "") -> dict[str, tuple[int, ...]]:
    own = {
        "positional_embedding": (context, WIDTH),
        "text_projection": (WIDTH, FEATURES),
        "token_embedding.weight": (VOCABULARY, WIDTH),
        "ln_final.weight": (WIDTH,),
        "ln_final.bias": (WIDTH,),
    }
    return {f"{prefix}{name}": shape for name, shape in own.items()} | block_shapes(prefix)


def clip_state(patch: int = 14, context: int = 77, grid: int = 2, seed: int = 0) -> State:
    """OpenAI's names: `visual.*`, text tower at the top, `logit_scale`."""
    visual = {
        "visual.class_embedding": (WIDTH,),
        "visual.positional_embedding": (grid**2 + 1, WIDTH),
        "visual.proj": (WIDTH, FEATURES),
        "visual.conv1.weight": (WIDTH, 3, patch, patch),
        "visual.ln_pre.weight": (WIDTH,),
        "visual.ln_pre.bias": (WIDTH,),
        "visual.ln_post.weight": (WIDTH,),
        "visual.ln_post.bias": (WIDTH,),
        "logit_scale": (),
    }
    return random_state(visual | block_shapes("visual.", 2) | text_shapes(context), seed)


def long_clip_state(patch: int = 14, seed: int = 1) -> State:
    """As released: two position tables of 248 rows."""
    state = clip_state(patch, context=248, seed=seed)
    return state | random_state({"positional_embedding_res": (248, WIDTH)}, seed + 100)


def viclip_state(vision: str, text: str, context: int, two_tables: bool, frames: int = 8, seed: int = 2) -> State:
    """One file with both loaded under their prefixes, and a temperature."""
    own = {
        "conv1.weight": (WIDTH, 3, 1, 14, 14),
        "class_embedding": (WIDTH,),
        "positional_embedding": (5, WIDTH),
        "temporal_positional_embedding": (1, frames, WIDTH),
        "ln_pre.weight": (WIDTH,),
        "ln_pre.bias": (WIDTH,),
        "ln_post.weight": (WIDTH,),
        "ln_post.bias": (WIDTH,),
        "proj": (WIDTH, FEATURES),
    }
    shapes = (
        {f"{vision}{name}": shape for name, shape in own.items()}
        | block_shapes(vision, 2)
        | text_shapes(context, text)
        | {"temp": ()}
    )
    if two_tables:
        shapes |= {f"{text}positional_embedding_res": (context, WIDTH), f"{text}logit_scale": ()}
    return random_state(shapes, seed)


def put(state: State, path: Path, nest: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({nest: state} if nest else state, path)
    return path


def video(frames: int, height: int = 36, width: int = 64, seed: int = 0) -> np.ndarray:
    """(T, H, W, 3) uint8 noise."""
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def sample_of(
    frames_THWC: np.ndarray,
    fps: float = 8.0,
    prompt: str = "a red circle",
    segments: tuple[Segment, ...] = (),
    **labels: object,
) -> Sample:
    count, height, width, _ = frames_THWC.shape
    return Sample(Path("clip.mp4"), "0" * 64, VideoInfo(count, fps, width, height), "p0", prompt, 0, segments, labels)


def show(watcher: VideoWatcher, frames_THWC: np.ndarray) -> dict:
    for index, frame in enumerate(frames_THWC):
        watcher.see(index, frame)
    return watcher.scores()

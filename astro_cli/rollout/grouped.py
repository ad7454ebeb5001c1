"""Group-wise streaming rollout: a prompt's history is sampled once and frozen, G candidate clips are decoded in
parallel from it.

    x_n^(i) ~ pi( . | C_n, c),  i = 1 .. G          C_n: sink and rolling window of the history, stored once

`ClipContext` conditions a training pass on the same C_n: the history of a clip and the clip's own earlier blocks, all
clean.
Source: Astrolabe (arXiv 2603.17051) section 3.2, Eq. 3, and Algorithm 2 (partial rollout to s + W). Frames are latent
frames.
Dimensions: P prompt, B clip, F frame of a clip, C channel, H, W latent rows and columns.

**Deviations**: Algorithm 2 rolls out every sample's own video up to the window; section 3.2's shared history is used
there too. The released code has neither (G whole videos from their own noise).
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy

import torch

from astro_cli.cache.context import FrozenContext
from astro_cli.models.wan.transformer import CausalWan, TextStates
from astro_cli.rollout.branches import Branches, CachedFrames, snapshot
from astro_cli.rollout.streaming import StreamSpec, frame_noise, new_cache, stream, write_context
from astro_cli.sampling.sampler import few_step_grid, final, transitions
from astro_cli.sampling.trajectory import Recorder


@torch.no_grad()
def sample_history(
    network: CausalWan, text: TextStates, seeds: list[int], spec: StreamSpec, frames: int
) -> tuple[torch.Tensor, list[CachedFrames]]:
    """Stream `frames` frames (a multiple of the block) for P prompts.

    Returns:
        latents (P, frames, C, H, W), and the frozen context after them; no frames give no context.
    """
    if frames == 0:
        return torch.empty(len(seeds), 0, *spec.latent_shape, device=network.device), []
    cache = new_cache(network, len(seeds), spec, frames)
    blocks = list(stream(network, text, seeds, spec, frames, cache=cache, join=False))
    write_context(network, text, blocks[-1], cache, frames - spec.block)
    return torch.cat(blocks, 1), [snapshot(cache)]


@torch.no_grad()
def record_history(
    network: CausalWan, text: TextStates, history_PFCHW: torch.Tensor, spec: StreamSpec
) -> list[CachedFrames]:
    """The frozen context of histories that exist already; bit for bit what `sample_history` returned with them."""
    frames = history_PFCHW.shape[1]
    if frames == 0:
        return []
    cache = new_cache(network, len(history_PFCHW), spec, frames)
    for start in range(0, frames, spec.block):
        write_context(network, text, history_PFCHW[:, start : start + spec.block], cache, start)
    return [snapshot(cache)]


@torch.no_grad()
def decode_candidates(
    network: CausalWan,
    text: TextStates,
    seeds: list[int],
    spec: StreamSpec,
    shared: list[CachedFrames],
    rows: torch.Tensor,
    start: int,
    frames: int,
    recorder: Recorder | None = None,
) -> torch.Tensor:
    """Candidate clips (B, frames, C, H, W) that continue histories at frame `start`.

    Args:
        text, seeds: of the B clips.
        shared, rows: the histories' context, and which of them each clip continues.
        recorder: keeps the clips' trajectory.
    """
    branches = Branches(network, spec.latent_shape, spec.cache, shared, rows)
    blocks: list[torch.Tensor] = []
    for first in range(start, start + frames, spec.block):
        block = range(first, first + spec.block)

        def predict(x: torch.Tensor, timestep: torch.Tensor, last: bool, first: int = first) -> torch.Tensor:
            plan = branches.begin(first, spec.block)
            return network(x, timestep, text, positions=plan.positions, cache=plan)

        def renoise(index: int, block: range = block) -> torch.Tensor:
            return frame_noise(spec, seeds, block, f"renoise-{index}", network.device)

        x_T = frame_noise(spec, seeds, block, "x_T", network.device)
        steps = transitions(predict, x_T, few_step_grid(spec.steps), renoise, spec.kernel)
        blocks.append(final(steps if recorder is None else recorder.listen(steps)))
        if first + spec.block < start + frames:
            record_block(network, text, blocks[-1], branches, first)
    return torch.cat(blocks, 1)


def record_block(network: CausalWan, text: TextStates, x0_BFCHW: torch.Tensor, branches: Branches, start: int) -> None:
    """Make a clean block (t = 0) part of the context; with gradients where the context carries them."""
    with torch.set_grad_enabled(branches.gradient):
        plan = branches.begin(start, x0_BFCHW.shape[1], record=True)
        timestep = torch.zeros(x0_BFCHW.shape[:2], device=x0_BFCHW.device)
        network(x0_BFCHW, timestep, text, positions=plan.positions, cache=plan, context_only=True)


class HistoryMemory:
    """The context of the histories that clips continued last: parts of an update and updates of an epoch often share
    histories.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """To be called when the recording policy changes."""
        self._of: tuple[torch.Tensor | None, tuple[int, ...]] = (None, ())
        self._shared: list[CachedFrames] = []

    def recorded(
        self, of: tuple[torch.Tensor, tuple[int, ...]], record: Callable[[], list[CachedFrames]]
    ) -> list[CachedFrames]:
        """The result of `record` for these rows of this very tensor of latents; called if there is none yet."""
        if self._of[0] is not of[0] or self._of[1] != of[1]:
            self._of, self._shared = of, record()
        return self._shared


class ClipContext:
    """C_n of B clips under one policy: the shared history, then each clip's own clean blocks before the one that is
    denoised.

    Args:
        network, text: the policy whose keys and values are recorded, and its text states of the B clips.
        history_PFCHW: latents before the clips (no frames: they open the video).
        clip_BFCHW: the clean clips.
        groups: (B,) long, each clip's history; clips of one have the same text, and their history is recorded once.
        gradient: record with gradients ("full back-propagation"); else everything is detached.
        memory: where the histories' context is kept for the next clips that continue the same ones, as long as the
            policy stays.
    """

    def __init__(
        self,
        network: CausalWan,
        text: TextStates,
        history_PFCHW: torch.Tensor,
        clip_BFCHW: torch.Tensor,
        groups: torch.Tensor,
        spec: StreamSpec,
        *,
        gradient: bool,
        memory: HistoryMemory | None = None,
    ) -> None:
        self.block, self.start, self.frames = spec.block, history_PFCHW.shape[1], clip_BFCHW.shape[1]
        ids, rows = groups.unique(return_inverse=True)
        first = torch.stack([(rows == index).nonzero()[0, 0] for index in range(len(ids))])
        history, text_states = history_PFCHW[ids], text.select(first)
        if gradient:
            past = Branches(network, spec.latent_shape, spec.cache, gradient=True)
            for start in range(0, self.start, self.block):
                record_block(network, text_states, history[:, start : start + self.block], past, start)
            shared = past.own
        elif memory is not None:
            shared = memory.recorded(
                (history_PFCHW, tuple(ids.tolist())), lambda: record_history(network, text_states, history, spec)
            )
        else:
            shared = record_history(network, text_states, history, spec)
        self.branches = Branches(network, spec.latent_shape, spec.cache, shared, rows, gradient=gradient)
        for start in range(0, self.frames - self.block, self.block):
            record_block(network, text, clip_BFCHW[:, start : start + self.block], self.branches, self.start + start)

    def select(self, rows: torch.Tensor) -> ClipContext:
        """Of the clips at these rows."""
        selected = copy(self)
        selected.branches = self.branches.select(rows)
        return selected

    def velocity(
        self, network: CausalWan, x_t: torch.Tensor, timestep_BF: torch.Tensor, text: TextStates
    ) -> torch.Tensor:
        """Velocity (B, F, C, H, W) of every block of the clips given the clean frames before it."""
        parts = []
        for start in range(0, self.frames, self.block):
            rows, plan = slice(start, start + self.block), self.branches.begin(self.start + start, self.block)
            v = network(x_t[:, rows], timestep_BF[:, rows], text, positions=plan.positions, cache=plan)
            assert v is not None
            parts.append(v)
        return torch.cat(parts, 1)


def clean_context(
    network: CausalWan,
    text: TextStates,
    spec: StreamSpec,
    clip_BFCHW: torch.Tensor,
    history_PFCHW: torch.Tensor | None = None,
    groups: torch.Tensor | None = None,
    *,
    gradient: bool = False,
    memory: HistoryMemory | None = None,
) -> FrozenContext | ClipContext:
    """The clean frames before every block of clips as `network` sees them: a whole clip in one pass where that is
    enough, else block by block.

    Args:
        history_PFCHW: None where the clips open their videos.
        groups: None where every clip has a history of its own.
        others: as `ClipContext`.
    """
    cache = spec.cache
    if history_PFCHW is None and not gradient and not cache.relative:
        return FrozenContext(network, text, clip_BFCHW, spec.block, cache.window, cache.sink)
    if groups is None:
        groups = torch.arange(len(clip_BFCHW), device=clip_BFCHW.device)
    if history_PFCHW is None:
        history_PFCHW = clip_BFCHW.new_empty(int(groups.max()) + 1, 0, *clip_BFCHW.shape[2:])
    return ClipContext(network, text, history_PFCHW, clip_BFCHW, groups, spec, gradient=gradient, memory=memory)

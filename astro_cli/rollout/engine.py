"""The streaming engine: `Streamer` makes one batch of videos block by block and takes new prompts while it runs. Decodes and writes nothing.

    per block   x_T -> few steps through the cache -> x0;   with the next block's first step, x0 at t = 0 overwrites the block's cache entries

That step and the context pass before it share their matrix products (`Context`), which is the same computation in fewer, larger pieces.

Noise belongs to (sample, frame, step), so a video depends neither on the batch it is in nor on how frames are grouped in calls.
Source: Self-Forcing (arXiv 2506.08009), Algorithm 1; LongLive (arXiv 2509.22622), KV-recache; reference, sections 1.6 and 5.
Dimensions: B sample, F latent frame, C channel, H, W latent rows and columns.

Deviations: the context pass sees x0 as is at t = 0, in training as in inference (the released trainer adds 0.5 % noise). It runs when the next block
or a switch needs it, so the last block has none. The released recache pass with a kept sink also computes the frames whose keys it then drops.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch

from astro_cli.cache.kv import CacheSpec, KVCache
from astro_cli.cache.sinks.base import SinkPolicy
from astro_cli.config.errors import StreamError
from astro_cli.core.rng import sample_noise
from astro_cli.models.wan.transformer import CausalWan, Context, TextStates
from astro_cli.rollout.switching import SwitchRule, block_starts
from astro_cli.sampling.few_step import few_step


@dataclass(frozen=True)
class StreamSpec:
    """How a student streams.

    Args:
        steps: (S,) warped timesteps, descending.
        block: latent frames per block, 1 or more.
        latent_shape: (C, H, W).
        cache: window, sink, positions, sink policy.
        first_frame_alone: block 0 is one frame (image to video).
        given: (B, F, C, H, W) clean latents of the first frames, whole blocks: an image, or a video to continue.
    """

    steps: torch.Tensor
    block: int
    latent_shape: tuple[int, int, int]
    cache: CacheSpec
    first_frame_alone: bool = False
    given: torch.Tensor | None = None

    def block_at(self, start: int) -> int:
        """Frames of the block that starts at frame `start`."""
        return 1 if self.first_frame_alone and start == 0 else self.block

    def check(self, batch: int, max_frames: int | None) -> None:
        """Refuse what cannot stream.

        Raises:
            RecipeError: the cache's window or sink.
            StreamError: a length or given latents that are no whole blocks, an endless stream without a window.
        """
        self.cache.check(self.block, first_frame_alone=self.first_frame_alone)
        if max_frames is None and self.cache.window is None:
            raise StreamError("stream", "max_frames", "missing: without a window the cache holds the whole video", hint="give a window or a length")
        if max_frames is not None:
            self._check_whole("frames", max_frames)
        if self.given is None:
            return
        expected = (batch, self.given.shape[1], *self.latent_shape)
        if self.given.shape != expected:
            raise StreamError("stream", "given", f"found latents of shape {tuple(self.given.shape)}, expected {expected}")
        self._check_whole("given", self.given.shape[1])
        if max_frames is not None and self.given.shape[1] >= max_frames:
            raise StreamError("stream", "given", f"found {self.given.shape[1]} frames, expected fewer than the video's {max_frames}")

    def _check_whole(self, key: str, frames: int) -> None:
        starts = block_starts(frames, self.block, first_frame_alone=self.first_frame_alone)
        if not starts or starts[-1] + self.block_at(starts[-1]) != frames:
            blocks = f"1 + a multiple of the block ({self.block})" if self.first_frame_alone else f"a multiple of the block ({self.block})"
            raise StreamError("stream", key, f"found {frames} latent frames, expected {blocks}")


def new_cache(network: CausalWan, batch: int, spec: StreamSpec, max_frames: int | None, policy: SinkPolicy | None = None) -> KVCache:
    config, (_, height, width) = network.config, spec.latent_shape
    return KVCache(
        layers=config.num_layers, batch=batch, heads=config.num_heads, head_dim=config.head_dim,
        grid=(height // config.patch[0], width // config.patch[1]), spec=spec.cache, max_frames=max_frames, policy=policy,
        device=network.device, dtype=network.dtype,
    )  # fmt: skip


def frame_noise(spec: StreamSpec, seeds: list[int], frames: range, use: str, device: torch.device) -> torch.Tensor:
    """(B, F, C, H, W) noise of the given frames."""
    return torch.stack([sample_noise(spec.latent_shape, seeds, use, frame, device=device) for frame in frames], dim=1)


@torch.no_grad()
def write_context(network: CausalWan, text: TextStates, x0_BFCHW: torch.Tensor, cache: KVCache, start: int) -> None:
    """Overwrite the cache entries of frames from `start` on with those of their finished latents (t = 0)."""
    plan = cache.begin(start, x0_BFCHW.shape[1], write=True)
    timestep = torch.zeros(x0_BFCHW.shape[:2], device=x0_BFCHW.device)
    network(x0_BFCHW, timestep, text, positions=plan.positions, cache=plan, context_only=True)


class Streamer:
    """One running batch of videos.

    Args:
        network: the student, acting as the policy wanted.
        text: its text states, one per sample.
        seeds: one per sample.
        max_frames: length of the videos; None with a window streams without end.
        policy: sink policy, instead of the spec's.
        exit_step: stop every block after this step (Self-Forcing's random exit); default the last.
        gradient: let gradients through the exit step of every block; earlier steps and the cache carry none.
        cache: an empty cache to use, instead of a new one.
        join: let a block's context pass and the next block's first step share their matrix products; else they are two passes, whose keys and values
            are bit for bit those of `write_context` alone.

    Attributes:
        frame: latent frames finished, given ones included.

    Raises:
        RecipeError, StreamError: see `StreamSpec.check`.
    """

    def __init__(
        self, network: CausalWan, text: TextStates, seeds: list[int], spec: StreamSpec, max_frames: int | None = None,
        policy: SinkPolicy | None = None, *, exit_step: int | None = None, gradient: bool = False, cache: KVCache | None = None,
        join: bool = True,
    ) -> None:  # fmt: skip
        spec.check(len(seeds), max_frames)
        self.network, self.seeds, self.spec, self.max_frames = network, seeds, spec, max_frames
        self.exit_step, self.gradient, self.join = exit_step, gradient, join
        self.cache = cache if cache is not None else new_cache(network, len(seeds), spec, max_frames, policy)
        self.frame = 0
        self._written = 0  # frames whose cache entries are those of their finished latents
        self._recent: deque[torch.Tensor] = deque()  # finished blocks, back to the oldest frame a recache may need
        self._take(text)
        while spec.given is not None and self.frame < spec.given.shape[1]:
            self.write_finished()
            self._finish(spec.given[:, self.frame : self.frame + spec.block_at(self.frame)].to(network.device))

    def next_block(self) -> torch.Tensor:
        """Make the next block.

        Returns:
            x0 (B, f, C, H, W) of its f frames: `spec.block`, or 1 for a first frame alone.

        Raises:
            StreamError: the video is complete.
        """
        if self.max_frames is not None and self.frame >= self.max_frames:
            raise StreamError("stream", str(self.frame), f"the video is complete: {self.max_frames} latent frames")
        start, frames = self.frame, range(self.frame, self.frame + self.spec.block_at(self.frame))
        x0 = few_step(
            lambda x, timestep, last: self.predict(x, timestep, start, last),
            self.noise(frames, "x_T"), self.spec.steps, lambda step: self.noise(frames, f"renoise-{step}"), self.exit_step,
        )  # fmt: skip
        self._finish(x0.detach())
        return x0

    def predict(self, x_BFCHW: torch.Tensor, timestep_BF: torch.Tensor, start: int, last: bool) -> torch.Tensor:
        """Velocity of the block at `start`; `last` marks the exit step."""
        gradient = self.gradient and last
        if gradient or not self.join:
            self.write_finished()
        with torch.set_grad_enabled(gradient):
            before = self._unwritten()
            plan = self.cache.begin(start, x_BFCHW.shape[1], write=not gradient)
            v = self.network(x_BFCHW, timestep_BF, self.text, positions=plan.positions, cache=plan, before=before)
        assert v is not None
        return v

    def noise(self, frames: range, use: str) -> torch.Tensor:
        """(B, F, C, H, W) standard normal noise of frames, for "x_T" or "renoise-<step>"."""
        return frame_noise(self.spec, self.seeds, frames, use, self.network.device)

    def switch(self, text: TextStates, rule: SwitchRule | None = None) -> None:
        """Change the prompt before the next block.

        Args:
            rule: what happens to the cached past; default LongLive's bidirectional recache with the sink kept.
        """
        rule = rule or SwitchRule()
        self.write_finished()
        self._take(text)
        if rule.recache == "none" or self.frame == 0:
            return
        if rule.renew_sink:
            self.cache.renew_sink()
        start = self.cache.first if rule.renew_sink else self.cache.oldest(self.frame)
        self.cache.rewrites += 1
        for begin, end in self._spans(start, whole=rule.recache == "bidirectional"):
            write_context(self.network, self.text, self._latents(begin, end), self.cache, begin)

    def _spans(self, start: int, *, whole: bool) -> list[tuple[int, int]]:
        """Frames [start, frame) as one span or block by block; none where there are none."""
        if start >= self.frame:
            return []
        starts = block_starts(self.frame, self.spec.block, first_frame_alone=self.spec.first_frame_alone)
        inner = [] if whole else [frame for frame in starts if frame > start]
        return list(zip([start, *inner], [*inner, self.frame], strict=True))

    def _take(self, text: TextStates) -> None:
        if text.batch != len(self.seeds):
            raise StreamError("stream", "text", f"found states of {text.batch} prompts, expected {len(self.seeds)}, one per seed")
        self.text = text

    def _finish(self, x0_BFCHW: torch.Tensor) -> None:
        """Count a block as finished and forget latents that no recache can reach."""
        self._recent.append(x0_BFCHW)
        self.frame += x0_BFCHW.shape[1]
        held = sum(block.shape[1] for block in self._recent)
        while held - self._recent[0].shape[1] >= self.cache.slots:
            held -= self._recent.popleft().shape[1]

    def _latents(self, begin: int, end: int) -> torch.Tensor:
        """Finished latents (B, F, C, H, W) of recent frames."""
        recent = torch.cat(list(self._recent), 1)
        first = self.frame - recent.shape[1]
        return recent[:, begin - first : end - first]

    def _unwritten(self) -> Context | None:
        """The newest block, where its cache entries are still those of its last step; they count as written then."""
        if self._written == self.frame:
            return None
        plan = self.cache.begin(self._written, self.frame - self._written, write=True)
        self._written = self.frame
        return Context(self._recent[-1], plan.positions, plan)

    def write_finished(self) -> None:
        """Give the newest block's cache entries its finished latents, once."""
        if self._written < self.frame:
            write_context(self.network, self.text, self._recent[-1], self.cache, self._written)
            self._written = self.frame

"""The streaming engine: `Streamer` makes one batch of videos block by block and takes new prompts while it runs.

    per block   x_T -> few steps through the cache -> x0 -> context pass: x0 at t = 0 overwrites its cache entries

The context pass and the next block's first step share their matrix products (`Context`): the same computation in fewer,
larger pieces.

Noise belongs to (sample, frame, step), so a video depends neither on the batch it is in nor on how frames are grouped
in calls.
Source: Self-Forcing (arXiv 2506.08009), Algorithm 1; LongLive (arXiv 2509.22622), KV-recache; their released code.
Dimensions: B sample, F latent frame, C channel, H, W latent rows and columns.

Deviations: the context pass sees x0 as is at t = 0, in training as in inference (the released trainer adds 0.5 %
noise). It runs when the next block or a switch needs it, so there is none after the last block. The released recache
pass with a kept sink also computes the frames whose keys it then drops.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch

from astro_cli.cache.kv import KVCache
from astro_cli.cache.sinks.base import SinkPolicy
from astro_cli.config.errors import StreamError
from astro_cli.core.rng import device_noise, sample_noise
from astro_cli.models.wan.transformer import CausalWan, Context, TextStates
from astro_cli.rollout.spec import StreamSpec
from astro_cli.rollout.stream_state import StreamState
from astro_cli.rollout.switch_schedule import block_starts
from astro_cli.rollout.switching import SwitchRule
from astro_cli.sampling.sampler import few_step_grid, final, transitions
from astro_cli.sampling.trajectory import Recorder

__all__ = ["StreamSpec", "Streamer", "frame_noise", "new_cache", "write_context"]


def new_cache(
    network: CausalWan, batch: int, spec: StreamSpec, max_frames: int | None, policy: SinkPolicy | None = None
) -> KVCache:
    config, (_, height, width) = network.config, spec.latent_shape
    return KVCache(
        layers=config.num_layers,
        batch=batch,
        heads=config.num_heads,
        head_dim=config.head_dim,
        grid=(height // config.patch[0], width // config.patch[1]),
        spec=spec.cache,
        max_frames=max_frames,
        policy=policy,
        span=network.span,
        live=spec.sink_gradient,
        float8=spec.float8_cache,
        indexed=True if network.compiled else None,
        device=network.device,
        dtype=network.dtype,
    )


def frame_noise(spec: StreamSpec, seeds: list[int], frames: range, use: str, device: torch.device) -> torch.Tensor:
    """(B, F, C, H, W) noise of the given frames, for "x_T" or "renoise-<step>"."""
    seeds = spec.seeds_of(seeds, use)
    if spec.noise == "device":
        return device_noise(spec.latent_shape, seeds, [(use, frame) for frame in frames], device)
    return torch.stack([sample_noise(spec.latent_shape, seeds, use, frame, device=device) for frame in frames], dim=1)


def write_context(
    network: CausalWan,
    text: TextStates,
    x0_BFCHW: torch.Tensor,
    cache: KVCache,
    start: int,
    *,
    gradient: bool = False,
) -> None:
    """Overwrite the cache entries of frames from `start` on with those of their finished latents (t = 0); with
    gradients for a live sink.
    """
    with torch.set_grad_enabled(gradient):
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
        cache: an empty cache to use, instead of a new one.
        join: let a block's context pass and the next block's first step share their matrix products; else they are two
            passes, whose keys and values are bit for bit those of `write_context` alone.
        recorder: keeps the trajectory of every block made.
        run: what runs a pass without gradients, as the network does (`captured.Captured`); default the network.

    Attributes:
        frame: latent frames finished, given ones included.

    Raises:
        RecipeError, StreamError: see `StreamSpec.check`.
    """

    def __init__(
        self,
        network: CausalWan,
        text: TextStates,
        seeds: list[int],
        spec: StreamSpec,
        max_frames: int | None = None,
        policy: SinkPolicy | None = None,
        *,
        cache: KVCache | None = None,
        join: bool = True,
        recorder: Recorder | None = None,
        run: Callable[..., torch.Tensor | None] | None = None,
    ) -> None:
        spec.check(len(seeds), max_frames)
        self.network, self.seeds, self.spec, self.max_frames = network, seeds, spec, max_frames
        self.join, self.recorder = join, recorder
        self.runner = run if run is not None else network
        self.steps = spec.steps.to(network.device)  # once: a copy lets the host wait
        self.cache = cache if cache is not None else new_cache(network, len(seeds), spec, max_frames, policy)
        self.frame = 0
        self._written = 0  # frames whose cache entries are those of their finished latents
        self._recent: deque[torch.Tensor] = deque()  # finished blocks, back to the oldest frame a recache may need
        self._take(text)
        while spec.given is not None and self.frame < spec.given.shape[1]:
            self.write_finished()
            self._finish(spec.given[:, self.frame : self.frame + spec.block_at(self.frame)].to(network.device))

    def state(self) -> dict[str, torch.Tensor]:
        """Everything that the next blocks depend on, except network and spec: tensors by name, copied to the CPU."""
        recent, cache = list(self._recent), self.cache.state()
        saved = StreamState(self.frame, self._written, self.max_frames, self.join, self.seeds, recent, self.text, cache)
        return saved.tensors(self.spec)

    @classmethod
    def load(
        cls, network: CausalWan, spec: StreamSpec, state: Mapping[str, torch.Tensor], policy: SinkPolicy | None = None
    ) -> Streamer:
        """The stream that `state` was taken from: its next blocks have the same bits, given the same weights.

        Its text states are the saved ones; `renew_text` recomputes them where the weights have changed since.

        Raises:
            StreamError: a tensor is missing or of another network's shape, or the stream had another spec.
        """
        saved = StreamState.read(state, spec, network.device)
        fresh = replace(spec, given=None)  # given frames are in the past
        streamer = cls(network, saved.text, saved.seeds, fresh, saved.max_frames, policy, join=saved.join)
        streamer.spec, streamer.frame, streamer._written = spec, saved.frame, saved.written
        streamer._recent.extend(saved.recent)
        streamer.cache.load(saved.cache)
        return streamer

    def next_block(self, exit_step: int | None = None, *, gradient: bool = False) -> torch.Tensor:
        """Make the next block.

        Args:
            exit_step: stop after this step (Self-Forcing's random exit); default the last.
            gradient: let gradients through the exit step; earlier steps and the cache carry none, but for what is
                blended into the sink where `spec.sink_gradient` asks for it.

        Returns:
            x0 (B, f, C, H, W) of its f frames: `spec.block`, or 1 for a first frame alone.

        Raises:
            StreamError: the video is complete, or there is no such step.
        """
        if self.max_frames is not None and self.frame >= self.max_frames:
            raise StreamError("stream", str(self.frame), f"the video is complete: {self.max_frames} latent frames")
        if exit_step is not None and not 0 <= exit_step < len(self.spec.steps):
            raise StreamError("stream", "exit_step", f"found {exit_step}, expected 0 to {len(self.spec.steps) - 1}")
        if gradient and self.spec.sink_gradient:
            self.write_finished(gradient=True)
        start, frames = self.frame, range(self.frame, self.frame + self.spec.block_at(self.frame))
        steps = transitions(
            lambda x, timestep, last: self.predict(x, timestep, start, gradient=gradient and last),
            self.noise(frames, "x_T"),
            few_step_grid(self.steps, exit_step),
            lambda step: self.noise(frames, f"renoise-{step}"),
            self.spec.kernel,
        )
        x0 = final(steps if self.recorder is None else self.recorder.listen(steps))
        self._finish(x0.detach())
        return x0

    def next_chunk(
        self, frames: int, exit_step: int | Sequence[int] | None = None, *, gradient: bool = False
    ) -> torch.Tensor:
        """Make the next `frames` frames, whole blocks: what one training step takes from a stream that goes on.

        Args:
            exit_step: of all blocks, or one per block.

        Returns:
            x0 (B, frames, C, H, W).

        Raises:
            StreamError: a length that is no whole blocks or goes past the video's end, or exit steps for another number
                of blocks.
        """
        ends, first = [self.frame], self.frame
        while ends[-1] < first + frames:
            ends.append(ends[-1] + self.spec.block_at(ends[-1]))
        count = len(ends) - 1
        if count == 0 or ends[-1] != first + frames:
            what = f"found {frames} latent frames at frame {first}, expected whole blocks of {self.spec.block}"
            raise StreamError("stream", "frames", what)
        exits = list(exit_step) if isinstance(exit_step, Sequence) else [exit_step] * count
        if len(exits) != count:
            what = f"found {len(exits)} exit steps, expected one, or one for each of {count} blocks"
            raise StreamError("stream", "exit_step", what)
        return torch.cat([self.next_block(each, gradient=gradient) for each in exits], 1)

    def predict(self, x_BFCHW: torch.Tensor, timestep_BF: torch.Tensor, start: int, *, gradient: bool) -> torch.Tensor:
        """Velocity of the block at `start`, with gradients or without."""
        if gradient or not self.join:
            self.write_finished()
        with torch.set_grad_enabled(gradient):
            before = self._unwritten()
            plan = self.cache.begin(start, x_BFCHW.shape[1], write=not gradient)
            run = self.network if gradient else self.runner
            v = run(x_BFCHW, timestep_BF, self.text, positions=plan.positions, cache=plan, before=before)
        assert v is not None
        return v

    def noise(self, frames: range, use: str) -> torch.Tensor:
        """(B, F, C, H, W) standard normal noise of frames, for "x_T" or "renoise-<step>"."""
        return frame_noise(self.spec, self.seeds, frames, use, self.network.device)

    def recent(self) -> torch.Tensor:
        """The newest finished latents (B, F, C, H, W): all frames the window holds, or more."""
        return torch.cat(list(self._recent), 1)

    def renew_text(self) -> None:
        """Recompute the text states after an optimiser step, since their keys and values depend on the weights.

        The cached past stays as it is. Gradients reach the text layers where they are enabled at this call.
        """
        self.text = self.network.encode_text(self.text.source_BMD, fold_padding=self.text.folded)

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
            raise StreamError(
                "stream", "text", f"found states of {text.batch} prompts, expected {len(self.seeds)}, one per seed"
            )
        self.text = text

    def _finish(self, x0_BFCHW: torch.Tensor) -> None:
        """Count a block as finished and forget latents that no recache can reach."""
        self._recent.append(x0_BFCHW)
        self.frame += x0_BFCHW.shape[1]
        kept = sum(block.shape[1] for block in self._recent)
        while kept - self._recent[0].shape[1] >= self.cache.slots:
            kept -= self._recent.popleft().shape[1]

    def _latents(self, begin: int, end: int) -> torch.Tensor:
        """Finished latents (B, F, C, H, W) of recent frames."""
        recent = self.recent()
        first = self.frame - recent.shape[1]
        return recent[:, begin - first : end - first]

    def _unwritten(self) -> Context | None:
        """The newest block, where its cache entries are still those of its last step; they count as written then."""
        if self._written == self.frame:
            return None
        plan = self.cache.begin(self._written, self.frame - self._written, write=True)
        self._written = self.frame
        return Context(self._recent[-1], plan.positions, plan)

    def write_finished(self, *, gradient: bool = False) -> None:
        """Give the newest block's cache entries its finished latents, once."""
        if self._written < self.frame:
            write_context(self.network, self.text, self._recent[-1], self.cache, self._written, gradient=gradient)
            self._written = self.frame

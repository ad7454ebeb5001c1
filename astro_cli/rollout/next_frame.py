"""Next-frame models: each frame is made from noise, the frame before it in extra input channels, and the cached past.

    x_i = noise_i - v(noise_i ; x_{i-1} | keys and values of the passes before)          one forward per frame

Frame 0 is given: a picture. The pass that makes frame i + 1 is the i-th of the sequence: it stands at position i, and
its keys and values stay cached as it left them, so there is no context pass. Given frames behind the first are passed
with their own predecessors and what the passes predict is dropped.
Source: AAPT (arXiv 2506.09350), supplement C and D: input recycling, one frame and one forward per step, temporal
positions at a fixed interval.
Dimensions: B sample, F latent frame, C channel, H, W latent rows and columns.

**Deviations**: the picture enters as the recycled input of the first pass alone; it has no channels of its own behind
it, and stays visible where the first frame of the sequence is the cache's sink.
"""

from __future__ import annotations

import torch

from astro_cli.cache.kv import KVCache
from astro_cli.cache.segment import SegmentCache
from astro_cli.config.errors import StreamError
from astro_cli.models.camera import camera_channels
from astro_cli.models.wan.masks import block_causal_mask
from astro_cli.models.wan.transformer import CausalWan, TextStates
from astro_cli.rollout.engine import frame_noise, new_cache
from astro_cli.rollout.spec import StreamSpec
from astro_cli.rollout.switching import SwitchRule
from astro_cli.sampling.sampler import few_step_grid, final, transitions

IMAGE_HINT = "give the first frame: --image FILE, or image= of the Python API"


def recycled_input(frames_BFCHW: torch.Tensor, recycle: str) -> torch.Tensor:
    """(B, F - 1, C, H, W): what the passes over frames 1 .. F - 1 see in the extra channels, the frame before each.

    Args:
        recycle: "previous"; "first": the first frame in the first pass, zeros in all others (supplement G).
    """
    previous = frames_BFCHW[:, :-1]
    if recycle == "previous":
        return previous
    return torch.cat((previous[:, :1], torch.zeros_like(previous[:, 1:])), 1)


def conditions(frames_BFCHW: torch.Tensor, recycle: str, moves_BF2: torch.Tensor | None = None) -> torch.Tensor:
    """(B, F - 1, K, H, W): all extra channels of the passes over frames 1 .. F - 1: `recycled_input`, and where there
    is a camera its rays at those frames.

    Args:
        moves_BF2: of the camera before each frame.
    """
    recycled = recycled_input(frames_BFCHW, recycle)
    if moves_BF2 is None:
        return recycled
    return torch.cat((recycled, camera_channels(moves_BF2[:, 1:], *recycled.shape[-2:]).to(recycled)), 2)


def forced_velocity(
    network: CausalWan,
    x_BFCHW: torch.Tensor,
    timestep_BF: torch.Tensor,
    text: TextStates,
    conditions_BFCHW: torch.Tensor,
    window: int | None,
    sink: int,
) -> torch.Tensor:
    """Velocity of frames 1 .. F of a clip in one pass, each given the true frame before it: teacher forcing. With one
    timestep for the whole clip it is what the cached passes predict, frame by frame.
    """
    tokens = network.tokens_per_frame(*x_BFCHW.shape[-2:])
    mask = block_causal_mask(x_BFCHW.shape[1], tokens, 1, window, sink).to(x_BFCHW.device)
    v = network(torch.cat((x_BFCHW, conditions_BFCHW.to(x_BFCHW)), 2), timestep_BF, text, mask=mask)
    assert v is not None
    return v


def segment_cache(network: CausalWan, spec: StreamSpec) -> SegmentCache:
    """An empty cache that carries gradients, for videos of the spec's size."""
    _, height, width = spec.latent_shape
    rows, columns = height // network.config.patch[0], width // network.config.patch[1]
    return SegmentCache(
        network.config.num_layers, spec.cache, lambda positions: network.table(positions, rows, columns)
    )


class NextFrameStreamer:
    """A running batch of videos of a next-frame model.

    Args:
        network, text, seeds, spec, max_frames: as `engine.Streamer`; `spec.given` is the first frame, or more.
        cache: `segment_cache`, for gradients through the past; default a rolling cache without any.

    Attributes:
        frame: latent frames that there are, given ones included.

    Raises:
        RecipeError, StreamError: see `StreamSpec.check`; no first frame, or a student of other blocks.
    """

    def __init__(
        self,
        network: CausalWan,
        text: TextStates,
        seeds: list[int],
        spec: StreamSpec,
        max_frames: int | None = None,
        *,
        cache: KVCache | SegmentCache | None = None,
    ) -> None:
        if spec.given is None:
            raise StreamError(
                "stream", "given", "missing: this student makes each frame from the one before", hint=IMAGE_HINT
            )
        if spec.block != 1:
            raise StreamError("stream", "video.block", f"found {spec.block}, expected 1: it makes frame after frame")
        spec.check(len(seeds), max_frames)
        self.network, self.text, self.seeds, self.spec, self.max_frames = network, text, seeds, spec, max_frames
        self.steps = spec.steps.to(network.device)
        self.cache = cache if cache is not None else new_cache(network, len(seeds), spec, max_frames)
        self.frame = 1
        self.previous = spec.given[:, :1].to(network.device)
        for place in range(1, spec.given.shape[1]):
            self.next_block()
            self.previous = spec.given[:, place : place + 1].to(network.device)

    def next_block(self, exit_step: int | None = None, *, gradient: bool = False) -> torch.Tensor:
        """Make the next frame (B, 1, C, H, W). With `gradient` and a `segment_cache`, gradients reach all passes since
        the last `detach`.

        Raises:
            StreamError: the video is complete.
        """
        if self.max_frames is not None and self.frame >= self.max_frames:
            raise StreamError("stream", str(self.frame), f"the video is complete: {self.max_frames} latent frames")
        frames = range(self.frame, self.frame + 1)
        with torch.set_grad_enabled(gradient):
            given = self._conditions()
            steps = transitions(
                lambda x, timestep, last: self._predict(x, timestep, given),
                frame_noise(self.spec, self.seeds, frames, "x_T", self.network.device),
                few_step_grid(self.steps, exit_step),
                lambda step: frame_noise(self.spec, self.seeds, frames, f"renoise-{step}", self.network.device),
                self.spec.kernel,
            )
            self.previous = final(steps)
        self.frame += 1
        return self.previous

    def _conditions(self) -> torch.Tensor:
        """The extra channels (B, 1, K, H, W) of the next pass."""
        kept = self.spec.recycle == "previous" or self.frame == 1
        recycled = self.previous if kept else torch.zeros_like(self.previous)
        if self.spec.moves is None:
            return recycled
        place = min(self.frame, self.spec.moves.shape[1] - 1)
        moves = self.spec.moves[:, place : place + 1].to(recycled)
        return torch.cat((recycled, camera_channels(moves, *recycled.shape[-2:])), 2)

    def _predict(self, x_BFCHW: torch.Tensor, timestep_BF: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        plan = self.cache.begin(self.frame - 1, 1, write=True)
        x = torch.cat((x_BFCHW, given.to(x_BFCHW)), 2)
        v = self.network(x, timestep_BF, self.text, positions=plan.positions, cache=plan)
        assert v is not None
        return v

    def detach(self) -> None:
        """End a segment: no gradient of what follows reaches what there is."""
        self.previous = self.previous.detach()
        if isinstance(self.cache, SegmentCache):
            self.cache.detach()

    def switch(self, text: TextStates, rule: SwitchRule | None = None) -> None:
        """Change the prompt before the next frame. The cached past, of noisy passes, stays: no rule remakes it."""
        if text.batch != len(self.seeds):
            what = f"found states of {text.batch} prompts, expected {len(self.seeds)}, one per seed"
            raise StreamError("stream", "text", what)
        self.text = text

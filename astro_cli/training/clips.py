"""Rolls out what an RL step is scored on: whole videos, or candidate clips that continue a shared history.

Where clips are rolled out in parts, finished ones are scored while the next are rolled out (Astrolabe's reward
workers).

Dimensions: P prompt, G candidate of a prompt, B clip (prompts in order, each with its candidates).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch

from astro_cli.core.background import Background
from astro_cli.core.flow import sigma_of
from astro_cli.core.rng import stream, stream_seed
from astro_cli.core.stats import concatenated
from astro_cli.models.backbone import Backbone
from astro_cli.models.decoding import StreamingDecoder
from astro_cli.models.wan.transformer import CausalWan, TextStates
from astro_cli.objectives.base import RunContext
from astro_cli.rewards.base import Reward, check_scores
from astro_cli.rollout.bidirectional import sample_clips
from astro_cli.rollout.branches import CachedFrames, check_sink
from astro_cli.rollout.grouped import decode_candidates, sample_history
from astro_cli.rollout.streaming import StreamSpec, generate
from astro_cli.sampling.ode import guided
from astro_cli.sampling.sampler import few_step_grid
from astro_cli.sampling.trajectory import Recorder, Trajectory, joined
from astro_cli.spec import ExperienceSpec, sde_steps

Observe = Callable[
    [torch.Tensor, torch.Tensor, Backbone], dict[str, torch.Tensor]
]  # a credit rule's, on latents and frames
History = tuple[torch.Tensor, list[CachedFrames]]  # latents (P, F, C, H, W) and the frozen context after them


@dataclass
class Clips:
    """Latents (B, F, C, H, W), scores per reward and mean motion (B,), what the credit rule observed (B, ...) by name,
    the latents (P, F, C, H, W) they continue, if any, and the B clips' trajectory, if it is recorded."""

    latents: torch.Tensor
    scores: dict[str, torch.Tensor]
    motion: torch.Tensor
    history: torch.Tensor | None = None
    observed: dict[str, torch.Tensor] = field(default_factory=dict)
    trajectory: Trajectory | None = None

    @staticmethod
    def join(parts: list[Clips], histories: list[torch.Tensor], trajectories: list[Trajectory]) -> Clips:
        return Clips(
            torch.cat([part.latents for part in parts]),
            concatenated([part.scores for part in parts]),
            torch.cat([part.motion for part in parts]),
            torch.cat(histories) if histories else None,
            concatenated([part.observed for part in parts]),
            joined(trajectories, "B") if trajectories else None,
        )


def window_starts(spec: ExperienceSpec, frames: int, block: int) -> range:
    """Latent frames at which a clip of a video may start: blocks at which a whole one fits, or the last of them."""
    last = (frames - spec.clip) // block * block
    return range(last if spec.window == "last" else 0, last + 1, block)


def window_start(spec: ExperienceSpec, frames: int, block: int, shared: int) -> int:
    """First latent frame s of the clip: SELECTWINDOW of Algorithm 2, the same on every process, since `shared` is.

    "random" is Table S1's "Random Choice", uniform over the possible starts.
    """
    starts = window_starts(spec, frames, block)
    return starts[int(torch.randint(len(starts), (), generator=stream(shared, "window")))]


def fewest_frames(spec: ExperienceSpec, frames: int, block: int, backbone: Backbone) -> int:
    """Pixel frames of the shortest clip that rewards will see; one that opens a video may have fewer than later
    ones.
    """
    if not spec.clip:
        return backbone.num_frames(frames)
    return min(backbone.num_frames(spec.clip, start) for start in window_starts(spec, frames, block))


class Roller:
    """The old policy, or another role, at work, `parallel` clips at a time; with `record` the clips' trajectories are
    kept.
    """

    def __init__(
        self,
        spec: ExperienceSpec,
        run_context: RunContext,
        backbone: Backbone,
        rewards: list[Reward],
        observe: Observe | None = None,
        *,
        record: bool = False,
        role: str = "old",
    ) -> None:
        self.role = role
        self.spec, self.run_context, self.backbone, self.rewards, self.observe = (
            spec,
            run_context,
            backbone,
            rewards,
            observe,
        )
        self.stream = run_context.stream_spec()
        self.frames = spec.frames or run_context.frames
        self.recorder = Recorder() if record else None
        if spec.clip:
            check_sink(run_context.cache)

    def begin(self, shared: int) -> None:
        """Place an epoch's window of steps that draw noise, where the recipe has one; `shared` is the same for all."""
        self.stream = self.run_context.stream_spec()
        if self.spec.sde_window is not None:
            first, stop = sde_steps(self.spec, len(self.stream.steps))
            places = stop - first - self.spec.sde_window + 1
            start = first + int(torch.randint(places, (), generator=stream(shared, "sde")))
            kernel = replace(self.stream.kernel, window=(start, start + self.spec.sde_window))
            self.stream = replace(self.stream, kernel=kernel)

    def sequences(
        self, prompts: list[str], seeds: list[int], text: torch.Tensor, starts: list[int] | None = None
    ) -> Clips:
        """Whole videos, each from its own noise; `starts` are the seeds of x_T where they are others."""
        size, parts, trajectories = self.spec.parallel or len(seeds), [], list[Trajectory]()
        with Background(self.run_context.device) as background:
            for start in range(0, len(seeds), size):
                rows = slice(start, start + size)
                with self._policy() as policy:
                    latents = self._videos(policy, text[rows], seeds[rows], starts and starts[rows])
                trajectories += self._recorded()
                parts.append(background.submit(self._scored, latents, prompts[rows]))
            return Clips.join([part.result() for part in parts], [], trajectories)

    def _videos(
        self, policy: CausalWan, text: torch.Tensor, seeds: list[int], starts: list[int] | None
    ) -> torch.Tensor:
        """Streamed by a student, in one piece by a bidirectional policy with its guidance."""
        here, spec = self.run_context, self._from(starts)
        if not here.bidirectional:
            return generate(policy, text, seeds, spec, self.frames, self.recorder)
        sigmas = sigma_of(few_step_grid(spec.steps))
        velocity = guided(policy, text.to(policy.device), here.guidance, here.empty_text(text).to(policy.device))
        shape = (self.frames, *spec.latent_shape)
        return sample_clips(velocity, seeds, shape, sigmas, policy.device, spec.kernel, self.recorder, starts)

    def _from(self, starts: list[int] | None) -> StreamSpec:
        return self.stream if starts is None else replace(self.stream, starts=tuple(starts))

    def candidates(
        self,
        prompts: list[str],
        seeds: list[int],
        text: torch.Tensor,
        prompt_seeds: list[int],
        start: int,
        starts: list[int] | None = None,
    ) -> Clips:
        """`group` clips [start, start + clip) per prompt on one history; histories of the prompts whose clips run
        together are streamed together.

        A group larger than `parallel` is rolled out in parts, all from its one history. A history is decoded to frames
        once, for all its clips: their frames are those of the whole video.
        """
        group, size, parts = self.spec.group, self.spec.parallel or len(seeds), []
        at_once, histories, trajectories = max(1, size // group), list[torch.Tensor](), list[Trajectory]()
        past: Future[StreamingDecoder] | None = None
        with Background(self.run_context.device) as background:
            for first in range(0, len(prompt_seeds), at_once):
                owners = prompt_seeds[first : first + at_once]
                owner = torch.arange(len(owners)).repeat_interleave(group).to(self.run_context.device)
                shared: History | None = None
                for offset in range(0, len(owner), size):
                    rows, own = (
                        slice(first * group + offset, first * group + min(offset + size, len(owner))),
                        owner[offset : offset + size],
                    )
                    with self._policy() as policy:
                        text_states = policy.encode_text(text[rows].to(policy.device))
                        if shared is None:
                            shared = self._history(
                                policy, text_states.select(torch.arange(0, text_states.batch, group)), owners, start
                            )
                            histories.append(shared[0])
                            past = background.submit(self._decoded, shared[0])
                        spec = self._from(starts and starts[rows])
                        latents = decode_candidates(
                            policy, text_states, seeds[rows], spec, shared[1], own, start, self.spec.clip, self.recorder
                        )
                    trajectories += self._recorded()
                    parts.append(background.submit(self._scored, latents, prompts[rows], past, own))
            return Clips.join([part.result() for part in parts], histories, trajectories)

    @contextmanager
    def _policy(self) -> Iterator[CausalWan]:
        """The role, theta_old by default, without gradients and at the run's precision; scoring has its own thread, so
        none of this reaches it.
        """
        run_context = self.run_context
        with (
            torch.no_grad(),
            run_context.section("rollout"),
            run_context.autocast(),
            run_context.roles.use(self.role) as policy,
        ):
            yield policy

    def _history(self, policy: CausalWan, text_states: TextStates, owners: list[int], start: int) -> History:
        return sample_history(
            policy, text_states, [stream_seed(seed, "history") for seed in owners], self.stream, start
        )

    def _recorded(self) -> list[Trajectory]:
        """The trajectory of the clips made last, where they are recorded."""
        return [] if self.recorder is None else [self.recorder.take()]

    def _decoded(self, history: torch.Tensor) -> StreamingDecoder:
        """The decoder after the histories; their frames are not kept."""
        with self.run_context.section("reward"):
            return self.backbone.decoder().skip(history)

    def _frames(
        self, latents: torch.Tensor, past: Future[StreamingDecoder] | None, owner: torch.Tensor | None
    ) -> torch.Tensor:
        """Frames of clips that continue the histories `owner` (B,) behind `past`, or that open their videos."""
        if past is None or owner is None:
            return self.backbone.decode(latents)
        return past.result().fork(owner).push(latents)

    def _scored(
        self,
        latents: torch.Tensor,
        prompts: list[str],
        past: Future[StreamingDecoder] | None = None,
        owner: torch.Tensor | None = None,
    ) -> Clips:
        with self.run_context.section("reward"):
            frames = self._frames(latents, past, owner).float()
            scores = {
                reward.key: check_scores(reward.key, reward.score(frames, prompts).float(), len(prompts))
                for reward in self.rewards
            }
            with torch.no_grad():
                observed = self.observe(latents, frames, self.backbone) if self.observe is not None else {}
            motion = (
                (frames[:, 1:] - frames[:, :-1]).abs().flatten(1).sum(1)
                / max(1, frames.shape[1] - 1)
                / frames[0, 0].numel()
            )
        return Clips(latents, scores, motion, observed=observed)

"""What a sampler went through, kept for training: states, timesteps, means, deviations and log-probs of its steps.

`Recorder` listens to samplers while they run; `Trajectory.pick` gives back steps to replay under another policy.
Dimensions: S step, K = S + 1 state, R random step (all of the kernel's window but the last step; none of an ODE),
B sample, F latent frame, C channel, H, W latent rows and columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from astro_cli.sampling.kernel import Kernel
from astro_cli.sampling.transition import Transition


@dataclass(frozen=True)
class Trajectory:
    """Steps of a sampler on B videos or clips.

    Attributes:
        timesteps_K: (K,), falling to 0, on the CPU.
        states_KBFCHW: from Gaussian noise to clean latents.
        kernel: of the random steps.
        means_SBFCHW, std_S: of each step's Gaussian; std on the CPU, 0 of the last step and of those by the ODE.
        log_prob_RBF: under the policy that sampled, a mean over a frame's entries; over frames, a sample's.
    """

    kernel: Kernel
    timesteps_K: torch.Tensor
    states_KBFCHW: torch.Tensor
    means_SBFCHW: torch.Tensor
    std_S: torch.Tensor
    log_prob_RBF: torch.Tensor

    @property
    def latents(self) -> torch.Tensor:
        """(B, F, C, H, W), clean."""
        return self.states_KBFCHW[-1]

    @property
    def random(self) -> tuple[int, ...]:
        """The R steps that have a density and may be trained on; never the last."""
        return tuple(self.std_S.nonzero().flatten().tolist())

    def pick(self, step: torch.Tensor) -> Transition:
        """One recorded step of every sample, or of every frame.

        Args:
            step: (B,) or (B, F) long, each one of `random`; frames of a block share theirs.
        """
        batch, frames = self.states_KBFCHW.shape[1:3]
        step_BF = (step if step.ndim == 2 else step[:, None].expand(batch, frames)).cpu()
        assert bool((self.std_S[step_BF] > 0).all()), "the last step, and those of an ODE, have no density"
        video_B1, frame_F, device = torch.arange(batch)[:, None], torch.arange(frames), self.states_KBFCHW.device
        return Transition(
            self.kernel,
            self.states_KBFCHW[step_BF, video_B1, frame_F],
            self.states_KBFCHW[step_BF + 1, video_B1, frame_F],
            self.means_SBFCHW[step_BF, video_B1, frame_F],
            self.std_S[step_BF].to(device),
            self.timesteps_K[step_BF].to(device),
            self.timesteps_K[step_BF + 1].to(device),
        )

    def rows(self, rows: slice | torch.Tensor) -> Trajectory:
        """The samples at these rows."""
        return replace(
            self,
            states_KBFCHW=self.states_KBFCHW[:, rows],
            means_SBFCHW=self.means_SBFCHW[:, rows],
            log_prob_RBF=self.log_prob_RBF[:, rows],
        )

    def to(self, device: torch.device) -> Trajectory:
        """The large tensors there; the schedule stays on the CPU."""
        return replace(
            self,
            states_KBFCHW=self.states_KBFCHW.to(device),
            means_SBFCHW=self.means_SBFCHW.to(device),
            log_prob_RBF=self.log_prob_RBF.to(device),
        )


def joined(parts: Sequence[Trajectory], dim: str) -> Trajectory:
    """Trajectories on one schedule as one: `dim` "B" puts samples side by side, "F" the blocks of the same videos."""
    first, axis = parts[0], {"B": 1, "F": 2}[dim]
    assert all(torch.equal(part.timesteps_K, first.timesteps_K) for part in parts), "blocks or samples of one schedule"
    return replace(
        first,
        states_KBFCHW=torch.cat([part.states_KBFCHW for part in parts], axis),
        means_SBFCHW=torch.cat([part.means_SBFCHW for part in parts], axis),
        log_prob_RBF=torch.cat([part.log_prob_RBF for part in parts], axis),
    )


class Recorder:
    """Keeps the steps of the samplers it listens to, which run one after the other on the blocks of the same videos."""

    def __init__(self) -> None:
        self.blocks: list[Trajectory] = []

    def listen(self, transitions: Iterator[Transition]) -> Iterator[Transition]:
        """The sampler's steps, as they are; once it has ended they are kept, without gradients."""
        steps = []
        for step in transitions:
            steps.append(step)
            yield step
        self.blocks.append(_recorded(steps))

    def take(self) -> Trajectory:
        """What was recorded since the last call, blocks joined along the frames."""
        blocks, self.blocks = self.blocks, []
        return joined(blocks, "F")


@torch.no_grad()
def _recorded(steps: list[Transition]) -> Trajectory:
    first = steps[0]
    random = [step for step in steps[:-1] if step.kernel.random]
    times = [step.timestep_BF[0, 0] for step in steps]
    log_probs = [step.log_prob() for step in random]
    return Trajectory(
        (random or steps)[0].kernel,
        torch.stack([*times, steps[-1].next_BF[0, 0]]).cpu(),
        torch.stack([first.x, *(step.x_next for step in steps)]),
        torch.stack([step.mean for step in steps]),
        torch.stack([step.std_BF[0, 0] for step in steps]).cpu(),
        torch.stack(log_probs) if log_probs else first.x.new_empty(0, *first.x.shape[:2]),
    )

"""Trajectories of the three engines: what they hold is what was sampled, and replaying it gives the log-probs that were
recorded.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from astro_cli.cache.kv import CacheSpec
from astro_cli.core.flow import warp_timesteps
from astro_cli.core.rng import sample_noise
from astro_cli.models.wan.config import WanConfig
from astro_cli.models.wan.transformer import CausalWan
from astro_cli.rollout.bidirectional import sample_clips
from astro_cli.rollout.grouped import ClipContext, decode_candidates, sample_history
from astro_cli.rollout.streaming import StreamSpec, frame_noise, generate, sample
from astro_cli.sampling.kernel import ODE, RENOISE, Kernel
from astro_cli.sampling.ode import euler, guided, sigma_grid
from astro_cli.sampling.trajectory import Recorder, Trajectory, joined

TINY = WanConfig(dim=24, ffn_dim=32, num_heads=2, num_layers=2, in_channels=2, freq_dim=8, text_dim=5, text_len=4)
SHAPE, FRAMES = (2, 4, 4), 8
KERNELS = [RENOISE, Kernel("cps", 0.8), Kernel("dance", 0.3), Kernel("flow", 0.7)]


@pytest.fixture(scope="module")
def model() -> CausalWan:
    torch.manual_seed(0)
    return CausalWan(TINY).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def moved(model) -> CausalWan:
    """Another policy."""
    other = CausalWan(TINY).eval().requires_grad_(False)
    other.load_state_dict({name: value + 0.05 * torch.ones_like(value) for name, value in model.state_dict().items()})
    return other


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


def text(size: int) -> torch.Tensor:
    return torch.randn(size, 4, 5, generator=torch.Generator().manual_seed(7))


def spec(kernel: Kernel = RENOISE, cache: CacheSpec | None = None) -> StreamSpec:
    return StreamSpec(
        warp_timesteps((1000, 750, 500), 4.0), 2, SHAPE, cache or CacheSpec(window=6, sink=2), kernel=kernel
    )


def steps_of(trajectory: Trajectory, index: int) -> torch.Tensor:
    return torch.full((trajectory.latents.shape[0],), index)


@pytest.mark.parametrize("kernel", [*KERNELS, ODE])
def test_a_streamed_trajectory_is_the_video_that_is_streamed(model, kernel):
    """4 states of 3 steps; noise first, then each block's own; the last state is the video, to the bit."""
    how = spec(kernel)
    trajectory = sample(model, text(2), [1, 2], how, FRAMES)
    assert trajectory.states_KBFCHW.shape == (4, 2, FRAMES, *SHAPE)
    assert torch.equal(trajectory.latents, generate(model, text(2), [1, 2], how, FRAMES))
    assert torch.equal(trajectory.states_KBFCHW[0], frame_noise(how, [1, 2], range(FRAMES), "x_T", model.device))
    assert torch.equal(trajectory.timesteps_K, torch.cat((how.steps, torch.zeros(1, dtype=torch.float64))))
    assert trajectory.log_prob_RBF.shape == (0 if kernel == ODE else 2, 2, FRAMES)
    if kernel.random:
        noise = frame_noise(how, [1, 2], range(FRAMES), "renoise-1", model.device)
        drawn = (trajectory.states_KBFCHW[2] - trajectory.means_SBFCHW[1]) / trajectory.std_S[1]
        assert torch.allclose(drawn, noise, atol=1e-5)


def test_the_kernel_of_the_spec_is_the_one_that_samples(model):
    videos = [generate(model, text(1), [1], spec(kernel), FRAMES) for kernel in (*KERNELS, ODE)]
    for index, video in enumerate(videos):
        assert all((video - other).abs().max() > 1e-3 for other in videos[:index])


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("start", [0, 4])
def test_replayed_candidates_have_the_recorded_log_probs(model, moved, kernel, start):
    """The branches' engine, and a training pass over the same context: the same bits, and other ones under another
    policy.
    """
    how, rows, recorder = spec(kernel), torch.tensor([0, 0, 1, 1]), Recorder()
    states = model.encode_text(text(2))
    history, shared = sample_history(model, states, [11, 12], how, start)
    clips = decode_candidates(model, states.select(rows), [1, 2, 3, 4], how, shared, rows, start, 4, recorder)
    trajectory = recorder.take()
    assert torch.equal(trajectory.latents, clips)
    for policy in (model, moved):
        text_states = policy.encode_text(text(2)[rows])
        context = ClipContext(policy, text_states, history, trajectory.latents, rows, how, gradient=False)
        for index in trajectory.random:
            step = trajectory.pick(steps_of(trajectory, index))
            assert torch.equal(step.log_prob(), trajectory.log_prob_RBF[index])
            replayed = step.replay(context.velocity(policy, step.x, step.timestep_BF, text_states)).log_prob()
            gap = (replayed - trajectory.log_prob_RBF[index]).abs().max().item()
            assert gap < 1e-5 if policy is model else gap > 1e-3


@pytest.mark.parametrize(
    "cache", [CacheSpec(), CacheSpec(window=6, sink=2), CacheSpec(window=6, sink=2, relative=True)]
)
def test_a_replayed_stream_has_the_recorded_log_probs(model, cache):
    """Through the rolling cache while sampling, through a shared context while replaying: the same policy up to
    rounding.
    """
    how, rows = spec(RENOISE, cache), torch.arange(2)
    trajectory, text_states = sample(model, text(2), [1, 2], how, FRAMES), model.encode_text(text(2))
    context = ClipContext(model, text_states, torch.empty(2, 0, *SHAPE), trajectory.latents, rows, how, gradient=False)
    for index in trajectory.random:
        step = trajectory.pick(steps_of(trajectory, index))
        replayed = step.replay(context.velocity(model, step.x, step.timestep_BF, text_states)).log_prob()
        assert torch.allclose(replayed, trajectory.log_prob_RBF[index], atol=1e-5)


def clips_of(model: CausalWan, kernel: Kernel, recorder: Recorder | None = None, steps: int = 5) -> torch.Tensor:
    velocity = guided(model, text(2), 3.0, torch.zeros(2, 4, 5))
    return sample_clips(velocity, [1, 2], (4, *SHAPE), sigma_grid(steps, 4.0), model.device, kernel, recorder)


def test_the_bidirectional_engine_without_noise_is_euler(model):
    noise = sample_noise((4, *SHAPE), [1, 2], "x_T")
    end, _ = euler(guided(model, text(2), 3.0, torch.zeros(2, 4, 5)), noise, sigma_grid(5, 4.0))
    assert torch.equal(clips_of(model, ODE), end)
    assert torch.equal(clips_of(model, Kernel("dance", 0.0)), end)
    assert torch.equal(clips_of(model, Kernel("flow", 0.0)), end)
    assert not torch.allclose(clips_of(model, Kernel("dance", 0.3)), end, atol=1e-2)


def plain_euler(velocity, x: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    for index in range(len(sigmas) - 1):
        x = x + velocity(x, (1000 * sigmas[index]).expand(x.shape[:2])) * float(sigmas[index + 1] - sigmas[index])
    return x


@pytest.mark.parametrize(("steps", "shift"), [(3, 1.0), (12, 4.0), (48, 5.0)])
def test_euler_is_its_own_formula_to_the_bit(model, steps, shift):
    noise, sigmas = sample_noise((4, *SHAPE), [1, 2], "x_T"), sigma_grid(steps, shift)
    velocity = guided(model, text(2), 3.0, torch.zeros(2, 4, 5))
    assert torch.equal(euler(velocity, noise, sigmas)[0], plain_euler(velocity, noise, sigmas))


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_replayed_teacher_has_the_recorded_log_probs_to_the_bit(model, moved, kernel):
    recorder = Recorder()
    clips = clips_of(model, kernel, recorder)
    trajectory = recorder.take()
    assert torch.equal(trajectory.latents, clips)
    assert trajectory.random == (0, 1, 2, 3)
    for index in range(4):
        step = trajectory.pick(steps_of(trajectory, index))
        same, other = (
            guided(policy, text(2), 3.0, torch.zeros(2, 4, 5))(step.x, step.timestep_BF) for policy in (model, moved)
        )
        assert torch.equal(step.replay(same).log_prob(), trajectory.log_prob_RBF[index])
        assert (step.replay(other).log_prob() - trajectory.log_prob_RBF[index]).abs().max() > 1e-3


def test_steps_are_picked_per_sample_and_per_frame(model):
    trajectory = sample(model, text(2), [1, 2], spec(), FRAMES)
    per_sample = trajectory.pick(torch.tensor([1, 0]))
    assert torch.equal(per_sample.x, torch.stack([trajectory.states_KBFCHW[1, 0], trajectory.states_KBFCHW[0, 1]]))
    assert torch.equal(per_sample.x_next, torch.stack([trajectory.states_KBFCHW[2, 0], trajectory.states_KBFCHW[1, 1]]))
    assert torch.equal(per_sample.next_BF[:, 0], trajectory.timesteps_K[torch.tensor([2, 1])])
    blocks = torch.tensor([[0, 0, 1, 1, 0, 0, 1, 1], [1, 1, 0, 0, 1, 1, 0, 0]])
    expected = trajectory.log_prob_RBF.gather(0, blocks[None])[0]
    assert torch.equal(trajectory.pick(blocks).log_prob(), expected)


@pytest.mark.parametrize(("kernel", "step"), [(RENOISE, 2), (ODE, 0)])
def test_a_step_without_density_cannot_be_picked(model, kernel, step):
    trajectory = sample(model, text(1), [1], spec(kernel), FRAMES)
    with pytest.raises(AssertionError, match="no density"):
        trajectory.pick(torch.tensor([step]))


def test_parts_of_a_batch_join_to_the_batch(model):
    whole = sample(model, text(2), [1, 2], spec(), FRAMES)
    again = joined([whole.rows(slice(0, 1)), whole.rows(torch.tensor([1]))], "B")
    assert torch.equal(again.states_KBFCHW, whole.states_KBFCHW)
    assert torch.equal(again.log_prob_RBF, whole.log_prob_RBF)
    with pytest.raises(AssertionError, match="one schedule"):
        joined([whole, replace(whole, timesteps_K=whole.timesteps_K / 2)], "B")

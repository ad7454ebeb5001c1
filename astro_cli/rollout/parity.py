"""Golden parity: recorded runs of released models replayed through the transformer, the cache and the streaming engine.
`recording` reads the files.

| tensor | compared with |
|---|---|
| <case>.flow | velocity of one pass without a cache: block-causal mask, teacher forcing, bidirectional |
| <case>.b{n}.s{i}.flow | velocity of block n, step i, given the recorded input <case>.b{n}.s{i}.x_t, if any |
| <case>.out | the finished video, streamed by `engine.Streamer` with the recorded noise |
| <case>.cache_k.{l}, cache_v.{l}, cache_end | layer l after the run, oldest first; tokens made, tokens held |

Only the tensors that a case holds are compared. Block numbers count generated blocks.
Source: the released code of Self-Forcing (arXiv 2506.08009), LongLive (arXiv 2509.22622) and Reward Forcing (arXiv
2512.04678).

Deviations: in the released switch with a renewed sink, a recache of fewer frames than the window holds leaves zeros in
the cache; refused here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from astro_cli.cache.kv import CacheSpec
from astro_cli.config.errors import RecipeError, RecordingError, StreamError
from astro_cli.models.wan.masks import block_causal_mask, teacher_forcing_mask
from astro_cli.models.wan.transformer import TextStates
from astro_cli.rollout.engine import Streamer, StreamSpec
from astro_cli.rollout.recording import RecordedSwitch, Recording, read_folder
from astro_cli.rollout.switch_schedule import SwitchSchedule, block_starts
from astro_cli.rollout.switching import SwitchRule

# Largest absolute error on values of order 1. float32: what the recordings' own README asks. bfloat16 has 8 bits of
# mantissa: up to 0.05 is seen.
TOLERANCES = {
    torch.float32: {"flow": 2e-5, "out": 2e-4, "cache": 2e-4},
    torch.bfloat16: {"flow": 0.1, "out": 0.1, "cache": 0.1},
}


@dataclass(frozen=True)
class Check:
    """Largest absolute error of one quantity of a case."""

    quantity: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance  # not a number fails


@dataclass(frozen=True)
class CaseResult:
    source: str  # the descriptor's stem
    case: str
    checks: list[Check]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)


def check_folder(
    folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Iterator[CaseResult]:
    """Replay every case of a folder, one by one. All files are read and checked before the first.

    Raises:
        RecordingError: a folder, file, key or tensor that cannot be used.
    """
    recordings = read_folder(folder)
    for recording in recordings:
        for name in recording.info.cases:
            yield replay(recording, name, device, dtype)


@torch.no_grad()
def replay(
    recording: Recording, name: str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> CaseResult:
    """Replay one case.

    Raises:
        RecordingError: tensors or settings that cannot be replayed.
    """
    run = _Run(recording, name, torch.device(device), dtype)
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # TF32 convolutions are off by 1e-3
            checks = run.streamed() if run.case.kind == "cache" else run.one_pass()
    except (RecipeError, StreamError) as error:
        raise RecordingError(recording.path, f"cases.{name}.{error.key}", error.what, hint=error.hint) from error
    if not checks:
        raise RecordingError(
            recording.path.with_suffix(".safetensors"), f"{name}.*", "no recorded tensor to compare with"
        )
    return CaseResult(recording.path.stem, name, checks)


class _Run:
    """One case on one device, with its tensors at hand."""

    def __init__(self, recording: Recording, name: str, device: torch.device, dtype: torch.dtype) -> None:
        self.recording, self.name, self.case, self.device = recording, name, recording.info.cases[name], device
        self.network = recording.network(device, dtype)
        self.tolerance = TOLERANCES[dtype]
        self.noise = self.tensor(self.case.noise)
        if self.noise.ndim != 5 or self.noise.shape[2] != self.network.config.in_channels:
            shape = tuple(self.noise.shape)
            raise recording_error(
                recording,
                self.case.noise,
                f"found shape {shape}, expected (B, F, {self.network.config.in_channels}, H, W)",
            )
        self.block = self.case.frames_per_block or recording.info.frames_per_block

    def tensor(self, name: str, shape: tuple[int, ...] | None = None) -> torch.Tensor:
        return self.recording.tensor(name, shape).to(self.device)

    def text(self, name: str) -> TextStates:
        config = self.network.config
        return self.network.encode_text(self.tensor(name, (self.noise.shape[0], config.text_len, config.text_dim)))

    def compare(self, quantity: str, name: str, actual: torch.Tensor) -> Check:
        expected = self.tensor(name, tuple(actual.shape))
        return Check(quantity, (actual.double() - expected.double()).abs().max().item(), self.tolerance[quantity])

    def one_pass(self) -> list[Check]:
        """Kinds without a cache."""
        case, frames, (height, width) = self.case, self.noise.shape[1], self.noise.shape[-2:]
        tokens, timestep = self.network.tokens_per_frame(height, width), self.timesteps()
        x, positions, mask = self.noise, list(range(frames)), None
        if case.kind == "mask":
            mask = block_causal_mask(
                frames, tokens, self.block, case.window, case.sink, first_frame_alone=case.first_frame_alone
            )
        if case.kind == "teacher_forcing":
            mask = teacher_forcing_mask(frames, tokens, self.block, case.window, case.sink, case.first_frame_alone)
            x, positions = torch.cat((self.tensor(case.clean, tuple(x.shape)), x), 1), positions * 2
            timestep = torch.cat((torch.full_like(timestep, case.clean_timestep), timestep), 1)
        mask = None if mask is None else mask.to(self.device)
        flow = self.network(x, timestep, self.text(case.context), positions=positions, mask=mask)
        assert flow is not None
        return [self.compare("flow", f"{self.name}.flow", flow[:, -frames:])]

    def timesteps(self) -> torch.Tensor:
        """(B, F) from a number, or from a tensor of one value per frame, sample or run."""
        batch, frames = self.noise.shape[:2]
        if not isinstance(self.case.timestep, str):
            return torch.full((batch, frames), float(self.case.timestep), device=self.device)
        given = self.tensor(self.case.timestep).float()
        if given.ndim == 2 and given.shape == (batch, frames):
            return given
        if given.numel() not in (1, batch):
            what = f"found shape {tuple(given.shape)}, expected ({batch}, {frames}), ({batch},) or one value"
            raise recording_error(self.recording, self.case.timestep, what)
        return given.reshape(-1, 1).expand(batch, frames)

    def streamed(self) -> list[Check]:
        """A cached run through the engine, switches included."""
        replayed = Replay(self)
        video = [] if replayed.spec.given is None else [replayed.spec.given]
        schedule = self.schedule(replayed)
        while replayed.frame < replayed.total:
            if (switch := schedule.due(replayed.frame)) is not None:
                replayed.switch(
                    self.text(switch.context), SwitchRule(recache=switch.recache, renew_sink=not switch.keep_sink)
                )
            video.append(replayed.next_block())
        replayed.write_finished()
        out = torch.cat(video, 1)
        checks = (
            []
            if replayed.worst is None
            else [Check("flow", replayed.worst, self.tolerance["flow" if replayed.forced else "out"])]
        )
        if f"{self.name}.out" in self.recording.tensors:
            recorded = self.tensor(f"{self.name}.out").shape[1]
            checks.append(self.compare("out", f"{self.name}.out", out[:, -recorded:]))
        return checks + self.cache_checks(replayed)

    def schedule(self, replayed: Streamer) -> SwitchSchedule[RecordedSwitch]:
        case, spec = self.case, replayed.spec
        assert replayed.max_frames is not None
        switches = [] if case.switch is None else [(case.switch.frame, case.switch)]
        schedule = SwitchSchedule(switches, replayed.max_frames, spec.block, first_frame_alone=spec.first_frame_alone)
        if case.switch is not None and case.switch.recache_frames is not None and case.switch.recache != "none":
            starts = block_starts(replayed.max_frames, spec.block, first_frame_alone=spec.first_frame_alone)
            made = next(start for start in starts if start >= case.switch.frame)
            needed = min(case.window or made, made)
            if case.switch.recache_frames < needed:
                what = f"found {case.switch.recache_frames}, expected all {needed} frames the window holds"
                raise RecordingError(self.recording.path, f"cases.{self.name}.switch.recache_frames", what)
        return schedule

    def cache_checks(self, replayed: Streamer) -> list[Check]:
        """Contents of the recorded layers, and the two counts."""
        checks, cache, worst = [], replayed.cache, None
        for layer in range(len(cache.k)):
            for kind, actual in zip("kv", cache.chronological(layer), strict=True):
                name = f"{self.name}.cache_{kind}.{layer}"
                if name not in self.recording.tensors:
                    continue
                actual = actual.transpose(1, 2)  # the released layout: B, tokens, heads, head width
                expected = self.tensor(name)
                if expected.ndim != 4 or expected.shape[1] < actual.shape[1] or expected.shape[2:] != actual.shape[2:]:
                    raise recording_error(
                        self.recording,
                        name,
                        f"found shape {tuple(expected.shape)}, expected at least {tuple(actual.shape)}",
                    )
                error = (actual.double() - expected[:, : actual.shape[1]].double()).abs().max().item()
                worst = error if worst is None else max(worst, error)
        if worst is not None:
            checks.append(Check("cache", worst, self.tolerance["cache"]))
        if f"{self.name}.cache_end" in self.recording.tensors:
            made, kept = (int(count) for count in self.tensor(f"{self.name}.cache_end", (2,)).tolist())
            actual = (cache.end * cache.tokens, len(cache.visible(cache.end)) * cache.tokens)
            checks.append(Check("counts", float(max(abs(actual[0] - made), abs(actual[1] - kept))), 0.0))
        return checks


class Replay(Streamer):
    """A stream whose noise, and whose input of every pass, are recorded ones."""

    def __init__(self, run: _Run) -> None:
        self.run, case = run, run.case
        self.x_T, self.worst, self.forced = run.noise, None, True
        given = None if case.given is None else run.tensor(case.given)[:, : case.given_frames]
        made = 0 if given is None else given.shape[1]
        out = run.recording.tensors.get(f"{run.name}.out")
        # The noise may be of new frames only.
        self.offset = made if out is not None and out.shape[1] == made + run.noise.shape[1] else 0
        self.total = run.noise.shape[1] + self.offset
        channels, height, width = run.noise.shape[2:]
        cache = CacheSpec(
            window=case.window,
            sink=case.sink,
            relative=case.keys == "unroped_relative",
            policy="ema" if case.policy == "ema" else "fixed",
            alpha=case.alpha,
        )
        spec = StreamSpec(self._steps(), run.block, (channels, height, width), cache, case.first_frame_alone, given)
        super().__init__(run.network, run.text(case.context), list(range(run.noise.shape[0])), spec, self.total)
        self.block_index, self.step = -1, 0

    def _steps(self) -> torch.Tensor:
        recording = self.run.recording
        if "in.warped" in recording.tensors or not recording.info.warped_steps:
            return recording.tensor("in.warped")
        return torch.tensor(recording.info.warped_steps)

    def next_block(self, exit_step: int | None = None, *, gradient: bool = False) -> torch.Tensor:
        self.block_index, self.step = self.block_index + 1, 0
        return super().next_block(exit_step, gradient=gradient)

    def noise(self, frames: range, use: str) -> torch.Tensor:
        if use == "x_T":
            return self.x_T[:, frames.start - self.offset : frames.stop - self.offset]
        return self._renoise(int(use.removeprefix("renoise-")), frames)

    def _renoise(self, step: int, frames: range) -> torch.Tensor:
        """Fresh noise (B, f, C, H, W) of this block, stored per block and step (block, step, B, f, C, H, W)."""
        stored, wanted = self.run.tensor("in.renoise"), (len(self.seeds), len(frames), *self.spec.latent_shape)
        if stored.ndim == 7 and self.block_index < stored.shape[0] and step < stored.shape[1]:
            noise_BFCHW = stored[self.block_index, step][:, : len(frames)]
            if noise_BFCHW.shape == wanted:
                return noise_BFCHW
        what = f"found shape {tuple(stored.shape)}, expected {wanted} at block {self.block_index}, step {step}"
        raise recording_error(self.run.recording, "in.renoise", what)

    def predict(self, x_BFCHW: torch.Tensor, timestep_BF: torch.Tensor, start: int, *, gradient: bool) -> torch.Tensor:
        name = f"{self.run.name}.b{self.block_index}.s{self.step}"
        self.step += 1
        if f"{name}.x_t" in self.run.recording.tensors:
            x_BFCHW = self.run.tensor(f"{name}.x_t", tuple(x_BFCHW.shape))
        else:
            self.forced = False
        v = super().predict(x_BFCHW, timestep_BF, start, gradient=gradient)
        if f"{name}.flow" in self.run.recording.tensors:
            error = self.run.compare("flow", f"{name}.flow", v).error
            self.worst = error if self.worst is None else max(self.worst, error)
        return v


def recording_error(recording: Recording, name: str, what: str) -> RecordingError:
    return RecordingError(recording.path.with_suffix(".safetensors"), name, what)

"""The training loop: batches -> losses -> optimiser steps -> metrics -> checkpoints, the same for every method.

Runs the recipe's stages one after the other on the same networks. All randomness is a function of (seed, stage, step,
role, sample), so a run that is killed and resumed computes the same bits, and several processes compute what one would.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from accelerate import Accelerator

from astro_cli.config.errors import AstroError, CheckpointError, RunError
from astro_cli.models import weights
from astro_cli.models.backbone import Backbone
from astro_cli.objectives.base import Batch, LossOutput, Objective, RunContext
from astro_cli.recipe import objective_class, resolve_kind
from astro_cli.spec import Recipe, StageSpec
from astro_cli.training.checkpoints import Meta, RunCheckpoint, load_newest
from astro_cli.training.clip_samples import ClipSample, write_samples
from astro_cli.training.distributed import average_gradients, average_metrics, gather_rows
from astro_cli.training.executors import INLINE, Executor
from astro_cli.training.memory import SavedTensors
from astro_cli.training.optim import Ema, RoleOptimizer, learning_rate
from astro_cli.training.rundir import RunDir
from astro_cli.training.sharded import is_divided, own
from astro_cli.training.sources import Source, SourceContext
from astro_cli.training.timing import SectionTimer
from astro_cli.training.tracking import TrackedClip, track_clips, track_numbers


class Watcher(Protocol):
    """Shows how far a run is (the command's progress bar)."""

    def stage(self, name: str, start: int, steps: int) -> None: ...
    def step(self, row: dict[str, Any]) -> None: ...
    def work(self, what: str, done: int, total: int) -> None: ...
    def warn(self, text: str) -> None: ...


class Unwatched:
    """A `Watcher` of the processes beside the first, whose progress is the first's."""

    def stage(self, name: str, start: int, steps: int) -> None: ...
    def step(self, row: dict[str, Any]) -> None: ...
    def work(self, what: str, done: int, total: int) -> None: ...
    def warn(self, text: str) -> None: ...


@dataclass
class _Stage:
    """What a running stage holds."""

    name: str
    spec: StageSpec
    objective: Objective
    source: Source
    optimizers: dict[str, RoleOptimizer]
    ema: Ema | None


class Trainer:
    """Args: recipe; run context with the networks in place; backbone; run folder; accelerator; watcher; who rolls out
    and scores."""

    def __init__(
        self,
        recipe: Recipe,
        run_context: RunContext,
        backbone: Backbone,
        run: RunDir,
        accelerator: Accelerator,
        watcher: Watcher,
        executor: Executor = INLINE,
    ) -> None:
        self.recipe, self.run_context, self.backbone, self.executor = recipe, run_context, backbone, executor
        self.run, self.accelerator, self.watcher = run, accelerator, watcher
        self.timer, self.saved = SectionTimer(), SavedTensors()
        run_context.section = self.timer
        run_context.autocast = lambda: accelerator.autocast()
        run_context.mean = lambda value: average_metrics(accelerator, {"": value})[""]
        run_context.gather = lambda value: gather_rows(accelerator, value)
        self.rows = 0  # rows in metrics.jsonl
        self.frames = 0  # latent frames that went through a loss in this step
        self.trained: set[str] = set()
        self.untracked = False  # the tracker failed to take numbers, and the user knows

    def fit(self, *, resume: bool) -> None:
        """Train all stages; continue after the newest usable checkpoint when resuming.

        Raises:
            CheckpointError: there are checkpoints and none can be used, or they are of other networks.
        """
        checkpoint = self._newest() if resume else None
        meta = checkpoint.meta if checkpoint else Meta(stage=0, step=0, rows=0)
        self.rows = meta.rows
        if self.accelerator.is_main_process:
            self.run.trim_metrics(self.rows)
        if checkpoint:
            self._load_networks(checkpoint)  # with all stages done too: the final weights are written from them
        for index, name in enumerate(self.recipe.order):
            if index < meta.stage:
                self._count_trained(objective_class(self.recipe.stages[name]))
                continue
            here = checkpoint if checkpoint and index == meta.stage else None
            stage = self._enter(name)
            if here and meta.step:
                self._load_stage(stage, here)
            self._train(stage, index, meta.step if here else 0)

    def _count_trained(self, objective: type[Objective]) -> None:
        """After a stage: the roles that checkpoints hold from now on."""
        self.trained |= {*objective.trains, *objective.sets} & self.run_context.roles.modules.keys()

    def _newest(self) -> RunCheckpoint | None:
        """The checkpoint to go on from; says which newer ones are passed over."""
        checkpoint, faults = load_newest(self.run.checkpoints, self.run.metrics, self._steps())
        self.accelerator.wait_for_everyone()  # all have counted the rows before one of them trims
        for fault in faults if self.accelerator.is_main_process else ():
            self.watcher.warn(
                f"{': '.join(part for part in (fault.where, fault.key, fault.what) if part)}; going on from "
                "an older checkpoint"
            )
        return checkpoint

    def _steps(self) -> list[int]:
        """Of the stages, in order."""
        return [self.recipe.stages[name].steps for name in self.recipe.order]

    def _enter(self, name: str) -> _Stage:
        spec = self.recipe.stages[name]
        objective: Objective = objective_class(spec)(resolve_kind("objectives", spec.objective, name), self.run_context)
        self._check(name, spec)
        networks, callbacks = (
            (self.run_context, self.backbone, self.accelerator),
            (self.watcher.work, self.watcher.warn),
        )
        context = SourceContext(name, spec, self.recipe, *networks, *callbacks, self.executor)
        source = objective.source_class().make(context)
        roles = self.run_context.roles
        optimizers = {role: RoleOptimizer(spec.optim[role], roles.trainable(role)) for role in objective.trains}
        ema = Ema(spec.ema, roles.trainable(objective.trains[0])) if spec.ema else None
        self.trained.update(objective.trains)
        objective.prepare(source.draw)
        return _Stage(name, spec, objective, source, optimizers, ema)

    def _check(self, name: str, spec: StageSpec) -> None:
        """What only the number of processes can make wrong."""
        if spec.experience is not None and spec.experience.prompts % self.accelerator.num_processes:
            what = (
                f"found {spec.experience.prompts}, expected a multiple of the processes "
                f"({self.accelerator.num_processes})"
            )
            raise AstroError(self.recipe.name, f"stages.{name}.experience.prompts", what)
        share = self.accelerator.num_processes * spec.accumulate * spec.data.samples
        if spec.batch % share:
            of = "processes x accumulate" + (" x data.samples" if spec.data.samples > 1 else "")
            what = f"found {spec.batch}, expected a multiple of {of} ({share})"
            raise AstroError(self.recipe.name, f"stages.{name}.batch", what)

    def _train(self, stage: _Stage, index: int, start: int) -> None:
        self.watcher.stage(stage.name, start, stage.spec.steps)
        for step in range(start, stage.spec.steps):
            self._step(stage, step)
            if (step + 1) % self.recipe.runtime.save_every == 0 and step + 1 < stage.spec.steps:
                self._save(index, step + 1, stage)
        if stage.ema is not None:
            stage.ema.copy_to_parameters()
        stage.objective.finish()
        self._count_trained(type(stage.objective))
        self._save(index + 1, 0, None)

    def _step(self, stage: _Stage, step: int) -> None:
        began = time.perf_counter()
        row: dict[str, Any] = {"stage": stage.name, "step": step}
        for role in stage.optimizers:
            spec = stage.spec.optim[role]
            if step % spec.every:
                continue
            rate = learning_rate(spec, step, stage.spec.steps)
            row |= self._update_role(stage, step, role, rate)
            row[f"{role}/lr"] = rate
            if stage.ema is not None and role == stage.objective.trains[0]:
                stage.ema.update(step // spec.every)
        row |= stage.objective.after_step(step)
        row |= stage.source.metrics
        warnings = [stage.objective.warning, stage.source.warning]
        row |= {"warning": "; ".join(filter(None, warnings))} if any(warnings) else {}
        row |= self.saved.take(self.run_context.device)
        row |= self._speed(time.perf_counter() - began)
        self.rows += 1
        if self.accelerator.is_main_process:
            self.run.log(row)
            self._track({key: value for key, value in row.items() if isinstance(value, float)})
            if stage.source.samples:
                self._show(step, list(stage.source.samples))
        self.watcher.step(row)
        if (stopped := stage.source.stop()) is not None:
            raise RunError(self.run.path, f"stage {stage.name}, step {step}", stopped[0], hint=stopped[1])

    def _track(self, numbers: dict[str, float]) -> None:
        """Send numbers to the run's tracker; its first failure is said, the next ones are most likely the same."""
        warning = track_numbers(self.accelerator, numbers, self.rows)
        if warning and not self.untracked:
            self.untracked = True
            self.watcher.warn(warning)

    def _show(self, step: int, samples: list[ClipSample]) -> None:
        """Write clips into the run's folder and send them to its tracker."""
        paths = write_samples(self.run.path / "samples", step, samples, self.backbone.fps)
        clips = [
            TrackedClip(f"samples/{sample.name}", path, f"{sample.reward:.4g}: {sample.prompt}")
            for sample, path in zip(samples, paths, strict=True)
        ]
        for warning in track_clips(self.accelerator, clips, self.rows):
            self.watcher.warn(warning)

    def _speed(self, seconds: float) -> dict[str, float]:
        """Seconds, latent tokens trained per second, and the share of time of each section of the step."""
        shares = {f"share/{name}": value / seconds for name, value in self.timer.take().items()}
        tokens_per_frame = math.prod(self.run_context.latent_shape[1:]) / math.prod(self.recipe.model.patch)
        speed = {"seconds": seconds, "tokens_per_second": self.frames * tokens_per_frame / seconds}
        self.frames = 0
        return speed | shares

    def _update_role(self, stage: _Stage, step: int, role: str, rate: float) -> dict[str, float]:
        """All optimiser steps of a role in one training step; mean metrics."""
        sums: dict[str, float] = {}
        batches = stage.source.batches(step, role)
        for batch in batches:
            rolled = stage.objective.rolled(stage.objective.config) or self.run_context.frames
            self.frames += len(batch) * (rolled if batch.latents_BFCHW is None else batch.latents_BFCHW.shape[1])
            parts = stage.spec.accumulate
            size = len(batch) // parts
            with self.timer("train"):
                batch = stage.objective.weigh(role, batch, size)
            total: dict[str, float] = {}
            for part in range(parts):
                micro = batch.rows(part * size, (part + 1) * size).to(self.run_context.device)
                for key, value in self._back_propagate(stage.objective, role, micro, parts).items():
                    total[key] = total.get(key, 0.0) + value / parts
            with self.timer("train"):
                average_gradients(self.accelerator, stage.optimizers[role].parameters)
                total["grad_norm"] = stage.optimizers[role].step(rate)
            if not math.isfinite(total["loss"]) or not math.isfinite(total["grad_norm"]):
                where, what = (
                    f"stage {stage.name}, step {step}, {role}",
                    f"loss {total['loss']}, gradient norm {total['grad_norm']}",
                )
                raise RunError(
                    self.run.path,
                    where,
                    what,
                    hint="the last checkpoint is intact; lower the learning rate in a new --out",
                )
            for key, value in total.items():
                sums[key] = sums.get(key, 0.0) + value / len(batches)
        return {f"{role}/{key}": value for key, value in average_metrics(self.accelerator, sums).items()}

    def _back_propagate(self, objective: Objective, role: str, micro: Batch, parts: int) -> dict[str, float]:
        """Add the gradients of one of `parts` micro-batches, of one loss after the other; their sum as "loss", means of
        the other metrics.
        """
        loss, metrics = 0.0, dict[str, list[float]]()
        with self.timer("train"), self.accelerator.autocast():
            losses = _each(objective, role, micro)
            while True:
                with self.saved.counting(self.run_context.roles.modules[role].parameters()):
                    out = next(losses, None)
                if out is None:
                    break
                self.accelerator.backward(out.loss / parts)
                loss += out.loss.item()
                for key, value in out.metrics.items():
                    metrics.setdefault(key, []).append(value)
                del out  # its graph, before the next one is built
        return {"loss": loss, **{key: sum(values) / len(values) for key, values in metrics.items()}}

    def _save(self, index: int, step: int, stage: _Stage | None) -> None:
        """Checkpoint: networks trained so far, and in the middle of a stage its optimisers, average and objective."""
        kept = {} if stage is None else stage.source.state()  # of all processes, where they have parts of it
        divided = any(is_divided(p) for module in self.run_context.roles.modules.values() for p in module.parameters())
        if not (divided or self.accelerator.is_main_process):
            return
        groups = {f"network-{role}": self._network_state(role) for role in sorted(self.trained)}
        self._refuse_broken(groups, f"after {self.rows} steps")
        if stage is not None:
            groups |= {f"optimizer-{role}": o.tensors() for role, o in stage.optimizers.items()}
            if stage.ema is not None:
                groups["ema"] = stage.ema.shadow
            if extra := stage.objective.state():
                groups["objective"] = extra
            if kept:
                groups["source"] = kept
        self.run.save_checkpoint(index, step, self.rows, groups, self.accelerator if divided else None)

    def _refuse_broken(self, networks: dict[str, dict[str, torch.Tensor]], where: str) -> None:
        """Keep weights that the last update broke out of checkpoints and results.

        Raises:
            RunError: a number that is NaN or infinite.
        """
        for tensors in networks.values():
            for key, value in tensors.items():
                if not weights.finite(own(value)):
                    what = f"{key} holds numbers that are NaN or infinite after the update"
                    hint = "the last checkpoint is intact; lower the learning rate in a new --out"
                    raise RunError(self.run.path, where, what, hint=hint)

    def _network_state(self, role: str) -> dict[str, torch.Tensor]:
        """The tensors that training may have changed: the adapters if there are any, else all."""
        state = self.run_context.roles.modules[role].state_dict()
        adapters = {key: value for key, value in state.items() if ".lora_" in key}
        return adapters or state

    def _load_networks(self, checkpoint: RunCheckpoint) -> None:
        for name in checkpoint.names:
            if name.startswith("network-"):
                module = self.run_context.roles.modules[name.removeprefix("network-")]
                expected = module.state_dict()
                tensors = checkpoint.group(name, expected.get)
                self._check_shapes(checkpoint, name, tensors, expected)
                module.load_state_dict(tensors, strict=False)

    def _check_shapes(
        self, checkpoint: RunCheckpoint, name: str, tensors: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]
    ) -> None:
        """Refuse a checkpoint of another network, for example adapters of another rank."""
        for key, tensor in tensors.items():
            if key not in expected or tensor.shape != expected[key].shape:
                wanted = tuple(expected[key].shape) if key in expected else "no such tensor"
                what = f"{name} has {tuple(tensor.shape)}, expected {wanted}"
                raise CheckpointError(
                    checkpoint.path, key, what, hint="another rank or size; resume with the settings the run began with"
                )

    def _load_stage(self, stage: _Stage, checkpoint: RunCheckpoint) -> None:
        for role, optimizer in stage.optimizers.items():
            try:
                optimizer.load(checkpoint.group(f"optimizer-{role}", optimizer.parameter_of))
            except ValueError as error:
                hint = "saved by another version or for other networks; train again in a new --out"
                raise CheckpointError(checkpoint.path, f"optimizer-{role}", str(error), hint=hint) from error
        if stage.ema is not None:
            shadow = checkpoint.group("ema", stage.ema.shadow.get)
            stage.ema.shadow = {name: shadow[name] for name in stage.ema.shadow}
        stage.objective.load_state(checkpoint.group("objective") if "objective" in checkpoint.names else {})
        if stage.source.state() or "source" in checkpoint.names:
            stage.source.load_state(checkpoint.group("source"))


def _each(objective: Objective, role: str, micro: Batch) -> Iterator[LossOutput]:
    """The losses of a micro-batch, each computed when it is taken."""
    losses = objective.loss(role, micro)
    if isinstance(losses, LossOutput):
        yield losses
    else:
        yield from losses

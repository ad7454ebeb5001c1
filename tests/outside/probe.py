"""An objective that no package ships, with a source, a role and a state of its own: what a new method may declare.

student         L = mean v^2 * n + mean (v - v_ref)^2,   n steps so far (the state)
discriminator   L = mean (D(x) - 1)^2
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from astro_cli.config.base import Config as BaseConfig
from astro_cli.core.rng import sample_noise, stream_seed
from astro_cli.objectives.base import Batch, LossOutput, RoleContext, RunContext
from astro_cli.objectives.base import Objective as BaseObjective
from astro_cli.spec import Recipe, StageSpec


class Config(BaseConfig):
    """`parts`: yield the two terms one after the other; `stop`: the step after which the source ends the run."""

    parts: bool = False
    stop: int | None = None


class Drift:
    """One sequence of latents that goes on: every batch is a step of a random walk from the one before."""

    samples, tables = (), ()

    def __init__(self, context: Any) -> None:
        self.context, self.steps = context, 0
        self.x = torch.zeros(1, context.run_context.frames, *context.run_context.latent_shape)
        self.metrics: Mapping[str, float] = {}
        self.warning = ""

    @classmethod
    def check(cls, recipe: Recipe, stage: StageSpec, key: str) -> None:
        if stage.data.drop:
            raise ValueError(f"{key}.data.drop: found {stage.data.drop}, expected 0: a walk has no captions")

    @classmethod
    def check_files(cls, stage: StageSpec) -> None:
        """It reads none."""

    @classmethod
    def make(cls, context: Any) -> Drift:
        return cls(context)

    def draw(self, use: str, size: int) -> Batch:
        raise AssertionError("nothing is prepared")

    def batches(self, step: int, role: str) -> list[Batch]:
        if role == "student":
            self.x = self.x + sample_noise(tuple(self.x.shape[1:]), [stream_seed("walk", step)], "step")
            self.steps += 1
        self.metrics = {"walk/length": self.x.norm().item()}
        self.warning = "it walks" if step == 1 else ""
        text = self.context.run_context.encode_text([""])
        return [Batch([step], [""], text_BMD=text, latents_BFCHW=self.x)]

    def stop(self) -> tuple[str, str] | None:
        stop = self.context.spec.objective.get("stop")
        return None if stop is None or self.steps <= stop else ("walked enough", "let it rest")

    def state(self) -> dict[str, torch.Tensor]:
        return {"x": self.x, "steps": torch.tensor(self.steps)}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        self.x, self.steps = state["x"], int(state["steps"])


class Discriminator(nn.Module):
    """A transformer of the role's own sizes and a head."""

    def __init__(self, context: RoleContext) -> None:
        super().__init__()
        self.trunk = context.transformer()
        self.head = nn.Linear(context.recipe.model.in_channels, 1)
        context.initialise(self.head)


class Objective(BaseObjective):
    trains = ("student", "discriminator")
    needs = ("ref",)
    builds: ClassVar[Mapping[str, Any]] = {"discriminator": Discriminator}
    source = Drift
    config: Config

    def __init__(self, config: Config, run_context: RunContext) -> None:
        super().__init__(config, run_context)
        self.count = torch.zeros(())

    @classmethod
    def check(cls, config: Config, recipe: Recipe, stage: StageSpec, key: str) -> None:
        if config.parts and stage.accumulate > 1:
            raise ValueError(f"{key}.accumulate: found {stage.accumulate}, expected 1 with parts")

    def loss(self, role: str, batch: Batch) -> LossOutput | Iterator[LossOutput]:
        if role == "discriminator":
            return self._discriminator(batch)
        return self._parts(batch) if self.config.parts else self._whole(batch)

    def _velocity(self, role: str, batch: Batch) -> torch.Tensor:
        x = batch.latents_BFCHW
        assert x is not None
        assert batch.text_BMD is not None
        with self.run_context.roles.use(role) as network:
            return network(x, torch.full(x.shape[:2], 500.0), network.encode_text(batch.text_BMD))

    def _size(self, batch: Batch) -> torch.Tensor:
        return self._velocity("student", batch).pow(2).mean() * (1 + self.count)

    def _distance(self, batch: Batch) -> torch.Tensor:
        with torch.no_grad():
            reference = self._velocity("ref", batch)
        return (self._velocity("student", batch) - reference).pow(2).mean()

    def _whole(self, batch: Batch) -> LossOutput:
        return LossOutput(self._size(batch) + self._distance(batch), {"terms": 2.0})

    def _parts(self, batch: Batch) -> Iterator[LossOutput]:
        yield LossOutput(self._size(batch), {"terms": 1.0})
        yield LossOutput(self._distance(batch), {"terms": 3.0})

    def _discriminator(self, batch: Batch) -> LossOutput:
        network = self.run_context.roles.modules["discriminator"]
        assert isinstance(network, Discriminator)
        x = batch.latents_BFCHW
        assert x is not None
        assert batch.text_BMD is not None
        v = network.trunk(x, torch.full(x.shape[:2], 500.0), network.trunk.encode_text(batch.text_BMD))
        return LossOutput((network.head(v.movedim(2, -1)) - 1).pow(2).mean())

    def after_step(self, step: int) -> dict[str, float]:
        self.count = self.count + 1
        return {}

    def state(self) -> dict[str, torch.Tensor]:
        return {"count": self.count}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        self.count = state["count"]

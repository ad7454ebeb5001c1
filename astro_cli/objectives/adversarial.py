"""Adversarial post-training of a next-frame model: AAPT's third stage, and its long-video extension.

    G    L = softplus(-(D(fake) - D(real)))
    D    L = softplus(D(fake) - D(real)) + aR1 + aR2
    aR1 = lambda (D(real) - D(real + sigma n))^2,   aR2 = lambda (D(fake) - D(fake + sigma n))^2

The logits of a fake and its real clip are paired, frame by frame: both show one prompt and begin with one frame. All
terms are means over samples and logits; n ~ N(0, I), one perturbed clip for all logits of a clip.

Student forcing: the generator makes frame after frame from its own frames, as at inference, with gradients through the
cache and the recycled frame. The discriminator judges a fake given that fake's own past. Teacher forcing (the
supplement's failing variant): every frame is made from the true one before it, at once; the discriminator judges it
given the true past. Long-video extension: a rollout goes on in segments, each of which begins with the last `overlap`
frames of the one before, is judged as a clip of its own at places from 0 on, and is back-propagated and freed before
the next one; nothing but numbers passes a border.
Source: AAPT (arXiv 2506.09350), Eq. 1-3, supplement D, F and G.
Dimensions: B sample, F latent frame, C channel, H, W.

**Deviations**: the supplement's "epsilon = 0.1" is read as sigma, a standard deviation; to first order aR1 is then
lambda sigma^2 |grad D|^2 = 10 |grad D|^2. Conditions, the recycled frames among them, are not perturbed. All segments
count alike; the overlap's own logits are counted, without gradients to the generator.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from astro_cli.config.base import Config as BaseConfig
from astro_cli.core.flow import timestep_of, x0_from_velocity
from astro_cli.models.discriminator import Discriminator, View
from astro_cli.models.wan.masks import block_causal_mask, teacher_forcing_mask
from astro_cli.models.wan.transformer import TextStates
from astro_cli.objectives.base import Batch, LossOutput, RoleContext
from astro_cli.objectives.base import Objective as BaseObjective
from astro_cli.objectives.next_frame import DISCRIMINATOR, check_next_frame
from astro_cli.rollout.next_frame import NextFrameStreamer, conditions, forced_velocity, segment_cache
from astro_cli.shapes.camera import random_moves
from astro_cli.spec import Recipe, StageSpec


class Config(BaseConfig):
    """AAPT's values.

    Attributes:
        forcing: what the generator makes frames from: its own, or the true ones.
        attention: of the discriminator: a logit after every frame, or one of the whole clip (not AAPT's).
        weight, sigma: lambda and sigma of aR1 and aR2.
        extensions: segments behind the first; `overlap`: frames that each begins with.
    """

    forcing: Literal["student", "teacher"] = "student"
    attention: View = "causal"
    weight: float = Field(default=1000.0, ge=0)
    sigma: float = Field(default=0.1, gt=0)
    extensions: int = Field(default=0, ge=0)
    overlap: int = Field(default=1, gt=0)


def generator_loss(fake_BF: torch.Tensor, real_BF: torch.Tensor) -> torch.Tensor:
    """softplus(-(D_f - D_r)), the mean over pairs and logits (Eq. 1 with f_G)."""
    return functional.softplus(real_BF - fake_BF).mean()


def discriminator_loss(fake_BF: torch.Tensor, real_BF: torch.Tensor) -> torch.Tensor:
    """softplus(D_f - D_r), the mean over pairs and logits (Eq. 1 with f_D)."""
    return functional.softplus(fake_BF - real_BF).mean()


def penalty(logits_BF: torch.Tensor, perturbed_BF: torch.Tensor, weight: float) -> torch.Tensor:
    """lambda (D(x) - D(x + sigma n))^2, the mean over samples and logits (Eq. 2, 3)."""
    return weight * (logits_BF - perturbed_BF).pow(2).mean()


@contextmanager
def constant(module: nn.Module) -> Iterator[None]:
    """Inside, what the module computes carries gradients to its inputs only."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    module.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def build_discriminator(context: RoleContext) -> Discriminator:
    """The discriminator around a transformer of the role's sizes, with fresh heads."""
    discriminator = Discriminator(context.transformer())
    for name, part in discriminator.named_children():
        if name != "trunk":
            context.initialise(part)
    return discriminator


class Objective(BaseObjective):
    trains = ("student", DISCRIMINATOR)
    builds: ClassVar = {DISCRIMINATOR: build_discriminator}
    excludes = ("ema",)
    config: Config

    @classmethod
    def check(cls, config: Any, recipe: Recipe, stage: StageSpec, key: str) -> None:
        check_next_frame(recipe, stage, key)
        if len(recipe.sampler.steps) != 1:
            steps = list(recipe.sampler.steps)
            raise ValueError(f"sampler.steps: found {steps}, expected one step: a frame is one forward")
        if recipe.base.of(DISCRIMINATOR) is None and not any(
            recipe.stages[name].kind == "next_frame" for name in recipe.order
        ):
            what = "missing, the discriminator begins with the weights of a next_frame stage"
            raise ValueError(f"base.{DISCRIMINATOR}: {what}")
        if recipe.model_of(DISCRIMINATOR) != recipe.model and recipe.base.of(DISCRIMINATOR) is None:
            raise ValueError(
                f"roles.{DISCRIMINATOR}.model: found other sizes than [model], whose weights it begins with"
            )
        if config.forcing == "student" and recipe.runtime.gradient_checkpointing:
            what = "found true, expected false: keys and values keep their gradients, which no pass computes again"
            raise ValueError(f"runtime.gradient_checkpointing: {what}")
        frames = stage.data.frames or recipe.video.frames
        if config.overlap >= frames:
            what = f"expected fewer than the {frames} frames of a segment"
            raise ValueError(f"{key}.objective.overlap: found {config.overlap}, {what}")
        if config.extensions and config.forcing == "teacher":
            what = "expected 0: teacher forcing rolls nothing out"
            raise ValueError(f"{key}.objective.extensions: found {config.extensions}, {what}")
        if config.extensions and recipe.cache.window is None:
            what = "missing, a long video needs a window so that memory does not grow with it"
            raise ValueError(f"cache.window: {what}")
        if config.attention == "bidirectional" and config.forcing == "teacher":
            what = 'found "bidirectional", expected "causal": a frame made from the true past is judged given that past'
            raise ValueError(f"{key}.objective.attention: {what}")

    def loss(self, role: str, batch: Batch) -> Iterator[LossOutput]:
        count = 1 + self.config.extensions
        for fake, moves in zip(self.clips(batch, gradient=role == "student"), self.moves(batch), strict=True):
            of_role = self._of_generator if role == "student" else self._of_judge
            yield of_role(batch, fake, moves, count)

    def moves(self, batch: Batch) -> list[torch.Tensor | None]:
        """The camera's moves (B, F, 2) in each segment: those of the clips, then new ones (supplement I); None where
        there is no camera.
        """
        count, overlap = 1 + self.config.extensions, self.config.overlap
        if (own := batch.moves_BF2) is None:
            return [None] * count
        frames = own.shape[1]
        new = [random_moves(batch.seeds, frames, f"camera moves {index}")[:, overlap:] for index in range(1, count)]
        whole = torch.cat((own, *(each.to(own) for each in new)), 1)
        return [whole[:, start : start + frames] for start in range(0, count * (frames - overlap), frames - overlap)]

    def clips(self, batch: Batch, *, gradient: bool) -> Iterator[torch.Tensor]:
        """The generator's clips (B, F, C, H, W), one segment after the other; each begins with given frames."""
        clean, run_context = batch.latents_BFCHW, self.run_context
        assert clean is not None
        if self.config.forcing == "teacher":
            yield self._forced(batch, clean, gradient=gradient)
            return
        frames, count, overlap = clean.shape[1], 1 + self.config.extensions, self.config.overlap
        end = frames + (count - 1) * (frames - overlap)
        moves = [each for each in self.moves(batch) if each is not None]
        whole = torch.cat([moves[0], *(each[:, overlap:] for each in moves[1:])], 1) if moves else None
        spec = replace(run_context.stream_spec(), given=clean[:, :1], moves=whole)
        streamer, lead = None, clean[:, :1]
        for _ in range(count):
            with run_context.section("rollout"), run_context.roles.use("student") as student:
                with torch.set_grad_enabled(gradient):
                    text = student.encode_text(_text(batch))
                if streamer is None:
                    cache = segment_cache(student, spec) if gradient else None
                    streamer = NextFrameStreamer(student, text, batch.seeds, spec, end, cache=cache)
                streamer.detach()
                streamer.switch(text)
                made = [streamer.next_block(gradient=gradient) for _ in range(frames - lead.shape[1])]
            clip = torch.cat((lead, *made), 1)
            lead = clip[:, -overlap:].detach()
            yield clip

    def _forced(self, batch: Batch, clean: torch.Tensor, *, gradient: bool) -> torch.Tensor:
        """Every frame from the true one before it, in one pass of one step."""
        run_context, recycle = self.run_context, self.run_context.recycle
        assert recycle is not None
        noise = batch.noise_like(clean[:, 1:], "x_T")
        timestep_BF = run_context.steps.to(noise).expand(noise.shape[:2])
        with run_context.roles.use("student") as student, torch.set_grad_enabled(gradient):
            text, cache = student.encode_text(_text(batch)), run_context.cache
            given = conditions(clean, recycle, batch.moves_BF2)
            v = forced_velocity(student, noise, timestep_BF, text, given, cache.window, cache.sink)
            return torch.cat((clean[:, :1], x0_from_velocity(noise, v, timestep_BF / timestep_of(torch.ones(())))), 1)

    def _of_generator(self, batch: Batch, fake: torch.Tensor, moves: torch.Tensor | None, count: int) -> LossOutput:
        judge, real = self._judge(), batch.latents_BFCHW
        assert real is not None
        with constant(judge):
            text = judge.encode_text(_text(batch))
            with torch.no_grad():
                real_BF = self.logits(batch, judge, text, real)
            fake_BF = self.logits(batch, judge, text, fake, real, moves=moves)
            loss = generator_loss(fake_BF, real_BF)
        gap = (fake_BF - real_BF).mean().item()
        return LossOutput(loss / count, {"gap": gap, "motion": (fake[:, 1:] - fake[:, :-1]).abs().mean().item()})

    def _of_judge(self, batch: Batch, fake: torch.Tensor, moves: torch.Tensor | None, count: int) -> LossOutput:
        judge, real, config = self._judge(), batch.latents_BFCHW, self.config
        assert real is not None
        text = judge.encode_text(_text(batch))
        real_BF = self.logits(batch, judge, text, real)
        fake_BF = self.logits(batch, judge, text, fake, real, moves=moves)
        around_real, around_fake = (
            x + config.sigma * batch.noise_like(x, use) for x, use in ((real, "aR1"), (fake, "aR2"))
        )
        ar1 = penalty(real_BF, self.logits(batch, judge, text, around_real, recycled_from=real), config.weight)
        perturbed_BF = self.logits(batch, judge, text, around_fake, real, recycled_from=fake, moves=moves)
        ar2 = penalty(fake_BF, perturbed_BF, config.weight)
        pairs = discriminator_loss(fake_BF, real_BF)
        metrics = {"pairs": pairs.item(), "aR1": ar1.item(), "aR2": ar2.item()}
        for name, logits in (("real", real_BF), ("fake", fake_BF)):
            metrics |= {f"{name}_{place + 1}": value for place, value in enumerate(logits.detach().mean(0).tolist())}
        return LossOutput((pairs + ar1 + ar2) / count, metrics)

    def logits(
        self,
        batch: Batch,
        judge: Discriminator,
        text: TextStates,
        clip: torch.Tensor,
        past: torch.Tensor | None = None,
        recycled_from: torch.Tensor | None = None,
        moves: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Logits (B, F - 1) after frames 1 .. F - 1 of clips (B, F, C, H, W), or (B, 1) of whole ones; the first frame
        is given.

        Args:
            past: true clips that are the past of fakes; used in teacher forcing only.
            recycled_from: clips whose frames are the recycled ones; default the clips.
            moves: of the camera; default those of the batch.
        """
        run_context, frames = self.run_context, clip.shape[1] - 1
        assert run_context.recycle is not None
        timestep_BF = timestep_of(batch.uniform(1, "judge")).to(clip.device).expand(-1, frames)
        tokens = judge.trunk.tokens_per_frame(*clip.shape[-2:])
        window, sink = run_context.cache.window, run_context.cache.sink
        if past is not None and self.config.forcing == "teacher":
            given = conditions(past, run_context.recycle, batch.moves_BF2)
            both = [torch.cat((frames_of[:, 1:], given), 2) for frames_of in (past, clip)]
            mask = teacher_forcing_mask(frames, tokens, 1, window, sink).to(clip.device)
            places = [*range(frames), *range(frames)]
            doubled = timestep_BF.repeat(1, 2)
            return judge(torch.cat(both, 1), doubled, text, positions=places, mask=mask)[:, frames:]
        moves = batch.moves_BF2 if moves is None else moves
        given = conditions(clip if recycled_from is None else recycled_from, run_context.recycle, moves)
        x = torch.cat((clip[:, 1:], given), 2)
        if self.config.attention == "bidirectional":
            return judge(x, timestep_BF, text, whole=True)
        return judge(x, timestep_BF, text, mask=block_causal_mask(frames, tokens, 1, window, sink).to(clip.device))

    def _judge(self) -> Discriminator:
        judge = self.run_context.roles.modules[DISCRIMINATOR]
        assert isinstance(judge, Discriminator)
        return judge


def _text(batch: Batch) -> torch.Tensor:
    assert batch.text_BMD is not None
    return batch.text_BMD

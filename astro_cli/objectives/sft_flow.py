"""Fine-tuning of a codec's decoder with a motion branch that is supervised by optical flow; the rest stays as it is.

    L = mean || D'(z + s std(z) n) - x ||^2 + w mean_p sqrt( | f_p - g_p |^2 + e^2 ),   z = E(x),  n ~ N(0, I)

D' is the decoder with its branch (`models.flow_branch`), f the branch's flow, g the true one, both averaged over areas
of the coarser of their resolutions, in pixels of the frames. The second term is Charbonnier's penalty of the end-point
error. At the start D' = D, bit for bit; encoder and transformer are not touched, and the run ends with an error if the
transformer's weights have changed.
Source: TeleBoost (arXiv 2602.07595), section 2.4. Charbonnier et al., ICIP 1994.
Dimensions: B clip, F latent frame, T frame, C channel, 2 x and y displacement, H, W rows and columns.

**Deviations**: the paper gives no loss and no weights: penalty, w, e and the noise on the latents are ours. It trains
on image-to-video clips of fluids; here any clips.
"""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from astro_cli.config.base import Config as BaseConfig
from astro_cli.config.errors import RunError
from astro_cli.models.flow_branch import FlowDecoder, flow_decoder
from astro_cli.objectives.base import Batch, LossOutput, RoleContext, RunContext
from astro_cli.objectives.base import Objective as BaseObjective
from astro_cli.spec import Recipe, StageSpec
from astro_cli.zoo.needs import NeededPart
from astro_cli.zoo.raft_files import raft_need

DECODER = "decoder"


class Config(BaseConfig):
    """`flow_weight`: w; `epsilon`: e, in pixels; `latent_noise`: s."""

    flow_weight: float = Field(default=0.01, ge=0)
    epsilon: float = Field(default=1e-3, gt=0)
    latent_noise: float = Field(default=0.0, ge=0)


def charbonnier(flow: torch.Tensor, target: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Mean of sqrt(|f - g|^2 + e^2) over all pixels of flows (..., 2, H, W)."""
    return ((flow - target).square().sum(-3) + epsilon**2).sqrt().mean()


def coarser(flow: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both (B, N, 2, ...) averaged over areas to the smaller height and the smaller width of the two."""
    size = min(flow.shape[-2], target.shape[-2]), min(flow.shape[-1], target.shape[-1])
    pooled = (functional.adaptive_avg_pool2d(each.flatten(0, 1), size) for each in (flow, target))
    first, second = (each.unflatten(0, flow.shape[:2]) for each in pooled)
    return first, second


def build_decoder(context: RoleContext) -> nn.Module:
    """The decoder of the run's codec with a fresh branch."""
    module = flow_decoder(context.codec())
    module.start(context.initialise)
    return module


def state_hash(module: nn.Module) -> str:
    """sha256 of all of a module's tensors."""
    digest = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class Objective(BaseObjective):
    trains = (DECODER,)
    needs = ("student",)
    builds: ClassVar = {DECODER: build_decoder}
    source = "astro_cli.training.flow_clips:FlowClips"
    config: Config

    def __init__(self, config: Config, run_context: RunContext) -> None:
        super().__init__(config, run_context)
        decoder = run_context.roles.modules[DECODER]
        assert isinstance(decoder, FlowDecoder)
        self.decoder = decoder
        self.backbone = state_hash(run_context.roles.modules["student"])

    @classmethod
    def check(cls, config: Any, recipe: Recipe, stage: StageSpec, key: str) -> None:
        if recipe.lora is not None:
            raise ValueError(f"lora: found adapters, {stage.kind} leaves the transformer as it is: leave [lora] out")
        if (stage.data.frames or recipe.video.frames) < 2:
            raise ValueError(f"{key}.data.frames: found one latent frame, flow needs two or more")

    @classmethod
    def weight_files(cls, recipe: Recipe) -> list[NeededPart]:
        return [raft_need()] if recipe.backbone == "wan" else []

    def loss(self, role: str, batch: Batch) -> LossOutput:
        z, frames, target = batch.latents_BFCHW, batch.frames_BTCHW, batch.flow_BN2HW
        assert z is not None
        assert frames is not None
        assert target is not None
        noisy = z + self.config.latent_noise * z.std() * batch.noise_like(z, "latent_noise")
        with self.decoder.watching() as flows:
            decoded = self.run_context.decoder().push(noisy, gradient=True)
        flow, target = coarser(self.decoder.flow(flows, len(z)).float(), target.float())
        mse = (decoded - frames).square().mean()
        penalty = charbonnier(flow, target, self.config.epsilon)
        error = (flow.detach() - target).norm(dim=-3).mean()
        rest = target.norm(dim=-3).mean()
        metrics = {
            "mse": mse.item(),
            "flow_penalty": penalty.item(),
            "flow_epe": error.item(),
            "flow_rest": rest.item(),
        }
        return LossOutput(mse + self.config.flow_weight * penalty, metrics)

    def finish(self) -> None:
        """Raises: RunError: the transformer is not what it was."""
        if state_hash(self.run_context.roles.modules["student"]) != self.backbone:
            raise RunError("sft_flow", "student", "its weights changed, the backbone is to stay frozen")

"""From a recipe to a runnable setting: device, networks with their weights and adapters, backbone. Trains nothing."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from astro_cli.cache.kv import CacheSpec
from astro_cli.config.errors import RecipeError
from astro_cli.core.flow import warp_timesteps
from astro_cli.core.rng import stream
from astro_cli.models import checkpoint, lora, weights
from astro_cli.models.backbone import Backbone, load_backbone
from astro_cli.models.roles import Roles
from astro_cli.models.shapes_backbone import ShapesBackbone, new_codec
from astro_cli.models.wan.transformer import CausalWan
from astro_cli.objectives.base import Objective, Setting
from astro_cli.recipe import ExperienceSpec, Recipe
from astro_cli.rewards import scorer_places
from astro_cli.rollout.streaming import StreamSpec
from astro_cli.training.aligned_student import check_student
from astro_cli.training.sources import read_prompts

ADAPTERS = (lora.TRAINED, "old", "ref")


def pick_device(wanted: str) -> torch.device:
    """Raises: RecipeError where CUDA is asked for and absent."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise RecipeError("runtime", "device", "found 'cuda', no CUDA device is available", hint="use auto or cpu")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def make_accelerator(recipe: Recipe, project_dir: str | None = None) -> Accelerator:
    cpu = pick_device(recipe.runtime.device).type == "cpu"
    tracker = None if recipe.runtime.tracker == "none" else recipe.runtime.tracker
    accelerator = Accelerator(cpu=cpu, mixed_precision=recipe.runtime.precision, log_with=tracker, project_dir=project_dir)
    if tracker:
        accelerator.init_trackers("astro")
    return accelerator


def objectives(recipe: Recipe) -> list[type[Objective]]:
    return [importlib.import_module(f"astro_cli.objectives.{recipe.stages[name].kind}").Objective for name in recipe.order]


def stream_spec(recipe: Recipe) -> StreamSpec:
    cache = CacheSpec(**recipe.cache.model_dump())
    steps = warp_timesteps(recipe.sampler.steps, recipe.sampler.shift)
    return StreamSpec(steps, recipe.video.block, (recipe.model.in_channels, recipe.video.height, recipe.video.width), cache)


def wanted_roles(recipe: Recipe) -> list[str]:
    """Roles the recipe's objectives train or need, each once, students first."""
    names = [role for objective in objectives(recipe) for role in (*objective.trains, *objective.needs)]
    return sorted(set(names), key=lambda role: (role not in ("codec", "student"), role))


def build(recipe: Recipe, device: torch.device) -> tuple[Setting, Backbone]:
    """Networks in place, weights loaded, adapters added.

    Raises:
        CheckpointError: weights that are missing, damaged or of another size.
        RecipeError: weights to be aligned that are no few-step student of the recipe's block size, or rewards whose scorers are missing.
    """
    wanted = wanted_roles(recipe)
    check_student(recipe)
    _check_prompts(recipe)
    backbone = load_backbone(recipe.backbone, recipe.base.codec, empty=recipe.model.in_channels if "codec" in wanted else None).to(device)
    roles = Roles()
    for role in wanted:
        if role == "codec":
            assert isinstance(backbone, ShapesBackbone), "no other backbone is left empty"
            _initialise(backbone.codec, recipe.seed)
            roles.add("codec", backbone.codec, trained=True)
        elif role in ("student", "critic", "teacher"):
            roles.add(role, _network(recipe, role).to(device, held_dtype(recipe, role)), trained=role != "teacher")
    _check_scorers(recipe)
    if recipe.lora is not None:
        names = ADAPTERS if "old" in wanted else ADAPTERS[:1]
        student = roles.modules["student"]
        generator = stream(recipe.seed, "lora")
        lora.add_adapters(student, recipe.lora.rank, recipe.lora.alpha, recipe.lora.dropout, names, generator)
        for name in names[1:]:
            roles.add_adapter(name, "student", name)
    spec = stream_spec(recipe)
    setting = Setting(
        roles=roles, steps=spec.steps, shift=recipe.sampler.shift, frames=recipe.video.frames, block=spec.block,
        latent_shape=spec.latent_shape, cache=spec.cache, teacher_steps=recipe.teacher.steps, guidance=recipe.teacher.guidance,
        encode_text=backbone.encode_text, device=device,
    )  # fmt: skip
    return setting, backbone


def scored(experience: ExperienceSpec) -> dict[str, float]:
    """Weights of the rewards that are scored; one of weight 0 only where a primary is to be judged by it."""
    return {key: weight for key, weight in experience.rewards.items() if weight or experience.primary is not None}


def _check_scorers(recipe: Recipe) -> None:
    """The embedded world carries its scorers; those of Wan must be on this machine before anything is rolled out."""
    for name in recipe.order:
        experience = recipe.stages[name].experience
        if recipe.backbone == "wan" and experience is not None and (lack := scorer_places.missing_rewards(scored(experience))):
            what = f"found {', '.join(scored(experience))}, whose scorers are not here"
            raise RecipeError(recipe.name, f"stages.{name}.experience.rewards", what, hint=f"{lack}; --dry-run checks the recipe without them")


def _check_prompts(recipe: Recipe) -> None:
    """Prompt files are read before any weights are."""
    for name in recipe.order:
        if (path := recipe.stages[name].data.prompts) is not None:
            read_prompts(Path(path))


def held_dtype(recipe: Recipe, role: str) -> torch.dtype:
    """What a role's own weights are held in: those no optimiser touches at the run's precision; adapters and networks trained whole in float32."""
    frozen = role == "teacher" or (role == "student" and recipe.lora is not None)
    return torch.bfloat16 if frozen and recipe.runtime.precision == "bf16" else torch.float32


def _network(recipe: Recipe, role: str) -> CausalWan:
    network = CausalWan(recipe.model)
    network.gradient_checkpointing = recipe.runtime.gradient_checkpointing
    source = getattr(recipe.base, role)
    if source is None:
        if role != "student":
            hint = 'for example base.teacher = "shapes/teacher"'
            raise RecipeError(recipe.name, f"base.{role}", "missing: an objective needs this role", hint=hint)
        _initialise(network, recipe.seed)
    elif recipe.backbone == "wan":
        checkpoint.into(network, checkpoint.load_transformer(source, config=recipe.model))
    else:
        weights.load_into(network, weights.find(source, role))
    return network


@torch.no_grad()
def _initialise(module: nn.Module, seed: int) -> None:
    """Fresh weights from the run's own streams: Xavier matrices (fan-in bound for convolutional codecs), zero biases, zero output head.

    Tables of shift and scale get width^-0.5 noise as Wan's do; one-dimensional weights are ones.
    """
    transformer = isinstance(module, CausalWan)
    for name, parameter in module.named_parameters():
        rng = stream(seed, "init", name)
        if name.endswith("scale_shift_table"):
            parameter.copy_(torch.randn(parameter.shape, generator=rng) / parameter.shape[-1] ** 0.5)
        elif name.endswith("bias"):
            parameter.zero_()
        elif parameter.ndim < 2:
            parameter.fill_(1.0)
        elif name.endswith("proj_out.weight"):
            parameter.zero_()
        else:
            fan_in = parameter[0].numel()
            fan_out = parameter.shape[0]
            bound = (6.0 / (fan_in + fan_out)) ** 0.5 if transformer else fan_in**-0.5
            parameter.copy_((torch.rand(parameter.shape, generator=rng) * 2 - 1) * bound)


def dry_run_counts(recipe: Recipe) -> dict[str, tuple[int, int]]:
    """(trainable, total) parameters per network, counted on the meta device: no memory, no weights."""
    counts = {}
    for role in wanted_roles(recipe):
        if role in ("old", "ref"):
            continue
        with torch.device("meta"):
            module = new_codec(recipe.model.in_channels) if role == "codec" else CausalWan(recipe.model)
        total = sum(p.numel() for p in module.parameters())
        trainable = 0 if role == "teacher" else total
        if role == "student" and recipe.lora is not None:
            trainable = _adapter_size(module, recipe.lora.rank)
            adapters = 3 if "old" in wanted_roles(recipe) else 1
            total += trainable * adapters
        counts[role] = (trainable, total)
    return counts


def _adapter_size(network: nn.Module, rank: int) -> int:
    linears = [m for name, m in network.named_modules() if isinstance(m, nn.Linear) and re.fullmatch(lora.TARGETS, name)]
    return sum(rank * (m.in_features + m.out_features) for m in linears)

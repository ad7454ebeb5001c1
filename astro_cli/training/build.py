"""From a recipe to a run that can start: device, networks with their weights and adapters, backbone."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from accelerate import Accelerator
from torch import nn

from astro_cli.config.errors import CheckpointError, RecipeError, did_you_mean
from astro_cli.core import threads
from astro_cli.core.flow import warp_timesteps
from astro_cli.core.rng import stream
from astro_cli.models import checkpoint, lora, weights
from astro_cli.models.backbone import Backbone, empty_autoencoder, load_backbone
from astro_cli.models.features import load_features
from astro_cli.models.roles import Roles
from astro_cli.models.shapes_backbone import ShapesBackbone
from astro_cli.models.wan.transformer import CausalWan
from astro_cli.objectives.base import Objective, RoleContext, RunContext
from astro_cli.recipe import advantage_class, objective_class, resolve_kind
from astro_cli.rollout.streaming import StreamSpec
from astro_cli.shapes.video_codec import VideoCodec
from astro_cli.spec import ADAPTER_ROLES, BARE, NETWORK_ROLES, LoraSpec, Recipe
from astro_cli.training import tuned_decoder
from astro_cli.training.aligned_student import check_student
from astro_cli.training.needs import check_needs
from astro_cli.training.scorers import scorer_of
from astro_cli.training.tracking import check_tracker

INPUT = "patch_embedding.weight"  # of a transformer: its first layer


def pick_device(wanted: str) -> torch.device:
    """Raises: RecipeError where CUDA is asked for and absent."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise RecipeError("runtime", "device", "found 'cuda', no CUDA device is available", hint="use auto or cpu")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def make_accelerator(recipe: Recipe, project_dir: str | None = None) -> Accelerator:
    """accelerate's process group and precision; `tracking.start_tracker` begins what it logs to."""
    cpu = pick_device(recipe.runtime.device).type == "cpu"
    tracker = None if recipe.runtime.tracker == "none" else recipe.runtime.tracker
    number = torch.get_num_threads()
    made = Accelerator(cpu=cpu, mixed_precision=recipe.runtime.precision, log_with=tracker, project_dir=project_dir)
    threads.use(number)  # for processes on CPUs accelerate sets its own number, of cores
    return made


def objectives(recipe: Recipe) -> list[type[Objective]]:
    return [objective_class(recipe.stages[name]) for name in recipe.order]


def stream_spec(recipe: Recipe) -> StreamSpec:
    steps = warp_timesteps(recipe.sampler.steps, recipe.sampler.shift)
    shape = (recipe.model.in_channels, recipe.video.height, recipe.video.width)
    kernel, recycle = recipe.sampler.kernel(), recipe.sampler.recycle
    return StreamSpec(steps, recipe.video.block, shape, recipe.cache, kernel=kernel, recycle=recycle)


def wanted_roles(recipe: Recipe) -> list[str]:
    """Roles the recipe's objectives train or need, each once: codec and student, then adapters and other networks, then
    declared roles.

    Raises:
        RecipeError: a role that nothing builds.
    """
    names = {role for objective in objectives(recipe) for role in (*objective.trains, *objective.needs)}
    known = (*NETWORK_ROLES, *ADAPTER_ROLES, *_builders(recipe))
    for role in sorted(names):
        if role not in known:
            raise RecipeError(recipe.name, role, f"unknown role, {did_you_mean(role, known)}")
    return sorted(names, key=lambda role: (role in _builders(recipe), role not in ("codec", "student"), role))


def trained_roles(recipe: Recipe) -> set[str]:
    """Roles that a stage updates."""
    return {role for objective in objectives(recipe) for role in objective.trains}


def released_roles(recipe: Recipe) -> list[str]:
    """Roles whose weights a finished run leaves: codec, student, and those its objectives declare and train."""
    declared = trained_roles(recipe) & _builders(recipe).keys()
    return [role for role in wanted_roles(recipe) if role in ("codec", "student") or role in declared]


def frozen_adapters(recipe: Recipe) -> list[str]:
    """Roles that are adapters of the student beside the trained one."""
    return [role for role in ADAPTER_ROLES if role != BARE and role in wanted_roles(recipe)]


def _builders(recipe: Recipe) -> dict[str, Callable[[RoleContext], nn.Module]]:
    """How the roles are built that the recipe's objectives declare."""
    return {role: builder for objective in objectives(recipe) for role, builder in objective.builds.items()}


def build(recipe: Recipe, device: torch.device) -> tuple[RunContext, Backbone]:
    """Networks in place, weights loaded, adapters added.

    Raises:
        CheckpointError: weights that are missing, damaged or of another size.
        RecipeError: weights to be aligned that are no few-step student of the recipe's block size, or rewards whose
            scorers are missing.
    """
    wanted = wanted_roles(recipe)
    check_tracker(recipe.runtime.tracker)
    check_needs(recipe, wanted)
    _check_credit(recipe)
    check_student(recipe)
    for name in recipe.order:
        objective_class(recipe.stages[name]).source_class().check_files(recipe.stages[name])
    backbone = load_backbone(recipe.backbone, recipe.base.codec, empty="codec" in wanted).to(device)
    roles = Roles()
    for role in wanted:
        if role == "codec":
            assert isinstance(backbone, ShapesBackbone), "no other backbone is left empty"
            _initialise(backbone.codec, recipe.seed)
            roles.add("codec", backbone.codec, trained=True)
        elif role not in ADAPTER_ROLES:
            declared = role in _builders(recipe)
            network = _declared(recipe, role, roles.modules, backbone) if declared else _network(recipe, role)
            roles.add(role, network.to(device, weights_dtype(recipe, role)), trained=role in trained_roles(recipe))
    tuned_decoder.take_up(recipe, roles, backbone)
    for role in roles.modules:
        if (spec := recipe.lora_of(role)) is not None:
            _add_adapters(recipe, role, spec, roles)
    spec = stream_spec(recipe)
    run_context = RunContext(
        roles=roles,
        steps=spec.steps,
        shift=recipe.sampler.shift,
        frames=recipe.video.frames,
        block=spec.block,
        latent_shape=spec.latent_shape,
        cache=spec.cache,
        kernel=spec.kernel,
        recycle=spec.recycle,
        bidirectional=recipe.policy == "bidirectional",
        guidance=recipe.teacher.guidance if recipe.policy == "bidirectional" else 1.0,
        encode_text=backbone.encode_text,
        decoder=backbone.decoder,
        reward=scorer_of(recipe, backbone, device),
        features=lambda name: load_features(name, backbone, device),
        device=device,
    )
    return run_context, backbone


def _add_adapters(recipe: Recipe, role: str, spec: LoraSpec, roles: Roles) -> None:
    """Add a role's trained adapter; to the student also those that act as the frozen roles."""
    frozen = frozen_adapters(recipe) if role == "student" else []
    generator = stream(recipe.seed, "lora") if role == "student" else stream(recipe.seed, "lora", role)
    network = roles.modules[role]
    if not _adapter_size(network, spec.rank):
        what = "found adapters, this role has no layer they go to: they go to the blocks of a transformer"
        raise RecipeError(recipe.name, f"roles.{role}.lora", what, hint="leave it out: the role is then trained whole")
    lora.add_adapters(network, spec.rank, spec.alpha, spec.dropout, (lora.TRAINED, *frozen), generator)
    for name in frozen:
        roles.add_adapter(name, role, name)
    if role == "student":
        roles.add_adapter(BARE, role, None)


def _declared(recipe: Recipe, role: str, modules: dict[str, nn.Module], backbone: Backbone) -> nn.Module:
    """A role as its objective builds it."""
    context = RoleContext(
        role,
        recipe,
        dict(modules),
        lambda: _network(recipe, role),
        lambda module: _initialise(module, recipe.seed),
        lambda: backbone.autoencoder,
    )
    return _builders(recipe)[role](context)


def _check_credit(recipe: Recipe) -> None:
    """Refuse a run whose credit rule needs a network that is missing on this machine, before anything is rolled out."""
    for name in recipe.order:
        if (experience := recipe.stages[name].experience) is None:
            continue
        key, table = f"stages.{name}.experience.advantage", experience.advantage
        rule = advantage_class(table)(resolve_kind("advantages", table, key))
        if lack := rule.lacks(recipe.backbone):
            what = f"found {table['kind']!r}, whose network is not here"
            hint = f"{lack}; --dry-run checks the recipe without them"
            raise RecipeError(recipe.name, f"{key}.kind", what, hint=hint)


def weights_dtype(recipe: Recipe, role: str) -> torch.dtype:
    """Number type of a role's own weights: the run's precision where no optimiser touches them; float32 for adapters
    and networks trained whole.
    """
    frozen = role not in trained_roles(recipe) or recipe.lora_of(role) is not None
    return torch.bfloat16 if frozen and recipe.runtime.precision == "bf16" else torch.float32


def _network(recipe: Recipe, role: str) -> CausalWan:
    """A role's transformer: of its own sizes, with the weights of `base`, or fresh ones."""
    config = recipe.model_of(role)
    network = CausalWan(config)
    network.gradient_checkpointing = recipe.runtime.gradient_checkpointing
    source = recipe.base.of(role)
    if source is None:
        _initialise(network, recipe.seed)
    elif config.extra_channels and objectives(recipe)[0].widens:
        _load_narrow(recipe, role, source, network)
    else:
        _load(recipe, role, source, network)
    return network


def _load(recipe: Recipe, role: str, source: str, network: CausalWan) -> None:
    """Weights of exactly this network."""
    try:
        if recipe.backbone == "wan":
            checkpoint.into(network, checkpoint.load_transformer(source, config=network.config))
        else:
            weights.load_into(network, weights.find(source, role))
    except CheckpointError as error:
        if error.key != INPUT:
            raise
        expected = "image-to-video weights" if network.config.extra_channels else "text-to-video weights"
        hint = f"base.{role}: the recipe's model takes {expected}"
        raise CheckpointError(error.where, error.key, error.what, hint=hint) from error


@torch.no_grad()
def _load_narrow(recipe: Recipe, role: str, source: str, network: CausalWan) -> None:
    """Weights of this network, or of one with fewer extra input channels, or none; those of the others are fresh then
    (AAPT, supplement I: random ones adapt faster than zeros).
    """
    recycled = network.config.in_channels
    for extra in sorted({0, recycled} - {network.config.extra_channels}):
        narrow = CausalWan(network.config.model_copy(update={"extra_channels": extra}))
        try:
            _load(recipe, role, source, narrow)
        except CheckpointError:
            continue
        _initialise(network, recipe.seed)
        state, fresh = narrow.state_dict(), network.state_dict()[INPUT]
        fresh[:, : recycled + extra] = state[INPUT]
        network.load_state_dict(state | {INPUT: fresh})
        return
    _load(recipe, role, source, network)


@torch.no_grad()
def _initialise(module: nn.Module, seed: int) -> None:
    """Fresh weights from the run's own streams: Xavier matrices (fan-in bound for convolutional codecs), zero biases,
    zero output head.

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
    counts, modules = dict[str, tuple[int, int]](), dict[str, nn.Module]()
    for role in wanted_roles(recipe):
        if role in ADAPTER_ROLES:
            continue
        modules[role] = _empty(recipe, role, modules)
        total = sum(p.numel() for p in modules[role].parameters())
        trainable = total if role in trained_roles(recipe) else 0
        if (spec := recipe.lora_of(role)) is not None:
            trainable = _adapter_size(modules[role], spec.rank)
            total += trainable * (1 + (len(frozen_adapters(recipe)) if role == "student" else 0))
        counts[role] = (trainable, total)
    return counts


def _empty(recipe: Recipe, role: str, modules: dict[str, nn.Module]) -> nn.Module:
    """A role's network on the meta device."""
    with torch.device("meta"):
        if role == "codec":
            return VideoCodec()
        if role in _builders(recipe):
            transformer = lambda: CausalWan(recipe.model_of(role))  # noqa: E731
            empty = lambda: empty_autoencoder(recipe.backbone)  # noqa: E731
            context = RoleContext(role, recipe, dict(modules), transformer, lambda module: None, empty)
            return _builders(recipe)[role](context)
        return CausalWan(recipe.model_of(role))


def _adapter_size(network: nn.Module, rank: int) -> int:
    linears = [
        m for name, m in network.named_modules() if isinstance(m, nn.Linear) and re.fullmatch(lora.TARGETS, name)
    ]
    return sum(rank * (m.in_features + m.out_features) for m in linears)

"""What can be evaluated or sampled: weights with their card and backbone, as a ready generator of latents.

Dimensions: B sample, F latent frame, C channel, H, W latent rows and columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from astro_cli.cache.kv import CacheSpec
from astro_cli.config.errors import CheckpointError, RecipeError, StreamError
from astro_cli.core import memory, precision, threads
from astro_cli.core.flow import warp_timesteps
from astro_cli.generate import card as cards
from astro_cli.generate.acceleration import Acceleration
from astro_cli.generate.rendered import first_frames
from astro_cli.models import hashes, weights
from astro_cli.models.backbone import Backbone, load_backbone
from astro_cli.models.checkpoint import Checkpoint, fill, load_transformer
from astro_cli.models.decoding import StreamingDecoder
from astro_cli.models.flow_branch import load_flow_decoder
from astro_cli.models.light_decoder import LightDecoder, load_light_decoder
from astro_cli.models.lora_merge import check_strengths, read_loras
from astro_cli.models.merged import merge_into
from astro_cli.models.shapes_backbone import ShapesBackbone
from astro_cli.models.tiny_decoder import TinyDecoder, load_tiny_decoder
from astro_cli.models.wan.config import WanConfig
from astro_cli.models.wan.transformer import CausalWan, TextStates
from astro_cli.recipe.kinds import first_problem
from astro_cli.rollout.bidirectional import sample_clips
from astro_cli.rollout.engine import Streamer, StreamSpec
from astro_cli.rollout.next_frame import NextFrameStreamer
from astro_cli.sampling.ode import guided, sigma_grid
from astro_cli.spec import SamplerSpec
from astro_cli.zoo import needs
from astro_cli.zoo.entries import Release, known
from astro_cli.zoo.places import locate


@dataclass(frozen=True)
class Arm:
    """Weights ready to generate.

    Attributes:
        seed: the training seed of a tuned arm, None for a packaged base or a release.
        card: sizes, video, sampler, cache and teacher values it is sampled with.
        path: its weights: a file, or the index of shards.
        files: all files the weights were read from, those of LoRAs last.
        strengths: of those LoRAs, in their order.
        cache: fields of `CacheSpec` that replace the card's, whatever the length.
        acceleration: how passes are computed.
        tiny: a decoder in place of the backbone's.
        moves: of the camera before each latent frame from the second on, in world units, where the model has one; the
            last one goes on.
        errors: what the acceleration was measured to change, by name.
    """

    name: str
    seed: int | None
    network: CausalWan
    backbone: Backbone
    card: dict[str, Any]
    path: Path
    files: tuple[Path, ...]
    cache: Mapping[str, Any] = field(default_factory=dict)
    strengths: tuple[float, ...] = ()
    acceleration: Acceleration = field(default_factory=Acceleration)
    tiny: TinyDecoder | LightDecoder | None = None
    moves: tuple[tuple[float, float], ...] = ()
    errors: Mapping[str, float] = field(default_factory=dict)

    def decoder(self) -> StreamingDecoder:
        """A decoder at the start of a batch of videos."""
        return self.backbone.decoder() if self.tiny is None else self.tiny.decoder()

    @property
    def decoder_name(self) -> str:
        """What decodes: the backbone's codec, or a smaller decoder's file."""
        return "codec" if self.tiny is None else self.tiny.source.name

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        return self.network.config.in_channels, self.card["video"]["height"], self.card["video"]["width"]

    @property
    def pixels(self) -> tuple[int, int]:
        """Height and width of its videos in pixels."""
        return self.card["video"]["height"] * self.backbone.cell, self.card["video"]["width"] * self.backbone.cell

    @property
    def recycles(self) -> bool:
        """A next-frame model, which makes every frame from the one before; the first must be given."""
        return self.card["sampler"].get("recycle") is not None

    @property
    def has_camera(self) -> bool:
        """Whether its frames are made for moves of a camera."""
        return self.card["video"].get("camera", False)

    @property
    def streams(self) -> bool:
        """A few-step student; else a multi-step teacher, which makes whole clips."""
        return self.card["sampling"] == "few_step"

    def stream_spec(self, frames: int | None) -> StreamSpec:
        """As trained up to the trained length; beyond it (None: no end) a window of that length with cache-relative
        positions (Infinity-RoPE) and a sink of at least a block, where the window has room for it.

        Where objects go round a torus in step with the latents no sink is added: at a place just before the window the
        first block shows the object where it was not then (docs/log.md, entry 16).
        """
        video, sampler = self.card["video"], SamplerSpec(**self.card["sampler"])
        spec = CacheSpec(**self.card["cache"])
        if frames is None or frames > video["frames"]:
            window = spec.window or video["frames"]
            fits = window > 2 * video["block"] and not self.backbone.world.grid
            sink = max(spec.sink, video["block"]) if fits else spec.sink
            spec = spec.model_copy(update={"window": window, "sink": sink, "relative": True})
        steps = warp_timesteps(sampler.steps, sampler.shift)
        cache = spec.model_copy(update=self.cache)
        return StreamSpec(
            steps,
            video["block"],
            self.latent_shape,
            cache,
            kernel=sampler.kernel(),
            noise=self.acceleration.noise,
            recycle=sampler.recycle,
            float8_cache=self.acceleration.kv == "fp8",
        )

    def check_fits(self, frames: int | None, batch: int) -> None:
        """Refuse a size or window whose keys and values this machine cannot hold, before they are allocated. A
        multi-step teacher keeps none.

        Args:
            frames: latent frames of a video; None: it has no end.
            batch: videos that are made at once.

        Raises:
            StreamError: with what is needed and what is free.
        """
        if not self.streams:
            return
        config, (_, height, width) = self.network.config, self.latent_shape
        window = self.stream_spec(frames).cache.window
        kept = min(limit for limit in (window, frames) if limit)
        tokens = kept * (height // config.patch[0]) * (width // config.patch[1])
        itemsize = 1 if self.acceleration.kv == "fp8" else next(self.network.parameters()).element_size()
        needed, free = 2 * config.num_layers * tokens * config.dim * itemsize * batch, memory.free(self.network.device)
        if needed > free:
            what = f"its keys and values take {needed / 2**30:,.1f} GiB, {free / 2**30:,.1f} GiB are free"
            raise StreamError(self.name, "memory", what, hint="use a smaller --size, --window or --batch")

    def weights_hash(self) -> str:
        """Short sha256 of the weights' files; of one file its own, of several that of their hashes in order. LoRAs of
        other strengths than 1 have theirs in it.
        """
        files = hashes.of_files(self.files)
        return files if all(each == 1 for each in self.strengths) else hashes.of_text(f"{files} {self.strengths}")

    @torch.no_grad()
    def text(self, prompts: list[str]) -> TextStates:
        return self.network.encode_text(self.backbone.encode_text(prompts).to(self.network.device))

    def streamer(
        self,
        prompts: list[str],
        seeds: list[int],
        frames: int | None,
        given: torch.Tensor | None = None,
        *,
        first_frame_alone: bool = False,
        moves: torch.Tensor | None = None,
    ) -> Streamer | NextFrameStreamer:
        """A running batch of videos of a few-step student.

        Args:
            given: clean latents (B, F, C, H, W) of their first frames. In the embedded world a next-frame model has
                that of the prompts' rendered scenes by default.
            first_frame_alone: the first frame is a block of its own.
            moves: (B, F, 2) of the camera before each frame, where there is one; default the arm's own.

        Raises:
            RecipeError, StreamError: a cache, length or given frames that cannot stream.
        """
        if self.recycles and given is None:
            given = first_frames(self.backbone, prompts, seeds, self.pixels)
        if self.has_camera and moves is None:
            moves = torch.tensor([(0.0, 0.0), *(self.moves or [(0.0, 0.0)])]).expand(len(seeds), -1, -1)
        spec = replace(self.stream_spec(frames), given=given, first_frame_alone=first_frame_alone, moves=moves)
        if self.recycles:
            return NextFrameStreamer(self.network, self.text(prompts), seeds, spec, frames)
        run = self.acceleration.runner(self.network)
        return Streamer(self.network, self.text(prompts), seeds, spec, frames, run=run)

    @torch.no_grad()
    def stream(self, prompts: list[str], seeds: list[int], frames: int) -> Iterator[torch.Tensor]:
        """Latent blocks (B, block, C, H, W) of a few-step student; a next-frame model's given frame first."""
        streamer = self.streamer(prompts, seeds, frames)
        if streamer.spec.given is not None:
            yield streamer.spec.given
        while streamer.frame < frames:
            yield streamer.next_block()

    @torch.no_grad()
    def generate(self, prompts: list[str], seeds: list[int], frames: int) -> torch.Tensor:
        """Latents (B, F, C, H, W): streamed by a student, integrated by a multi-step teacher."""
        if self.streams:
            return torch.cat(list(self.stream(prompts, seeds, frames)), 1)
        teacher, shift, device = self.card["teacher"], self.card["sampler"]["shift"], self.network.device
        empty = self.backbone.encode_text([""] * len(prompts)).to(device)
        velocity = guided(self.network, self.backbone.encode_text(prompts).to(device), teacher["guidance"], empty)
        return sample_clips(velocity, seeds, (frames, *self.latent_shape), sigma_grid(teacher["steps"], shift), device)


def load_arm(
    name: str | None,
    *,
    recipe: str | None = None,
    lora: Sequence[str] = (),
    wan: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
    cache: Mapping[str, Any] | None = None,
    acceleration: Acceleration | None = None,
    decoder: str | None = None,
) -> Arm:
    """Weights with everything around them. From here on torch computes on as many threads as fit the transformer.

    Args:
        name: a packaged base, a run folder, a weights file with its JSON card beside it, or a Wan checkpoint of any
            known release or format, by path, name or hub id. Default: the student the recipe starts from, else the
            transformer of the Wan folder.
        recipe: takes sizes, video, sampler and cache from this recipe instead of the card.
        lora: adapters to merge into the weights, each by path, name or hub id, with `:STRENGTH` behind it where it is
            not 1.
        wan: the Wan 2.1 folder with text encoder and VAE; default one below the checkpoints folder.
        dtype: of the transformer and of Wan's VAE and text encoder (float32: the text encoder as stored).
        cache: fields of `CacheSpec` to use instead of the card's.
        acceleration: how passes are computed; the network is prepared for it.
        decoder: file of a tiny decoder of Wan's latents, in place of the VAE's, or of a light one of the embedded
            world's.

    Raises:
        StreamError: an acceleration that is not there on this device.
        CheckpointError: weights or card missing, damaged or of another backbone.
        RecipeError: a recipe that is wrong, or names no student; a cache's field that is unknown or wrong.
    """
    where, chosen = device or torch.device("cpu"), acceleration or Acceleration()
    chosen.refuse(where)
    check_strengths(lora)
    _check_cache(cache or {})
    source = _find(name, recipe, wan)
    if (entry := known(source)) is not None:
        _refuse_missing(entry, str(source), wan)
    own = _own_card(locate(source))
    table: dict[str, Any] | None = own if recipe is None else cards.of_recipe(recipe)
    if table is not None and own is not None:
        table = table | {"decoder": own.get("decoder")}  # a file beside the weights, whatever the recipe
    checkpoint = load_transformer(source, config=None if table is None else WanConfig(**table["model"]), dtype=dtype)
    card: dict[str, Any] = table or cards.of_wan(checkpoint)
    if card["sampling"] != "few_step":
        chosen.refuse_teacher(card["recipe"])
    video = card["video"]
    threads.fit(checkpoint.config.layer_flops(video["block"], video["height"], video["width"]))
    if wan is not None and card["backbone"] != "wan":
        raise CheckpointError(
            checkpoint.source,
            "backbone",
            f"found {card['backbone']!r}, --wan goes with weights of Wan 2.1",
            hint="leave --wan out",
        )
    backbone = load_backbone(card["backbone"], wan or card["codec"], dtype=None if dtype == torch.float32 else dtype)
    _check_fits(checkpoint, backbone)
    network, files, strengths = _network(checkpoint, lora)
    network, backbone = network.to(where), backbone.to(where)
    if card.get("decoder") is not None:
        trained = checkpoint.source.parent / card["decoder"]
        load_flow_decoder(backbone.autoencoder, trained)
        files = (*files, trained)
    tiny = None if decoder is None else _tiny(decoder, backbone, dtype).to(where)
    seed = own["seed"] if own is not None and not checkpoint.source.is_relative_to(weights.PACKAGED) else None
    return Arm(
        card["recipe"],
        seed,
        network,
        backbone,
        card,
        checkpoint.source,
        files,
        dict(cache or {}),
        strengths,
        chosen,
        tiny,
        errors=chosen.prepare(network),
    )


def _check_cache(cache: Mapping[str, Any]) -> None:
    """Refuse fields that no `CacheSpec` has, and values that are not of their kind. What does not fit the blocks is
    refused with the length.
    """
    if not isinstance(cache, Mapping):
        raise RecipeError("cache", "", f"found {cache!r}, expected fields: {', '.join(CacheSpec.model_fields)}")
    try:
        CacheSpec.model_validate(dict(cache), strict=True)
    except ValidationError as error:
        key, what, hint = first_problem(error, CacheSpec)
        raise RecipeError("cache", key, what, hint=hint) from error


def _tiny(path: str, backbone: Backbone, dtype: torch.dtype) -> TinyDecoder | LightDecoder:
    """A tiny or light decoder that goes with the backbone."""
    if isinstance(backbone, ShapesBackbone):
        return load_light_decoder(path, backbone.codec)
    tiny = load_tiny_decoder(path, dtype)
    if tiny.channels != backbone.channels:
        what = f"decodes {tiny.channels} latent channels, the transformer makes {backbone.channels}"
        raise CheckpointError(path, "--decoder", what, hint="the decoders for Wan 2.1 are named taew2_1")
    return tiny


def _find(name: str | None, recipe: str | None, wan: str | None) -> str | Path:
    """Where the weights are: what `load_transformer` takes."""
    if name is None:
        assert recipe is not None or wan is not None, "weights, a recipe or a Wan folder"
        return cards.base_of_recipe(recipe) if recipe is not None else str(wan)
    if name in weights.packaged() or (Path(name) / "resolved.json").is_file():
        return weights.find(name, "student")
    if name.startswith("shapes/") and not Path(name).exists():
        return weights.find(name, "student")  # refused there, with the nearest packaged name
    return name


def _refuse_missing(entry: Release, source: str, wan: str | None) -> None:
    """List the release and the Wan folder, if one of them is not here."""
    way_out = "without any weights, in the embedded world: astro sample --weights shapes/causal_forcing PROMPT"
    needs.refuse_missing(entry.name, [needs.weights("weights", source), needs.wan_folder(wan)], way_out)


def _own_card(source: Path) -> cards.Card | None:
    """The card beside weights that astro trained; None for other checkpoints."""
    places = (source, source / cards.STUDENT, source / "final" / cards.STUDENT)
    path = next((path for path in places if path.is_file()), None)
    trained = (
        path is not None
        and path.suffix == ".safetensors"
        and (path.name == cards.STUDENT or path.with_suffix(".json").is_file())
    )
    return cards.of_weights(path) if path is not None and trained else None


def _network(checkpoint: Checkpoint, lora: Sequence[str]) -> tuple[CausalWan, tuple[Path, ...], tuple[float, ...]]:
    """The network with its weights, LoRAs merged in, the files they were read from, and the LoRAs' strengths. One of
    strength 0 changes nothing and is in neither.
    """
    adapters = read_loras(lora)
    state = merge_into(checkpoint, adapters)
    with torch.device("meta"):
        network = CausalWan(checkpoint.config)
    fill(network, state, checkpoint.source)
    acting = [adapter for adapter in adapters if adapter.strength]
    files = tuple(path for path in checkpoint.files if path.suffix != ".json")
    files = (*files, *(adapter.source for adapter in acting))
    precision.install(network)
    return network.requires_grad_(False), files, tuple(adapter.strength for adapter in acting)


def _check_fits(checkpoint: Checkpoint, backbone: Backbone) -> None:
    """Refuse a transformer whose text or latents are not the backbone's."""
    sizes = {"text_dim": backbone.text_dim, "in_channels": backbone.channels}
    for key, expected in sizes.items():
        size = getattr(checkpoint.config, key)
        if size != expected:
            what = f"the transformer has {size}, the {backbone.name} text encoder and VAE have {expected}"
            raise CheckpointError(checkpoint.source, key, what, hint="do the weights belong to this backbone?")

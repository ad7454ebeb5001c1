"""The codec's decoder that was tuned with the weights a run starts from (`objectives.sft_flow`): later stages decode
with it too, and leave it beside their own weights.
"""

from __future__ import annotations

from pathlib import Path

from astro_cli.config.errors import CheckpointError
from astro_cli.config.files import Reader
from astro_cli.models import checkpoint, weights
from astro_cli.models.backbone import Backbone
from astro_cli.models.flow_branch import FlowDecoder, load_flow_decoder, load_weights
from astro_cli.models.roles import Roles
from astro_cli.objectives.sft_flow import DECODER
from astro_cli.spec import Recipe

FILE = f"{DECODER}.safetensors"


def tuned_decoder(recipe: Recipe) -> Path | None:
    """The file of the decoder that belongs to the student's weights, by their card; None where there is none.

    Raises:
        CheckpointError: no such weights, or a card that is damaged.
    """
    source = recipe.base.student
    if source is None:
        return None
    file = checkpoint.find(source) if recipe.backbone == "wan" else weights.find(source, "student")
    card = file.with_suffix(".json")
    if file.suffix == ".json" or not card.exists():  # a sharded model's file is its index, and no card
        return None
    named = Reader(CheckpointError, what="no readable card").table(card).get("decoder")
    if named not in (None, FILE):
        raise CheckpointError(card, "decoder", f"found {named!r}, expected {FILE!r}, a file beside the weights")
    return None if named is None else card.with_name(FILE)


def take_up(recipe: Recipe, roles: Roles, backbone: Backbone) -> None:
    """Let the run decode with the student's decoder, if it has one: as a frozen role, or as the one that the run
    goes on to train.

    Raises:
        CheckpointError: it is missing, damaged, or of another codec.
    """
    if (file := tuned_decoder(recipe)) is None:
        return
    if isinstance(trained := roles.modules.get(DECODER), FlowDecoder):
        load_weights(trained, file)
    else:
        roles.add(DECODER, load_flow_decoder(backbone.autoencoder, file), trained=False)

"""Folders of videos as samples to score, and what is wrong with them. Decodes through `astro_cli.media`."""

from eval.inputs.entries import InputError
from eval.inputs.manifest import write_manifest
from eval.inputs.samples import load

__all__ = ["InputError", "load", "write_manifest"]

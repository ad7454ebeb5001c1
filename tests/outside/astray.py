"""An objective that asks for a role nobody builds."""

from __future__ import annotations

from astro_cli.config.base import Config as BaseConfig
from astro_cli.objectives.base import Objective as BaseObjective


class Config(BaseConfig):
    """No keys."""


class Objective(BaseObjective):
    needs = ("techer",)

"""The base of every configuration class: frozen, no unknown keys, no silent conversions."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

M = TypeVar("M", bound=BaseModel)


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


def validate(model: type[M], data: Any) -> M:
    """Check what a file says without silent conversions ("1" and true are no numbers).

    By way of JSON, whose arrays may become tuples.

    Raises:
        ValidationError: a value is not of its kind.
    """
    return model.model_validate_json(json.dumps(data, default=str), strict=True)

"""Shared fixtures: where the recordings of the released models lie."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def causal_wan_dir() -> Path:
    """Folder of the recordings; skips where it is absent."""
    folder = SHARED / "fixtures" / "causal_wan"
    if not folder.is_dir():
        pytest.skip("the recordings of the released models (../shared/fixtures/causal_wan) are not here")
    return folder

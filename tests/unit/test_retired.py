"""Weights and records of an earlier embedded world are recognised by their hash."""

from __future__ import annotations

import pytest
import torch

from astro_cli.config.errors import CheckpointError, RecordError
from astro_cli.models import hashes, retired, weights
from astro_cli.models.checkpoint import load_transformer
from astro_cli.models.shapes_backbone import load_shapes_backbone
from eval.records import store
from tests.claim_records import record

OLD = "the Self-Forcing student on single frames"


@pytest.fixture
def old(tmp_path, monkeypatch):
    path = tmp_path / "student.safetensors"
    weights.write(path, {"patch_embedding.weight": torch.zeros(2, 2)})
    monkeypatch.setitem(retired.BY_HASH, hashes.digest(path), OLD)
    return path


def test_weights_of_an_earlier_world_are_refused_with_what_to_take(old):
    for load in (load_transformer, load_shapes_backbone):
        with pytest.raises(CheckpointError, match=f"weights: found {OLD}, which an earlier version shipped") as refused:
            load(str(old))
        assert "astro distill --recipe self_forcing_shapes" in refused.value.hint


def test_no_packaged_base_is_retired():
    digests = {hashes.digest(weights.PACKAGED / f"{name}.safetensors") for name in weights.packaged()}
    assert len(digests) >= 4
    assert not digests & retired.BY_HASH.keys()


def test_large_files_are_not_hashed(old, monkeypatch):
    monkeypatch.setattr(retired, "LARGEST", old.stat().st_size - 1)
    retired.refuse(old)


def test_records_of_an_earlier_world_are_refused(tmp_path):
    path = store.record_path(tmp_path, "shapes")
    retired = "208135ec075b2239"
    for weights_hash in ("f" * 16, retired):
        store.append(path, record("tuned", "vq", [0.5], weights_hash=weights_hash))
    with pytest.raises(RecordError, match=f"line 2: weights_hash: found {retired}, {OLD} of an earlier") as refused:
        store.load([path])
    assert "astro reproduce astrolabe" in refused.value.hint

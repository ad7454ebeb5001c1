"""Scores that are kept for later runs come back as they were, or not at all."""

import torch

from astro_cli.models import hashes
from astro_cli.recipe import load_recipe
from astro_cli.training import base_scores


def test_kept_scores_are_believed_only_as_they_were_written(tmp_path, monkeypatch):
    monkeypatch.setenv(hashes.CACHE_VARIABLE, str(tmp_path))
    found = base_scores.BaseScores(["a", "b"], {"vq": torch.tensor([[0.25, 0.1], [0.5, 1 / 3]])})
    base_scores.keep("key", found)
    read = base_scores.read("key", ["a", "b"], ["vq"], 2)
    assert read is not None
    assert torch.equal(read.scores["vq"], found.scores["vq"])
    path = base_scores.place("key")
    path.write_text(path.read_text().replace("0.25", "0.75"))
    assert base_scores.read("key", ["a", "b"], ["vq"], 2) is None


def test_the_scorers_own_keys_decide_what_is_kept():
    recipe = load_recipe("self_paced_shapes")
    (stage,) = recipe.stages.values()
    assert stage.experience is not None
    spec = stage.experience
    plain, same, other = (
        base_scores.key_of(recipe, spec.model_copy(update={"scorers": table}), ["vq"], ["a"], 2)
        for table in ({}, {}, {"judge": {"model": "another"}})
    )
    assert plain == same != other

"""The roles of a method outside the package: declared, built, sized, trained, refused and left with a card."""

from __future__ import annotations

import json
import re

import pytest
import torch

from astro_cli.config.errors import RecipeError
from astro_cli.models import hashes, weights
from astro_cli.recipe import load_recipe
from astro_cli.training.build import build, dry_run_counts
from astro_cli.training.footprint import expected_bytes
from astro_cli.training.release import write_final
from astro_cli.training.rundir import RunDir
from tests.probe_runs import CPU, same, train
from tests.tiny_world import TINY


def test_an_objective_that_needs_only_ref_gets_it_and_no_old(probe):
    recipe = probe()
    roles = build(recipe, CPU)[0].roles
    assert "ref" in roles
    assert "old" not in roles
    names = {name.split(".")[-2] for name, _ in roles.modules["student"].named_parameters() if ".lora_A." in name}
    assert names == {"default", "ref"}


def test_an_unknown_role_is_an_error_that_names_it(probe, tmp_path):
    with pytest.raises(RecipeError) as caught:
        probe('stages.probe.objective={kind="astray"}', "stages.probe.optim={student={lr=1e-3}}", "roles={}")
    assert "astray asks for the unknown role 'techer', did you mean 'teacher'?" in str(caught.value)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("roles.discriminatr.model.dim=16", "roles.discriminatr: unknown role, did you mean 'discriminator'?"),
        ("base.discriminatr=x", "base.discriminatr: unknown key, did you mean 'discriminator'?"),
        ("stages.probe.optim.critic.lr=1", "stages.probe.optim.critic: unknown key, probe trains no 'critic'"),
        ("roles.teacher.lora={rank=2, alpha=2}", "roles.teacher.lora: found adapters of a role that no stage trains"),
        ("roles.student.model.dim=16", "roles.student: unknown key, the student and its adapters are described by"),
        ("roles.discriminator.model.num_heads=3", "roles.discriminator.model.dim: found 16, expected an even width"),
        ("stages.probe.data.drop=0.5", "stages.probe.data.drop: found 0.5, expected 0: a walk has no captions"),
        ("stages.probe.objective.parts=1", "stages.probe.objective.parts: found 1, expected true or false"),
    ],
)
def test_what_a_method_cannot_use_is_refused_with_its_key(override, says, probe):
    with pytest.raises(RecipeError, match=re.escape(says)):
        probe(override)


def test_a_method_checks_its_own_keys_against_the_recipe(probe):
    with pytest.raises(RecipeError, match=re.escape("stages.probe.accumulate: found 2, expected 1 with parts")):
        probe("stages.probe.objective.parts=true", "stages.probe.batch=2", "stages.probe.accumulate=2")


def test_a_declared_role_is_built_trained_and_counted(probe, tmp_path):
    recipe = probe()
    trainer = train(recipe, tmp_path / "run")
    fresh = build(recipe, CPU)[0].roles
    discriminator = trainer.run_context.roles.modules["discriminator"]
    assert discriminator.trunk.config.dim == 16
    assert fresh.modules["student"].config.dim == 24
    assert not torch.equal(discriminator.head.weight, fresh.modules["discriminator"].head.weight)
    assert dry_run_counts(recipe) == fresh.counts()
    trainable = fresh.counts()["discriminator"][0]
    adapters = fresh.counts()["student"][0]
    # AdamW keeps two moments of an adapter's weight (16 bytes), RMSProp one mean square (12)
    assert (
        expected_bytes(recipe, dry_run_counts(recipe))["trained weights and optimiser"]
        == 16 * adapters + 12 * trainable
    )


def test_a_recipe_gives_each_role_its_own_size_adapters_and_optimiser(bases, tmp_path):
    """As LongLive's critic has adapters, and a 14B teacher teaches a 1.3B student."""
    recipe = load_recipe(
        "longlive_shapes",
        [
            *TINY,
            "order=['dmd']",
            f"base.student={bases['student']}",
            f"base.critic={bases['student']}",
            f"base.teacher={bases['teacher']}",
            "roles.teacher.model.dim=32",
            "roles.teacher.model.num_layers=3",
            "roles.critic.lora={rank=2, alpha=2}",
            "stages.dmd.steps=2",
            "stages.dmd.batch=2",
            "stages.dmd.optim.critic={kind='rmsprop', lr=1e-3, alpha=0.9}",
        ],
    )
    before = build(recipe, CPU)[0].roles
    counts = before.counts()
    assert dry_run_counts(recipe) == counts
    assert counts["teacher"][0] == 0
    assert counts["teacher"][1] > counts["student"][1] == counts["student"][0]
    assert 0 < counts["critic"][0] < counts["critic"][1]
    trainer = train(recipe, tmp_path / "run")
    after, old = trainer.run_context.roles.modules["critic"].state_dict(), before.modules["critic"].state_dict()
    moved = {name for name in old if not torch.equal(old[name], after[name])}
    assert moved == {name for name in old if ".lora_B.default." in name or ".lora_A.default." in name}
    checkpoint = sorted((tmp_path / "run" / "checkpoints").iterdir())[-1]
    assert weights.read(checkpoint / "network-critic.safetensors").keys() == moved
    assert all(
        torch.equal(p, q)
        for p, q in zip(
            before.modules["teacher"].parameters(),
            trainer.run_context.roles.modules["teacher"].parameters(),
            strict=True,
        )
    )


def test_a_declared_role_that_is_trained_is_left_with_its_card(probe, tmp_path):
    recipe, run = probe(), RunDir(tmp_path / "run")
    trainer = train(recipe, run.path)
    write_final(recipe, trainer.run_context, run)
    assert {path.stem for path in run.final.glob("*.safetensors")} == {"student", "discriminator"}
    saved = trainer.run_context.roles.modules["discriminator"].state_dict()
    assert same(weights.read(run.final / "discriminator.safetensors"), saved)
    card = json.loads((run.final / "discriminator.json").read_text())
    assert (card["role"], card["model"]["dim"]) == ("discriminator", 16)
    assert card["weights_hash"] == hashes.digest(run.final / "discriminator.safetensors")


def test_adapters_are_refused_where_no_layer_takes_them(probe):
    with pytest.raises(
        RecipeError, match=r"roles\.discriminator\.lora: found adapters, this role has no layer they go to"
    ):
        build(probe("roles.discriminator.lora={rank=2, alpha=2}"), CPU)


def test_a_critic_without_weights_is_refused_before_anything_is_loaded():
    with pytest.raises(RecipeError, match=r"base\.critic: missing"):
        load_recipe(
            "longlive_shapes", [*TINY, "order=['dmd']", "base={student='shapes/teacher', teacher='shapes/teacher'}"]
        )

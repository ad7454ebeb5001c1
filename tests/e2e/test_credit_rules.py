"""A credit rule and an objective from outside the package: what the rule is told and keeps, where its credit goes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_bad_input import message
from test_rl_schemes import SMALL, rows
from test_training import run, same_bits

import astro_cli.advantages
import astro_cli.objectives
from astro_cli.objectives import nft
from astro_cli.recipe import load_recipe
from tests.command_line import run_and_interrupt

RULE = '''
"""Salience of the clip's latents as credit, and a competence per reward that it keeps."""
import torch

from astro_cli.advantages.base import Advantage as Base
from astro_cli.config.base import Config as BaseConfig
from astro_cli.core.credit import Credit, Term

SEEN = []


class Config(BaseConfig):
    wrong: bool = False


class Advantage(Base):
    gives = "map"

    def observe(self, latents_BFCHW, frames_BTCHW, backbone):
        latents = latents_BFCHW.shape[1]
        continued = backbone.num_frames(latents + 1) - 1
        assert frames_BTCHW.shape[1] in (backbone.num_frames(latents), continued)
        return {"salience": latents_BFCHW.abs().mean(2)}

    def credit(self, scored, state):
        SEEN.append((scored, {name: value.clone() for name, value in state.items()}))
        means = torch.stack([value.mean() for value in scored.scores.values()]).double()
        state["competence"] = 0.9 * state.get("competence", torch.zeros(len(means), dtype=torch.float64)) + means / 3
        state["epochs"] = state.get("epochs", torch.zeros((), dtype=torch.int64)) + 1
        salience = scored.observed["salience"]
        weight = torch.arange(1.0, len(scored.prompts) + 1)
        ones = torch.ones(salience.shape[:2])
        terms = (Term(ones, map=salience), Term(-ones, weight, salience))
        if self.config.wrong:
            terms = (Term(ones, map=salience.mean((3, 4))),)
        return Credit(terms, {"competence": state["competence"].mean().item()})
'''
OBJECTIVE = '''
"""NFT that takes a map of credit by its mean."""
from dataclasses import replace

from astro_cli.core.credit import Term
from astro_cli.objectives import nft

SEEN = []
Config = nft.Config


class Objective(nft.Objective):
    credits = ("sample", "map")

    def loss(self, role, batch):
        SEEN.append(batch)
        means = tuple(Term(term.value * term.map.mean((1, 2, 3)), term.weight) for term in batch.credit)
        return super().loss(role, replace(batch, credit=means))
'''
SALIENT = ["--set", "stages.nft.experience.advantage={kind='salient'}"]
MAPPED = ["--set", "stages.nft.objective.kind=mapped"]


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """Modules `astro_cli.advantages.salient` and `astro_cli.objectives.mapped`, in a folder of the test."""
    for package, name, text in ((astro_cli.advantages, "salient", RULE), (astro_cli.objectives, "mapped", OBJECTIVE)):
        folder = tmp_path / package.__name__
        folder.mkdir()
        (folder / f"{name}.py").write_text(text)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    yield
    for package, name in ((astro_cli.advantages, "salient"), (astro_cli.objectives, "mapped")):
        sys.modules.pop(f"{package.__name__}.{name}", None)
        vars(package).pop(name, None)


def arguments(tiny: list[str], out: Path, *more: str) -> list[str]:
    one = ["--set", "stages.nft.accumulate=2", "--set", "stages.nft.objective.draws=sample"]
    return [
        "rl",
        "--recipe",
        "astrolabe_no_kl_shapes",
        *SMALL,
        *one,
        *tiny,
        *SALIENT,
        *MAPPED,
        *more,
        "--out",
        str(out),
    ]


def test_a_rule_is_told_the_scores_of_each_reward_and_its_map_reaches_the_objective(
    outside, tiny, tmp_path, monkeypatch
):
    assert run(arguments(tiny, tmp_path / "run", "--set", "stages.nft.steps=1"), monkeypatch) == 0
    from astro_cli.advantages import salient
    from astro_cli.objectives import mapped

    [(scored, before)] = salient.SEEN
    [row] = rows(tmp_path / "run")
    assert before == {}
    assert scored.weights == load_recipe("astrolabe_no_kl_shapes").stages["nft"].experience.rewards
    assert list(scored.scores) == list(scored.weights) == ["vq", "mq", "ta"]
    for key, value in scored.scores.items():
        assert value.shape == (2, 4)
        assert value.mean().item() == row[f"reward/{key}"]
    total = sum(weight * scored.scores[key] for key, weight in scored.weights.items())
    assert total.mean().item() == pytest.approx(row["reward/total"])
    assert len(scored.prompts) == 2
    assert row["advantage/competence"] == pytest.approx(
        sum(value.mean().item() for value in scored.scores.values()) / 9
    )
    assert len(mapped.SEEN) == 4  # two updates of two parts, two samples each
    for batch in mapped.SEEN:
        salience = batch.latents_BFCHW.abs().mean(2)
        first, second = batch.credit
        assert torch.equal(first.map, salience)
        assert (first.value.tolist(), first.weight) == ([1.0, 1.0], None)
        assert torch.equal(second.map, salience)
        assert second.value.tolist() == [-1.0, -1.0]
        # the group's place in the list of prompts, counted from 1
        assert second.weight.tolist() == [scored.prompts.index(prompt) + 1 for prompt in batch.prompts]


def test_what_a_rule_keeps_comes_back_with_the_same_bits(outside, tiny, tmp_path, monkeypatch):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run(arguments(tiny, whole), monkeypatch) == 0
    from astro_cli.advantages import salient

    states = [state for _, state in salient.SEEN]
    salient.SEEN.clear()
    run_and_interrupt(arguments(tiny, cut), nft, monkeypatch)
    assert run([*arguments(tiny, cut), "--resume"], monkeypatch) == 0
    last = salient.SEEN[-1][1]
    assert last["epochs"].item() == 2
    assert {name: value.dtype for name, value in last.items()} == {"competence": torch.float64, "epochs": torch.int64}
    assert all(torch.equal(value, states[-1][name]) for name, value in last.items())
    assert same_bits(whole / "final" / "student.safetensors", cut / "final" / "student.safetensors")
    assert rows(whole) == rows(cut)
    saved = load_file(sorted((cut / "checkpoints").glob("*/source.safetensors"))[-1])
    assert saved["advantage.epochs"].item() == 2


def test_an_objective_that_takes_no_map_is_named_with_the_rule_that_gives_one(outside, tmp_path, monkeypatch, capsys):
    assert run(["rl", "--recipe", "astrolabe_no_kl_shapes", *SALIENT, "--out", str(tmp_path / "run")], monkeypatch) == 2
    error = message(capsys)
    assert (
        "stages.nft.experience.advantage.kind: found 'salient', which gives credit with a map of where it goes" in error
    )
    assert "nft takes credit per sample" in error
    assert not (tmp_path / "run").exists()


def test_a_rule_that_gives_another_shape_than_it_declares_is_named(outside, tiny, tmp_path, monkeypatch, capsys):
    wrong = ["--set", "stages.nft.experience.advantage={kind='salient',wrong=true}"]
    assert run(arguments(tiny, tmp_path / "run", *wrong), monkeypatch) == 1
    assert (
        "advantage: salient: term 1 of 1: a map of shape (2, 4, 6), expected a map of shape (2, 4, 6, 8, 8)"
        in message(capsys)
    )


def test_the_group_rule_keeps_nothing(tiny, tmp_path, monkeypatch):
    one = ["--set", "stages.nft.steps=2"]
    assert (
        run(
            ["rl", "--recipe", "astrolabe_no_kl_shapes", *SMALL, *one, *tiny, "--out", str(tmp_path / "run")],
            monkeypatch,
        )
        == 0
    )
    checkpoint = next((tmp_path / "run" / "checkpoints").glob("*/source.safetensors"))
    assert set(load_file(checkpoint)) == {"risk", "collapse", "constant"}
    assert json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])["advantage/std"] > 0

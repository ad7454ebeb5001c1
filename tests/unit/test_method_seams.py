"""What a method from outside the package may declare: roles and how they are built, a source, several losses, a state,
the old policy's trajectories, checks of its own.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import astro_cli.objectives
from astro_cli.config.errors import RecipeError, RunError
from astro_cli.models import hashes, lora, weights
from astro_cli.models.wan.transformer import CausalWan
from astro_cli.objectives.base import Batch, LossOutput
from astro_cli.recipe import load_recipe
from astro_cli.spec import Recipe
from astro_cli.training import clips
from astro_cli.training.build import _initialise, build, dry_run_counts, make_accelerator
from astro_cli.training.experience import ExperienceSource
from astro_cli.training.footprint import expected_bytes
from astro_cli.training.optim import Ema
from astro_cli.training.release import write_final
from astro_cli.training.rundir import RunDir
from astro_cli.training.sources import SourceContext
from astro_cli.training.trainer import Trainer
from tests.tiny_world import TINY

OUTSIDE = Path(__file__).resolve().parents[1] / "outside"
CPU = torch.device("cpu")
PROBE = """
extends = "base/shapes.toml"
name = "probe"
command = "rl"
order = ["probe"]
[lora]
rank = 2
alpha = 2
[roles.discriminator.model]
dim = 16
num_heads = 1
[stages.probe]
steps = 4
batch = 1
objective = { kind = "probe" }
optim.student = { lr = 1e-2 }
optim.discriminator = { kind = "rmsprop", lr = 1e-2, alpha = 0.9 }
"""

RECORDED = """
extends = "base/shapes.toml"
name = "outside"
command = "rl"
order = ["outside"]
[lora]
rank = 2
alpha = 2
[stages.outside]
steps = 1
batch = 8
accumulate = 2
objective = { kind = "policy_gradient" }
optim.student = { lr = 0.3 }
experience = { prompts = 2, group = 4, updates = 2, parallel = 3, rewards = { vq = 1.0, mq = 1.0 } }
"""


@pytest.fixture(autouse=True)
def _outside(monkeypatch: pytest.MonkeyPatch):
    """The kinds of tests/outside beside the package's own."""
    monkeypatch.setattr(astro_cli.objectives, "__path__", [*astro_cli.objectives.__path__, str(OUTSIDE)])
    yield
    for path in OUTSIDE.glob("*.py"):
        sys.modules.pop(f"astro_cli.objectives.{path.stem}", None)


class Silent:
    def stage(self, name: str, start: int, steps: int) -> None: ...
    def step(self, row: dict) -> None: ...
    def work(self, what: str, done: int, total: int) -> None: ...
    def warn(self, text: str) -> None: ...


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> dict[str, Path]:
    """Random weights of a tiny student and of a wider teacher."""
    sizes = {"student": TINY, "teacher": [*TINY, "model.dim=32", "model.num_layers=3"]}
    files, folder = {}, tmp_path_factory.mktemp("bases")
    for role, sets in sizes.items():
        network = CausalWan(load_recipe("longlive_shapes", sets).model)
        _initialise(network, 0)
        torch.nn.init.normal_(
            network.proj_out.weight, std=0.1, generator=torch.Generator().manual_seed(0)
        )  # else nothing reaches the blocks
        files[role] = folder / f"{role}.safetensors"
        weights.write(files[role], network.state_dict())
    return files


@pytest.fixture
def probe(tmp_path, bases):
    """The probe's recipe with overrides."""
    (tmp_path / "probe.toml").write_text(PROBE)
    base = f"base.student={bases['student']}"
    return lambda *sets: load_recipe(str(tmp_path / "probe.toml"), [*TINY, "video.frames=3", base, *sets])


def train(recipe: Recipe, out: Path, *, resume: bool = False, watcher: Silent | None = None) -> Trainer:
    run_context, backbone = build(recipe, CPU)
    run = RunDir(out)
    run.open(recipe, "", resume=resume, device="cpu")
    trainer = Trainer(recipe, run_context, backbone, run, make_accelerator(recipe), watcher or Silent())
    try:
        trainer.fit(resume=resume)
    finally:
        run.release()
    return trainer


def state(trainer: Trainer) -> dict[str, torch.Tensor]:
    modules = trainer.run_context.roles.modules
    return {f"{role}.{name}": value for role in sorted(modules) for name, value in modules[role].state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def rows(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


# --- roles


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
    held = trainer.run_context.roles.modules["discriminator"].state_dict()
    assert same(weights.read(run.final / "discriminator.safetensors"), held)
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
        load_recipe("longlive_shapes", [*TINY, "base={student='shapes/teacher', teacher='shapes/teacher'}"])


# --- sources


def test_a_source_from_outside_the_package_runs_in_the_trainer(probe, tmp_path):
    out = tmp_path / "run"
    train(probe(), out)
    logged = rows(out)
    assert [row.get("warning", "") for row in logged] == ["", "it walks", "", ""]
    assert all(row["walk/length"] > 0 for row in logged)


def test_a_source_ends_the_run(probe, tmp_path):
    with pytest.raises(RunError, match="walked enough") as caught:
        train(probe("stages.probe.objective.stop=1"), tmp_path / "run")
    assert caught.value.hint == "let it rest"
    assert len(rows(tmp_path / "run")) == 2


class Power(Silent):
    """Cuts the power after a step."""

    def __init__(self, after: int) -> None:
        self.after = after

    def step(self, row: dict) -> None:
        if row["step"] == self.after:
            raise KeyboardInterrupt


def test_the_states_of_objective_and_source_continue_with_the_same_bits(probe, tmp_path):
    recipe = probe("runtime.save_every=1")
    whole = train(recipe, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "cut", watcher=Power(2))
    resumed = train(recipe, tmp_path / "cut", resume=True)
    assert same(state(whole), state(resumed))
    lengths = [[row["walk/length"] for row in rows(tmp_path / name)] for name in ("whole", "cut")]
    assert lengths[0] == lengths[1]


# --- losses


def test_a_loss_in_two_parts_gives_the_gradient_of_the_sum(probe):
    results = []
    for parts in (False, True):
        run_context, backbone = build(probe(), CPU)
        objective = importlib.import_module("astro_cli.objectives.probe")
        method = objective.Objective(objective.Config(parts=parts), run_context)
        trainer = Trainer(probe(), run_context, backbone, RunDir(Path("unused")), make_accelerator(probe()), Silent())
        x = torch.randn(1, 3, *run_context.latent_shape, generator=torch.Generator().manual_seed(0))
        batch = Batch([0], [""], text_BMD=run_context.encode_text([""]), latents_BFCHW=x)
        lora.adapter_state(run_context.roles.modules["student"], "default")[
            "blocks.0.attn1.to_q.lora_B.weight"
        ].data += 0.1  # away from ref
        out = trainer._back_propagate(method, "student", batch, 1)
        results.append((out, {name: p.grad for name, p in run_context.roles.trainable("student")}))
    (whole, gradient), (parted, sum_of_parts) = results
    assert parted["loss"] == pytest.approx(whole["loss"], rel=1e-6)
    assert parted["terms"] == 2.0  # the mean of 1 and 3
    assert max(g.abs().max().item() for g in gradient.values()) > 1e-6
    for name, g in gradient.items():
        assert torch.allclose(sum_of_parts[name], g, rtol=1e-4, atol=1e-9), name


def test_each_part_is_back_propagated_and_freed_before_the_next(probe):
    """Gradients of w at each part: d(w)/dw = 1, then 1 + d(2 w)/dw = 3; the first graph is gone when the second is
    built.
    """
    recipe = probe()
    run_context, backbone = build(recipe, CPU)
    w, seen, freed = torch.nn.Parameter(torch.ones(())), [], []

    def losses():
        part = w * 1.0
        kept = weakref.ref(part)
        yield LossOutput(part)
        del part
        seen.append(w.grad.item())
        freed.append(kept() is None)
        yield LossOutput(w * 2.0)

    trainer = Trainer(recipe, run_context, backbone, RunDir(Path("unused")), make_accelerator(recipe), Silent())
    out = trainer._back_propagate(SimpleNamespace(loss=lambda role, micro: losses()), "student", None, 1)
    assert (seen, freed, w.grad.item()) == ([1.0], [True], 3.0)
    assert out == {"loss": 3.0}


# --- trajectories


def outside(folder: Path, bases: dict[str, Path], clip: int) -> Recipe:
    """Two groups of four in two updates of two parts: clips behind one block of shared history, or whole videos."""
    (folder / "outside.toml").write_text(RECORDED)
    frames = [f"stages.outside.experience.{key}" for key in ("frames=9", f"clip={clip}", 'window="last"')]
    return load_recipe(str(folder / "outside.toml"), [*TINY, f"base.student={bases['student']}", *frames])


@pytest.mark.parametrize("clip", [6, 0], ids=["groups on shared history", "whole videos"])
def test_an_objective_that_wants_trajectories_gets_the_old_policys_steps(clip, bases, tmp_path):
    recipe, (steps, frames) = outside(tmp_path, bases, clip), (4, clip or 9)
    trainer = train(recipe, tmp_path / "run")
    seen = importlib.import_module("astro_cli.objectives.policy_gradient").Objective.seen
    assert len(seen) == 4  # two updates in two parts, of two clips each
    for batch, _ in seen:
        found, shape = batch.trajectory, (2, frames, *trainer.run_context.latent_shape)
        assert found.states_KBFCHW.shape == (steps + 1, *shape)
        assert found.means_SBFCHW.shape == (steps, *shape)
        assert found.log_prob_RBF.shape == (steps - 1, 2, frames)
        assert torch.equal(found.latents, batch.latents_BFCHW)  # the rows are those of its clips
        assert (batch.history_PFCHW is not None) == bool(clip)
    (row,) = rows(tmp_path / "run")
    assert row["student/old_error"] < 1e-5  # its own steps replayed: mean over parts of the largest difference
    first, second = (torch.cat([ratio_B for _, ratio_B in part]) for part in (seen[:2], seen[2:]))
    torch.testing.assert_close(first, torch.ones(4), atol=1e-5, rtol=0)
    assert (second - 1).abs().max() > 1e-3  # the policy has moved


@pytest.mark.parametrize("clip", [6, 0], ids=["groups on shared history", "whole videos"])
def test_recording_is_asked_for_and_leaves_the_clips_as_they_are(clip, bases, tmp_path, monkeypatch):
    recipe, made = outside(tmp_path, bases, clip), []
    join = clips.Clips.join
    monkeypatch.setattr(clips.Clips, "join", staticmethod(lambda *parts: made.append(join(*parts)) or made[-1]))
    method = importlib.import_module("astro_cli.objectives.policy_gradient").Objective
    for wanted in (True, False):
        monkeypatch.setattr(method, "wants_trajectory", wanted)
        run_context, backbone = build(recipe, CPU)
        told = SourceContext(
            "outside", recipe.stages["outside"], recipe, run_context, backbone, make_accelerator(recipe), print, print
        )
        batches = ExperienceSource.make(told).batches(0, "student")
        assert all((batch.trajectory is not None) == wanted for batch in batches)
    recorded, plain = made
    assert torch.equal(recorded.latents, plain.latents)
    assert all(torch.equal(recorded.scores[key], plain.scores[key]) for key in plain.scores)
    assert plain.trajectory is None


# --- moving average


def test_the_moving_average_takes_in_the_updates_of_its_role_only(probe, tmp_path, monkeypatch):
    """Two updates of the student in four steps: the average keeps .9^2 of the start, not .9^4."""
    taken: list[tuple[int, dict[str, torch.Tensor]]] = []
    real = Ema.update

    def update(ema: Ema, updates: int) -> None:
        taken.append((updates, {name: p.detach().clone() for name, p in ema.named}))
        real(ema, updates)

    monkeypatch.setattr(Ema, "update", update)
    recipe = probe("stages.probe.ema.decay=0.9", "stages.probe.optim.student.every=2")
    trainer = train(recipe, tmp_path / "run")
    start = dict(build(recipe, CPU)[0].roles.trainable("student"))
    final = dict(trainer.run_context.roles.trainable("student"))
    assert [updates for updates, _ in taken] == [0, 1]
    assert max((taken[1][1][name] - p).abs().max().item() for name, p in start.items()) > 1e-3  # it moved
    for name, value in final.items():
        expected = 0.81 * start[name] + 0.09 * taken[0][1][name] + 0.1 * taken[1][1][name]
        assert torch.allclose(value, expected, atol=1e-6)


def test_an_update_that_breaks_the_weights_leaves_no_checkpoint_of_them(probe, tmp_path):
    class Breaking(Silent):
        def step(self, row: dict) -> None:
            if row["step"] == 1:
                next(iter(trainer.run_context.roles.modules["discriminator"].parameters())).data[0] = float("inf")

    recipe, out = probe("runtime.save_every=1"), tmp_path / "run"
    run_context, backbone = build(recipe, CPU)
    run = RunDir(out)
    run.open(recipe, "", resume=False, device="cpu")
    trainer = Trainer(recipe, run_context, backbone, run, make_accelerator(recipe), Breaking())
    with pytest.raises(RunError, match=r"after 2 steps: .* holds numbers that are NaN or infinite"):
        trainer.fit(resume=False)
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["00000001"]

"""From weights to records, tables, videos and the study's page, on a tiny student."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_training import run

from astro_cli.commands import evaluate, reproduce
from eval.papers import published, table
from eval.records import store
from eval.studies import catalog
from tests.once import once
from tests.tiny_world import TINY


@pytest.fixture
def evaluated(tiny_base, tmp_path, tmp_path_factory):
    """Records of the tiny base on eight prompts; each test has a copy."""

    def evaluate(folder):
        with pytest.MonkeyPatch.context() as patch:
            assert (
                run(["eval", "shapes", "--arm", str(tiny_base), "--prompts", "8", "--results", str(folder)], patch) == 0
            )

    return shutil.copytree(once(tmp_path_factory, "evaluated", evaluate), tmp_path / "results")


def test_eval_writes_records_once(evaluated, tiny_base, monkeypatch):
    records = store.load_results(evaluated)
    assert {"vq", "mq", "ta", "color", "motion", "throughput", "sharpness"} <= {record.metric for record in records}
    assert all(len(record.scores) == 8 for record in records if not record.metric.startswith("throughput"))
    assert (
        run(["eval", "shapes", "--arm", str(tiny_base), "--prompts", "8", "--results", str(evaluated)], monkeypatch)
        == 0
    )
    assert len(store.load_results(evaluated)) == len(records)


def test_frames_per_second_are_measured_again_on_demand(evaluated, tiny_base, monkeypatch):
    before = store.load_results(evaluated)
    assert (
        run(
            [
                "eval",
                "shapes",
                "--arm",
                str(tiny_base),
                "--prompts",
                "8",
                "--results",
                str(evaluated),
                "--timing",
                "again",
            ],
            monkeypatch,
        )
        == 0
    )
    added = store.load_results(evaluated)[len(before) :]
    assert [record.metric for record in added] == ["throughput", "throughput_streaming"]
    assert added[0].scores != next(record.scores for record in before if record.metric == "throughput")


def test_a_brief_timing_has_fewer_turns_and_no_long_video_and_counts_for_no_full_one(tiny_base, tmp_path, monkeypatch):
    from eval.world import shapes

    def timed(*, brief):
        evaluate.evaluate_arms([str(tiny_base)], [0], 2, tmp_path, brief=brief)
        records = [record for record in store.load_results(tmp_path) if record.metric.startswith("throughput")]
        return [(record.metric, len(record.scores)) for record in records]

    monkeypatch.setattr(shapes, "THROUGHPUT_RUNS", 24)
    assert timed(brief=True) == timed(brief=True) == [("throughput", 20)]
    assert sorted(timed(brief=False)) == [("throughput", 20), ("throughput", 24), ("throughput_streaming", 10)]
    assert len(timed(brief=True)) == len(timed(brief=False)) == 3


def test_arms_are_timed_in_one_network_each_with_its_own_weights(tiny_base, monkeypatch):
    from astro_cli.generate.arm import Arm, load_arm
    from eval.world import shapes

    def first(network):
        return next(network.parameters())

    base = load_arm(str(tiny_base))
    other = replace(load_arm(str(tiny_base)), name="other")
    with torch.no_grad():
        first(other.network).add_(1)
    seen = []

    def generate(self, prompts, seeds, frames):
        seen.append((self.name, id(self.network), first(self.network).sum().item()))
        return torch.zeros(1, frames, *self.latent_shape)

    monkeypatch.setattr(shapes, "THROUGHPUT_RUNS", 2)
    monkeypatch.setattr(Arm, "generate", generate)
    assert [len(rates) for rates in shapes.throughput([base, other])] == [2, 2]
    assert [name for name, _, _ in seen] == [base.name, "other", "other", base.name, base.name, "other"]
    assert len({network for _, network, _ in seen}) == 1
    own = {arm.name: first(arm.network).sum().item() for arm in (base, other)}
    assert all(total == own[name] for name, _, total in seen)
    assert own[base.name] != own["other"]


def test_a_suite_without_timing_refuses_to_time(tiny_base, tmp_path, monkeypatch, capsys):
    assert (
        run(
            ["eval", "shapes-long", "--arm", str(tiny_base), "--results", str(tmp_path / "out"), "--timing", "again"],
            monkeypatch,
        )
        == 2
    )
    assert "--timing" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("clip", [0, 6])
def test_the_gain_over_the_base_starts_at_zero_and_changes_no_bit_of_what_is_trained(
    clip, tiny_base, tmp_path, monkeypatch
):
    changes = [f"experience.clip={clip}", "experience.group=2", "experience.updates=1", "batch=8", "steps=2"]
    sets = [f'base.student="{tiny_base}"', *TINY, *(f"stages.nft.{change}" for change in changes)]
    for name, base_clips in (("with", 2), ("without", 0)):
        chosen = [*sets, f"stages.nft.experience.base_clips={base_clips}"]
        arguments = [argument for value in chosen for argument in ("--set", value)]
        recipe = ["rl", "--recipe", "astrolabe_self_forcing_shapes"]
        assert run([*recipe, *arguments, "--out", str(tmp_path / name)], monkeypatch) == 0
    first, second = map(json.loads, (tmp_path / "with" / "metrics.jsonl").read_text().splitlines())
    keys = [f"gain/{key}" for key in ("vq", "mq", "ta", "total")]
    assert [first[key] for key in keys] == pytest.approx([0.0] * 4, abs=1e-5)  # the old policy is still the base
    assert any(abs(second[key]) > 1e-5 for key in keys)
    other = json.loads((tmp_path / "without" / "metrics.jsonl").read_text().splitlines()[1])
    assert not any(key.startswith("gain/") for key in other)
    assert (second["reward/total"], second["student/loss"]) == (other["reward/total"], other["student/loss"])


def test_still_prompts_have_no_speed_score(evaluated):
    from eval.world.shapes import prompt_set

    speed = next(record for record in store.load_results(evaluated) if record.metric == "speed")
    for prompt, score in zip(prompt_set(8), speed.scores, strict=True):
        assert (score is None) == ("still" in prompt)


def test_validation_prompts_are_not_training_prompts():
    from astro_cli.core.rng import stream_seed
    from astro_cli.training.sources import draw_scene
    from eval.world.oracle_scores import prompt_set_hash
    from eval.world.shapes import prompt_set

    assert prompt_set(4) == prompt_set(8)[:4]
    assert prompt_set_hash(prompt_set(4)) != prompt_set_hash(prompt_set(5))
    trained = [draw_scene(stream_seed(0, "pool", row), 0.0)[1] for row in range(8)]
    assert trained != prompt_set(8)


def test_a_long_video_streams_with_flat_memory_and_a_sidecar(tiny_base, tmp_path, monkeypatch):
    prompt = "a large red circle moves right slowly over a gray plain background"
    assert (
        run(["sample", prompt, "--weights", str(tiny_base), "--frames", "60", "--out", str(tmp_path)], monkeypatch) == 0
    )
    sidecar = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert sidecar["frames"] == 69  # whole blocks
    assert sidecar["prompt"] == prompt
    assert next(tmp_path.glob("*.mp4")).stat().st_size > 0
    assert next(tmp_path.glob("*.png")).stat().st_size > 0


def test_a_video_does_not_depend_on_its_length(tiny_base):
    """Nine frames of a longer video are the nine-frame video as long as the window does not roll."""
    import torch

    from astro_cli.generate.arm import load_arm

    arm = load_arm(str(tiny_base))
    prompts = ["a red circle moves right fast"]
    short, longer = arm.generate(prompts, [3], 9), arm.generate(prompts, [3], 12)
    torch.testing.assert_close(short, longer[:, :9], atol=1e-4, rtol=1e-4)


def tiny_recipe(folder, base, name="tiny_study"):
    lines = [
        'extends = "astrolabe_causal_shapes.toml"',
        f'name = "{name}"',
        f'base.student = "{base}"',
        "lora.rank = 4",
    ]
    lines += ["stages.nft.experience.rewards.mq = 0.0"]  # four clips of a random student can all have none
    lines += [
        f"stages.nft.{key}"
        for key in (
            "steps = 2",
            "batch = 4",
            "experience.prompts = 1",
            "experience.group = 4",
            "experience.updates = 1",
        )
    ]
    recipe = folder / f"{name}.toml"
    recipe.write_text("\n".join([*lines, *(item.replace("=", " = ") for item in TINY)]))
    return recipe


@pytest.mark.slow
def test_the_study_from_end_to_end(tiny_base, tmp_path, monkeypatch, capsys):
    study = catalog.Study(("astrolabe-1",), ((str(tiny_base), str(tiny_recipe(tmp_path, tiny_base))),), ())
    monkeypatch.setitem(catalog.STUDIES, "astrolabe", study)
    monkeypatch.setattr(reproduce, "QUICK_PROMPTS", 8)
    out = tmp_path / "out"
    for _ in range(2):  # the second call finds everything done
        assert run(["reproduce", "astrolabe", "--quick", "--out", str(out)], monkeypatch) == 0
    *_, counts, page = capsys.readouterr().out.splitlines()
    assert counts.endswith(" of 16 claims")
    assert page == f"page: {out / 'index.html'}"
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert {"index.html", "tables/astrolabe-1.md", "tables/astrolabe-1.json", "figures/reward_curves.png"} <= names
    assert any(name.endswith(".gif") for name in names)
    assert any(name.endswith(".mp4") for name in names)
    page = (out / "index.html").read_text()
    assert "data:image/png;base64," in page
    assert len((out / "runs" / "tiny_study-seed0" / "metrics.jsonl").read_text().splitlines()) == 2
    arms = {record.arm for record in store.load_results(out)}
    assert arms == {"self_forcing_shapes", "tiny_study"}
    view = table.build(published.load_table("astrolabe-1"), store.load_results(out))
    measured = {row.label: row.measured["hpsv3"] for row in view.rows}
    assert measured["Self-Forcing"] is not None
    assert measured["LongLive"] is None


TINY_STAGES = {
    "reward_forcing_shapes": ("dmd", "distill"),
    "delta_forcing_shapes": ("long_tuning", "long-tune"),
}


def tiny_forcing_recipe(folder: Path, base: Path, name: str) -> Path:
    """A study's recipe with tiny networks, under its own name, so that tables and claims know it."""
    stage, command = TINY_STAGES[name]
    lines = [f"extends = '{name}'", f"name = '{name}'", f"command = '{command}'"]
    lines += [f"base.{role} = '{base}'" for role in ("student", "teacher", "critic")]
    lines += [f"stages.{stage}.steps = 2", f"stages.{stage}.batch = 2", f"stages.{stage}.optim.student.every = 1"]
    if stage == "long_tuning":
        lines += ["lora.rank = 2", "roles.critic.lora.rank = 2", "stages.long_tuning.objective.warmup = 1"]
    recipe = folder / f"tiny_{name}.toml"
    recipe.write_text("\n".join([*lines, *(item.replace("=", " = ") for item in TINY)]))
    return recipe


@pytest.mark.slow
@pytest.mark.parametrize(
    ("paper", "name", "table"),
    [
        ("reward-forcing", "reward_forcing_shapes", "reward-forcing-1"),
        ("delta-forcing", "delta_forcing_shapes", "delta-forcing-1"),
    ],
)
def test_the_forcing_studies_quickly(paper, name, table, tiny_base, tmp_path, monkeypatch, capsys):
    from eval.world import shapes

    monkeypatch.setattr(shapes, "THROUGHPUT_RUNS", 2)
    monkeypatch.setattr(shapes, "STREAMING_RUNS", 2)
    monkeypatch.setattr(reproduce, "QUICK_PROMPTS", 2)
    recipe = tiny_forcing_recipe(tmp_path, tiny_base, name)
    study = catalog.STUDIES[paper]._replace(pairs=((str(tiny_base), str(recipe)),))
    monkeypatch.setitem(catalog.STUDIES, paper, study)
    out = tmp_path / "out"
    for _ in range(2):  # the second call finds everything done
        assert run(["reproduce", paper, "--quick", "--out", str(out)], monkeypatch) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == f"page: {out / 'index.html'}"
    assert len((out / "runs" / f"{name}-seed0" / "metrics.jsonl").read_text().splitlines()) == 2
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert {"index.html", f"tables/{table}.md", "figures/reward_curves.png"} <= names
    records = store.load_results(out)
    assert {record.arm for record in records} == {"self_forcing_shapes", name}
    measured = {row.label: row.measured for row in table_of(table, records)}
    ours = next(label for label in measured if "Ours" in label)
    assert any(value is not None for value in measured[ours].values())


def table_of(name: str, records: list[store.Record]) -> list:
    return table.build(published.load_table(name), records).rows


@pytest.mark.parametrize("paper", ["reward-forcing", "delta-forcing", "teleboost", "aapt"])
def test_every_grid_of_a_study_is_planned(paper, tmp_path):
    """All recipes are read and checked; tables and claims name no arm that no grid trains."""
    from eval.papers.ablation import load_grid, merge, plan
    from eval.papers.claims import load_claims
    from eval.papers.published import load_table

    study = catalog.STUDIES[paper]
    jobs = merge([plan(load_grid(name), [0], tmp_path, [], 1) for name in study.grids])
    trained = {job.recipe.name if job.recipe else f"{job.arm.rpartition('/')[2]}_shapes" for job in jobs}
    assert {recipe for _, recipe in study.pairs} | set(study.timed) <= trained
    wanted = {
        row.arm["shapes"].partition("@")[0]
        for name in study.tables
        for row in load_table(name).rows
        if "shapes" in (row.arm or {})
    }
    assert wanted <= trained
    sides = set()
    for claim in load_claims(paper).claims:
        for part in claim.parts:
            for side in (getattr(part, "a", None), *getattr(part, "b", []), *getattr(part, "order", [])):
                sides |= set() if side is None else {f"{claim.stem(side, 'shapes')}_shapes"}
    measured_by_no_recipe = {f"{arm}_shapes" for arm in load_claims(paper).planned}
    assert sides - measured_by_no_recipe <= trained


@pytest.mark.slow
def test_the_full_study_runs_its_grids_each_row_once_and_draws_them(tiny_base, tmp_path, monkeypatch, capsys):
    """A row that two grids share is trained and scored once; a second call starts no process."""
    from eval.papers import ablation
    from eval.report import paper_figures
    from eval.world import shapes

    monkeypatch.setattr(paper_figures, "SHEETS", {})  # minutes of video
    monkeypatch.setattr(shapes, "THROUGHPUT_RUNS", 2)
    monkeypatch.chdir(tmp_path)
    recipe, out = tiny_recipe(tmp_path, tiny_base).stem, tmp_path / "out"
    arm = f'[[rows]]\nlabel = "base"\narm = "{tiny_base}"\n'
    row = f'[[rows]]\nlabel = "tuned"\nrecipe = "{recipe}"\n'
    (tmp_path / "one.toml").write_text('title = "one"\n' + arm + row)
    (tmp_path / "two.toml").write_text('title = "two"\n' + row)
    study = catalog.Study(("astrolabe-1",), ((str(tiny_base), recipe),), ("one", "two"))
    monkeypatch.setattr(ablation, "GRIDS", tmp_path)
    monkeypatch.setitem(catalog.STUDIES, "astrolabe", study)
    monkeypatch.setattr(paper_figures, "FIGURES", {"astrolabe": ()})
    for _ in range(2):
        assert run(["reproduce", "astrolabe", "--seeds", "3", "--jobs", "2", "--out", str(out)], monkeypatch) == 0
    spent = [json.loads(line) for line in (out / "logs" / "seconds.jsonl").read_text().splitlines()]
    assert sorted((row["job"].rpartition("-seed-")[0].rpartition("-")[2], row["what"]) for row in spent) == [
        ("student.safetensors", "shapes"),
        ("tiny_study", "shapes"),
        ("tiny_study", "train"),
    ]
    err = capsys.readouterr().err
    assert "2 of 2 done" in err
    assert "time of one core: " in err
    records = store.load_results(out)
    assert {(record.arm, record.seed) for record in records if record.metric == "vq"} == {
        ("self_forcing_shapes", 0),
        ("tiny_study", 3),
    }
    assert len({record.weights_hash for record in records if record.metric == "throughput"}) == 2
    figures = {path.name for path in (out / "figures").iterdir()}
    assert {f"{name}_student.safetensors.png" for name in ("figure_5", "sheet_short")} <= figures
    assert (out / "tables" / "astrolabe-1.md").is_file()
    assert "data:image/png;base64," in (out / "index.html").read_text()

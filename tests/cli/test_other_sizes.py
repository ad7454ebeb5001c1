"""Videos of another size than the trained one: sampled, evaluated under a name of their own, refused where they do not
fit.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from astro_cli.generate.arm import load_arm
from astro_cli.generate.sizes import resized
from eval.papers.published import load_table
from eval.papers.table import build
from eval.records import store
from eval.world.run import at_size, is_recorded
from eval.world.suites import world_suite
from tests.command_line import run

RED = "a large red circle moves right slowly over a gray plain background"
STUDENT = "shapes/self_forcing"


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_positions_of_another_size_are_set_once_asked_for():
    arm = load_arm(STUDENT)
    assert resized(arm, None) is arm
    for stretch, span in ((None, None), (True, (4, 4)), (False, None)):
        other = resized(arm, "48x40", stretch=stretch)
        assert (other.pixels, other.network.span, arm.pixels) == ((48, 40), span, (32, 32))
    stretching = arm.card | {"video": arm.card["video"] | {"stretch": True}}
    arm.card.update(stretching)
    assert resized(arm, "48x48").network.span == (4, 4)  # as the card says


def test_a_sidecar_says_how_positions_stand(monkeypatch):
    assert run(["sample", RED, "--frames", "1", "--size", "48x48", "--stretch"], monkeypatch) == 0
    (path,) = Path("samples").glob("*.json")
    sidecar = json.loads(path.read_text())
    assert (sidecar["size"], sidecar["stretch"]) == ([48, 48], True)


def test_an_evaluation_of_another_size_is_recorded_beside_the_trained_ones(monkeypatch, capsys):
    command = ["eval", "shapes-i2v", "--arm", STUDENT, "--prompts", "1"]
    assert run(command, monkeypatch) == 0
    assert run([*command, "--size", "48x48", "--stretch"], monkeypatch) == 0
    records = store.load([Path("results/records/shapes-i2v.jsonl")])
    name = "self_forcing_shapes"
    sizes = {record.arm: record.protocol["resolution"] for record in records}
    assert sizes == {name: [32, 32], f"{name}@48x48-stretched": [48, 48]}
    metrics = {record.metric for record in records if record.arm == name}
    assert {"i2v_subject", "i2v_background", "temporal_quality", "ta"} <= metrics
    assert {record.protocol["num_frames"] for record in records} == {25}  # a picture and two blocks of three latents
    assert is_recorded(STUDENT, 0, 1, Path("results"), "shapes-i2v")
    assert not is_recorded(STUDENT, 0, 1, Path("results"), "shapes-i2v@48x48")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("sample", RED, "--size", "44x48"), "--size: 44x48: expected HEIGHTxWIDTH in multiples of 8 and 8 pixels"),
        (("sample", RED, "--stretch"), "--stretch: there is no other size to stretch to"),
        (("eval", "shapes", "--arm", STUDENT, "--size", "48x32"), "expected a square of 32 x 32 pixels or more"),
        (("eval", "shapes", "--arm", STUDENT, "--size", "24x24"), "expected a square of 32 x 32 pixels or more"),
        (("eval", "shapes", "--arm", STUDENT, "--size", "big"), "expected HEIGHTxWIDTH"),
        (("eval", "shapes-flow", "--arm", STUDENT, "--size", "48x48"), "shapes-flow scores videos of the trained size"),
        (("eval", "shapes-i2v", "--arm", "shapes/teacher", "--prompts", "1"), "a picture is continued by a few-step"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, says, monkeypatch, capsys):
    assert run(list(arguments), monkeypatch) == 2
    assert says in capsys.readouterr().err
    assert not Path("results").exists()


def test_an_arm_of_another_size_has_a_name_of_its_own():
    arm, suite = load_arm(STUDENT), world_suite("shapes")
    assert at_size(arm, "32x32", suite).name == arm.name
    assert at_size(arm, "48x48", suite).name == f"{arm.name}@48x48"


def test_two_sizes_stand_in_one_column_of_the_papers_table():
    """Where a table is about sizes, its rows may differ in them, and in nothing else."""
    table = load_table("aapt-1")
    rows = []
    for arm, side, mean in (("aapt_long_shapes", 32, 0.5), ("aapt_long_shapes@48x48", 48, 0.25)):
        rows.append(
            store.Record(
                benchmark="shapes-i2v-long", backbone="shapes", arm=arm, seed=0, metric="identity", direction="up",
                scores=[mean, mean], recipe_hash="r", weights_hash="w", prompt_set_hash="p",
                protocol={"resolution": [side, side], "num_frames": 481}, commit="c", dirty=False,
            )
        )  # fmt: skip
    view = build(table, rows)
    shown = [row.measured["subject_consistency"] for row in view.rows]
    assert [cell.mean for cell in shown if cell is not None] == [0.5, 0.25]
    column = next(column for column in view.columns if column.key == "subject_consistency")
    assert "481 frames, 32 × 32 and 481 frames, 48 × 48" in column.measured_with


def test_rows_of_pictures_take_records_of_their_own_suite():
    """Table 3 of TeleBoost: I2V rows beside T2V rows, of the same prompts, with clips of another length."""
    rows = []
    for arm, suite, frames, mean in (
        ("teacher_shapes", "shapes", 33, 0.5),
        ("causal_forcing_shapes", "shapes", 33, 0.75),
        ("causal_forcing_shapes", "shapes-i2v", 25, 0.25),
    ):
        rows.append(
            store.Record(
                benchmark=suite, backbone="shapes", arm=arm, seed=0, metric="ta", direction="up",
                scores=[mean, mean], recipe_hash="r", weights_hash="w", prompt_set_hash="p",
                protocol={"resolution": [32, 32], "num_frames": frames}, commit="c", dirty=False,
            )
        )  # fmt: skip
    shown = {row.label: row.measured["ta"] for row in build(load_table("teleboost-3"), rows).rows}
    means = {label: cell.mean for label, cell in shown.items() if cell is not None}
    assert means == {"Wan2.1": 0.5, "Wan2.2": 0.25}


def test_agreement_with_the_first_frame_by_hand():
    from eval.world.first_frame import conformity

    # 0.4 x 0.9 + 0.3 x (0.8 + 0.6) / 2 + 0.3 x 0.6
    value = conformity(torch.tensor([[0.9, 0.5]]), torch.tensor([[0.8, 0.6]]))
    assert value.item() == pytest.approx(0.75)


def test_agreement_falls_where_object_or_background_change():
    from astro_cli.shapes.grammar import parse
    from astro_cli.shapes.render import random_layout, render
    from eval.world.first_frame import agreement_with_first

    def clip(text: str) -> torch.Tensor:
        scenes = [parse(text)]
        return render(scenes, random_layout(scenes, [torch.Generator().manual_seed(3)]), 17)

    red = clip(RED)
    same = agreement_with_first(red)
    assert min(value.item() for value in same.values()) > 0.95
    other = torch.cat((red[:, :8], clip(RED.replace("red", "blue"))[:, 8:]), 1)
    changed = agreement_with_first(other)
    assert changed["i2v_subject"].item() < 0.8
    assert changed["i2v_background"].item() > 0.95
    darker = torch.cat((red[:, :8], clip(RED.replace("gray", "black"))[:, 8:]), 1)
    assert agreement_with_first(darker)["i2v_background"].item() < 0.8


def test_a_next_frame_model_is_evaluated_from_pictures_of_the_size(monkeypatch):
    """The rendered first frame has the size that is asked for."""
    arm = resized(load_arm(STUDENT), "48x48")
    from astro_cli.generate.rendered import first_frames

    assert first_frames(arm.backbone, [RED], [0], arm.pixels).shape == (1, 1, 16, 12, 12)

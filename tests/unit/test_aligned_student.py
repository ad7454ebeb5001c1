"""What RL takes for a student: by the card beside the weights, or by the release they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from astro_cli.config.errors import CheckpointError, RecipeError
from astro_cli.recipe import load_recipe
from astro_cli.training.aligned_student import check_student
from astro_cli.zoo.entries import BY_NAME, ENTRIES

SHAPES, WAN = "astrolabe_self_forcing_shapes", "astrolabe_causal"
CARD = {"role": "student", "sampling": "few_step", "recipe": "mine", "video": {"block": 3}}


def check(recipe: str, source: object, block: int = 3) -> None:
    check_student(load_recipe(recipe, [f"base.student={source}", f"video.block={block}", "video.frames=9"]))


def with_card(folder: Path, **changes: object) -> Path:
    (folder / "student.safetensors").touch()
    (folder / "student.json").write_text(json.dumps(CARD | changes))
    return folder / "student.safetensors"


def release(folder: Path, name: str) -> None:
    path = folder / BY_NAME[name].folder / BY_NAME[name].file
    path.parent.mkdir(parents=True)
    path.touch()


@pytest.fixture
def checkpoints(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("recipe", [SHAPES, WAN])
def test_a_card_says_what_it_is(recipe, tmp_path):
    check(recipe, with_card(tmp_path))
    with pytest.raises(RecipeError, match=r"base\.student.*a model of teacher_shapes that is sampled in many steps"):
        check(recipe, with_card(tmp_path, sampling="ode", recipe="teacher_shapes"))
    with pytest.raises(RecipeError, match=r"base\.student.*the weights of a codec"):
        check(recipe, with_card(tmp_path, role="codec"))
    with pytest.raises(RecipeError, match=r"video\.block.*found 3, .* streams in blocks of 1"):
        check(recipe, with_card(tmp_path, video={"block": 1}))
    (tmp_path / "student.json").write_text('{"role": ')
    with pytest.raises(CheckpointError, match="no readable card"):
        check(recipe, tmp_path / "student.safetensors")


def test_the_packaged_teacher_is_no_student():
    for name in ("self_forcing", "longlive", "causal_forcing"):
        check(SHAPES, f"shapes/{name}")
    with pytest.raises(RecipeError, match=r"'shapes/teacher'.*many steps"):
        check(SHAPES, "shapes/teacher")


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("self_forcing", 3),
        ("causal_forcing", 3),
        ("causal_forcing_framewise", 1),
        ("causal_forcing_1step", 1),
        ("longlive", 3),
        ("reward_forcing", 3),
        ("memflow", 3),
        ("krea_14b", 3),
    ],
)
def test_a_release_without_a_card_has_its_block(name, block, checkpoints):
    """`num_frame_per_block` of the released configs: 3 chunk-wise, 1 frame-wise; 3 in Astrolabe's config for Krea."""
    release(checkpoints, name)
    for source in (name, BY_NAME[name].file, checkpoints / BY_NAME[name].folder / BY_NAME[name].file):
        check(WAN, source, block)
        with pytest.raises(RecipeError, match=rf"video\.block.*found {4 - block}, .* streams in blocks of {block}"):
            check(WAN, source, 4 - block)


def test_teachers_stream_in_no_blocks(checkpoints):
    for entry in ENTRIES:
        assert (entry.block is None) == entry.what.startswith("teacher")
    folder = checkpoints / "Wan2.1-T2V-1.3B"
    folder.mkdir()
    (folder / "diffusion_pytorch_model.safetensors").touch()
    for source in ("wan_1.3b", folder):
        with pytest.raises(RecipeError, match=r"base\.student.*bidirectional"):
            check(WAN, source)


def test_an_import_is_known_by_its_manifest_and_a_shards_index_is_no_card(checkpoints):
    folder = checkpoints / "renamed"
    folder.mkdir()
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text("{}")
    check(WAN, folder, 1)  # nothing says what it is
    (folder / "manifest.json").write_text(json.dumps({"entry": None}))
    check(WAN, folder, 1)
    (folder / "manifest.json").write_text(json.dumps({"entry": "causal_forcing_framewise"}))
    check(WAN, folder, 1)
    with pytest.raises(RecipeError, match=r"video\.block.*found 3"):
        check(WAN, folder, 3)
    (folder / "manifest.json").write_text("torn")
    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        check(WAN, folder, 1)

"""Prompts from a file: distinct within a batch, each once an epoch, functions of the step alone; prompts of the grammar
stay what they were.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from astro_cli.training.sources import PromptSource, draw_scene, read_prompts, sample_seeds


def source(path: Path | None, every: dict[str, int] | None = None, seed: int = 0) -> PromptSource:
    return PromptSource(
        seed, lambda prompts: torch.zeros(len(prompts), 1, 1), 0.0, None if path is None else read_prompts(path), every
    )


def file_of(folder: Path, count: int) -> Path:
    path = folder / "prompts.txt"
    path.write_text("\n".join(f"prompt {number}" for number in range(count)))
    return path


def draw(prompts: PromptSource, steps: range, size: int, role: str = "prompts") -> list[list[str]]:
    return [prompts.batch("nft", step, role, size).prompts for step in steps]


@pytest.mark.parametrize(("count", "size"), [(200, 48), (50, 48), (48, 48), (7, 5), (9, 6), (3, 2), (1, 1)])
def test_a_batch_has_no_prompt_twice_and_an_epoch_has_each_once(count, size, tmp_path):
    batches = draw(source(file_of(tmp_path, count)), range(3 * count), size)
    assert all(len(set(batch)) == size for batch in batches)
    flat = [prompt for batch in batches for prompt in batch]
    epochs = [flat[start : start + count] for start in range(0, len(flat), count)]
    assert all(set(epoch) == set(flat) and len(epoch) == count for epoch in epochs)
    assert len(epochs) == 3 * size


def test_epochs_seeds_and_roles_have_orders_of_their_own(tmp_path):
    path = file_of(tmp_path, 40)
    prompts = source(path)
    first, second = draw(prompts, range(2), 40)
    assert first != second
    assert draw(source(path, seed=1), range(1), 40) != [first]
    assert draw(prompts, range(1), 40, "critic") != [first]


def test_a_batch_is_the_same_whatever_was_drawn_before(tmp_path):
    path = file_of(tmp_path, 7)
    whole = draw(source(path), range(20), 5)
    assert [draw(source(path), range(step, step + 1), 5)[0] for step in reversed(range(20))] == whole[::-1]


def test_a_batch_larger_than_the_file_repeats_evenly(tmp_path):
    for batch in draw(source(file_of(tmp_path, 3)), range(5), 8):
        assert sorted(Counter(batch).values()) in ([2, 3, 3], [2, 2, 4])
    flat = [prompt for batch in draw(source(file_of(tmp_path, 3)), range(3), 8) for prompt in batch]
    assert Counter(flat) == {f"prompt {number}": 8 for number in range(3)}


def test_a_role_that_asks_every_third_step_misses_no_prompt(tmp_path):
    prompts = source(file_of(tmp_path, 6), {"student": 3})
    assert {prompt for batch in draw(prompts, range(0, 9, 3), 2, "student") for prompt in batch} == {
        f"prompt {number}" for number in range(6)
    }


def test_prompts_of_the_grammar_come_from_their_samples_seeds():
    seeds = sample_seeds(0, "nft", 3, "prompts", 4)
    batch = source(None).batch("nft", 3, "prompts", 4)
    assert batch.seeds == seeds
    assert batch.prompts == [draw_scene(seed, 0.0)[1] for seed in seeds]


@pytest.mark.parametrize("listed", [True, False])
def test_samples_of_a_prompt_stand_together_with_noise_of_their_own(listed, tmp_path):
    """Three prompts of two samples: the prompts of a batch of three, each twice; an epoch has each prompt once."""
    lines = read_prompts(file_of(tmp_path, 9)) if listed else None
    encode = lambda prompts: torch.zeros(len(prompts), 1, 1)  # noqa: E731
    once, twice = (PromptSource(0, encode, 0.0, lines, samples=samples) for samples in (1, 2))
    drawn = [twice.batch("dmd", step, "student", 6) for step in range(3)]
    for batch in drawn:
        assert batch.prompts[::2] == batch.prompts[1::2]
        assert len(set(batch.seeds)) == 6
    if listed:
        assert [batch.prompts[::2] for batch in drawn] == draw_of(once, 3)
        assert len({prompt for batch in drawn for prompt in batch.prompts}) == 9
    assert len(twice.batch("prepare", 0, "student", 5).prompts) == 5


def draw_of(prompts: PromptSource, size: int) -> list[list[str]]:
    return [prompts.batch("dmd", step, "student", size).prompts for step in range(3)]

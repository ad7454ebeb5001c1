"""Prompts of a file: each line once before any comes again, the same on all processes and after a resume."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from astro_cli.training.sources import PromptSource

LINES = [f"prompt {number}" for number in range(10)]


@pytest.fixture
def source(tmp_path: Path) -> PromptSource:
    (tmp_path / "prompts.txt").write_text("\n".join(LINES))
    return PromptSource(0, lambda prompts: torch.zeros(len(prompts), 1), 0.0, str(tmp_path / "prompts.txt"))


def test_every_line_comes_once_before_any_comes_again(source: PromptSource) -> None:
    seen = [prompt for step in range(5) for prompt in source.batch("nft", step, "prompts", 4).prompts]
    assert sorted(seen[:10]) == sorted(seen[10:]) == LINES
    assert seen[:10] != seen[10:]  # in another order
    assert seen[:10] != LINES


def test_a_batch_larger_than_the_file_repeats_lines_as_little_as_it_can(source: PromptSource) -> None:
    prompts = source.batch("nft", 0, "prompts", 25).prompts
    assert sorted(prompts[:10]) == sorted(prompts[10:20]) == LINES
    assert len(set(prompts[20:])) == 5


def test_a_step_draws_the_same_prompts_whenever_it_is_asked(source: PromptSource) -> None:
    late = source.batch("nft", 7, "prompts", 4).prompts
    assert source.batch("nft", 7, "prompts", 4).prompts == late
    assert source.batch("other", 7, "prompts", 4).prompts != late

"""The terms of a credit, by hand: samples of a batch, means for diagnostics, and what is wrong with them."""

import pytest
import torch

from astro_cli.core.credit import Credit, Term

VALUE = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])  # three prompts of two samples


def test_samples_of_some_prompts_are_rows_with_their_groups_weight():
    [term] = Credit((Term(VALUE, torch.tensor([0.5, 1.0, 2.0])),)).of_prompts(slice(1, 3))
    assert term.value.tolist() == [3.0, 4.0, 5.0, 6.0]
    assert term.weight is not None
    assert term.weight.tolist() == [1.0, 1.0, 2.0, 2.0]
    part = term.rows(torch.tensor([3, 0]))
    assert part.weight is not None
    assert (part.value.tolist(), part.weight.tolist()) == ([6.0, 3.0], [2.0, 1.0])


def test_a_map_keeps_its_frames_and_positions():
    places = torch.arange(3 * 2 * 4 * 2 * 2.0).reshape(3, 2, 4, 2, 2)
    credit = Credit((Term(VALUE, map=places),))
    [term] = credit.of_prompts(slice(0, 2))
    assert term.map is not None
    assert term.map.shape == (4, 4, 2, 2)
    assert torch.equal(term.map[2], places[1, 0])
    part = term.rows(torch.tensor([2, 0])).map
    assert part is not None
    assert torch.equal(part, term.map[[2, 0]])
    assert torch.equal(credit.per_sample(), VALUE * places.mean((2, 3, 4)))


@pytest.mark.parametrize(
    ("form", "places", "problem"),
    [
        ("map", torch.ones(3, 2, 9, 8, 8), ""),
        ("map", None, "term 1 of 1: no map, expected a map of shape (3, 2, 9, 8, 8)"),
        ("map", torch.ones(3, 2, 9, 8), "term 1 of 1: a map of shape (3, 2, 9, 8), expected a map of shape"),
        ("sample", torch.ones(3, 2, 9, 8, 8), "term 1 of 1: a map of shape (3, 2, 9, 8, 8), expected no map"),
        ("map", torch.full((3, 2, 9, 8, 8), float("inf")), "term 1 of 1: 3456 values are not finite"),
    ],
)
def test_a_map_is_where_the_rule_says_that_it_gives_one(form, places, problem):
    found = Credit((Term(VALUE, map=places),)).problem(form, (3, 2), (9, 8, 8))
    assert found.startswith(problem)
    assert bool(found) is bool(problem)


def test_credit_per_sample_is_the_weighted_sum_of_its_terms():
    # (1 2 / 3 4 / 5 6) + weight (1, 0, -1) of the same: doubled, kept, gone
    credit = Credit((Term(VALUE), Term(VALUE, torch.tensor([1.0, 0.0, -1.0]))))
    assert credit.per_sample().tolist() == [[2.0, 4.0], [3.0, 4.0], [0.0, 0.0]]
    assert Credit((Term(VALUE),)).per_sample() is VALUE


def test_a_weighted_mean_by_hand():
    # (2 * 1 + .5 * 4) / 2 = 2
    assert Term(torch.zeros(2), torch.tensor([2.0, 0.5])).mean(torch.tensor([1.0, 4.0])).item() == 2.0
    assert Term(torch.zeros(2)).mean(torch.tensor([1.0, 4.0])).item() == 2.5


@pytest.mark.parametrize(
    ("terms", "problem"),
    [
        ((), "no term"),
        ((Term(VALUE[0]),), "term 1 of 1: credit of shape (2,), expected (3, 2)"),
        ((Term(VALUE), Term(VALUE, torch.ones(2))), "term 2 of 2: weights of shape (2,), expected (3,)"),
        ((Term(VALUE / torch.tensor([1.0, 0.0])),), "term 1 of 1: 3 values are not finite"),
        ((Term(VALUE, torch.tensor([1.0, float("nan"), 1.0])),), "term 1 of 1: 1 values are not finite"),
        ((Term(VALUE, torch.ones(3)),), ""),
    ],
)
def test_what_is_wrong_with_a_credit_is_said(terms, problem):
    found = Credit(terms).problem("sample", (3, 2), (9, 8, 8))
    assert found.startswith(problem)
    assert bool(found) is bool(problem)

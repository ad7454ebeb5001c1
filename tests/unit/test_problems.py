"""What a validation error says: key, sentence, kind and the value found."""

from __future__ import annotations

from typing import Self

import pytest
from pydantic import ValidationError, model_validator

from astro_cli.config.base import Config
from astro_cli.config.problems import FOUND_CHARACTERS, Problem, first_problem


class Inner(Config):
    numbers: tuple[int, ...] = ()


class Outer(Config):
    inner: Inner = Inner()
    low: int = 0

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > 9:
            raise ValueError("low: found too much, expected 9 or less")
        return self


def problem_of(fields: object) -> Problem:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(fields)
    return first_problem(caught.value)


def test_the_key_is_dotted_and_numbered():
    found = problem_of({"inner": {"numbers": [1, "x" * 200]}})
    assert (found.key, found.kind) == ("inner.numbers.1", "int_parsing")
    assert found.text.startswith("inner.numbers.1: Input should be a valid integer")
    assert (found.shown[:3], len(found.shown)) == ("'xx", FOUND_CHARACTERS)


def test_an_unknown_key_is_of_its_kind():
    found = problem_of({"lwo": 3})
    assert (found.key, found.what, found.kind, found.hint) == ("lwo", "unknown key", "extra_forbidden", "")


def test_the_hint_of_an_unknown_key_is_of_its_class():
    def hint(fields: object) -> str:
        with pytest.raises(ValidationError) as caught:
            Outer.model_validate(fields)
        return first_problem(caught.value, Outer).hint

    assert hint({"lwo": 3}) == "did you mean 'low'?"
    assert hint({"inner": {"x": 1}}) == "allowed: numbers"
    assert hint({"low": "x"}) == ""


def test_an_unknown_key_comes_before_what_it_explains():
    class Needed(Config):
        video: str

    with pytest.raises(ValidationError) as caught:
        Needed.model_validate({"vido": "a"})
    assert first_problem(caught.value, Needed)[:2] == ("vido", "unknown key")
    with pytest.raises(ValidationError) as caught:
        Needed.model_validate("a")
    assert first_problem(caught.value).what == "expected an object"


def test_what_a_validator_says_stands_as_it_is():
    found = problem_of({"low": 10})
    assert (found.key, found.text) == ("", "low: found too much, expected 9 or less")
    assert problem_of(3).key == ""

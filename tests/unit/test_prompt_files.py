"""Prompt files: sampling, training and evaluation read the same prompts of the same file, whatever wrote it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from astro_cli.config import toml
from astro_cli.config.errors import AstroError
from astro_cli.generate.plan import stories
from astro_cli.training.sources import read_prompts
from eval.human.annotations import read_rows
from eval.prompt_sets.lists import custom

BOM = "\ufeff"


def sampled(path: Path) -> list[str]:
    return [prompt for story in stories(None, path, []) for prompt in story]


def evaluated(path: Path) -> list[str]:
    return [prompt.text for prompt in custom(path).prompts]


READERS: dict[str, Callable[[Path], list[str]]] = {
    "astro sample": sampled,
    "training": read_prompts,
    "astro eval": evaluated,
}
# file name -> content, its prompts
FILES = {
    "lines.txt": ("a cat\na dog\n", ["a cat", "a dog"]),
    "no last line end.txt": ("a cat\na dog", ["a cat", "a dog"]),
    "windows.txt": (f"{BOM}a cat\r\na dog\r\n", ["a cat", "a dog"]),
    "mark.txt": (f"{BOM}a cat\n", ["a cat"]),
    "windows.jsonl": (f'{BOM}{{"prompts": ["a cat"]}}\r\n{{"prompt": "a dog"}}\r\n', ["a cat", "a dog"]),
    "table.csv": ("id,caption\n1,a cat\n2,a dog\n", ["a cat", "a dog"]),
    "windows.csv": (f'{BOM}Prompt,id\r\n"a cat, asleep",1\r\n"a ""big"" dog",2\r\n', ["a cat, asleep", 'a "big" dog']),
    "table.tsv": ("text\tseed\na cat, asleep\t3\n\t4\n", ["a cat, asleep"]),
    "PROMPTS.CSV": ("caption,prompt\nx,a cat\n", ["a cat"]),
}
SEPARATORS = {"U+2028": "\u2028", "U+2029": "\u2029", "next line": "\x85", "form feed": "\x0c", "group": "\x1d"}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", FILES)
def test_all_readers_read_the_same_prompts(name: str, reader: str, tmp_path: Path) -> None:
    content, prompts = FILES[name]
    path = tmp_path / name
    path.write_bytes(content.encode())
    assert READERS[reader](path) == prompts


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("separator", SEPARATORS)
def test_only_line_feeds_end_a_line(separator: str, reader: str, tmp_path: Path) -> None:
    mark = SEPARATORS[separator]
    path = tmp_path / "x.txt"
    path.write_text(f"a cat{mark}asleep\na dog\n", encoding="utf-8")
    found = READERS[reader](path)
    assert [prompt.replace(mark, " ") for prompt in found] == ["a cat asleep", "a dog"]
    if mark in "\x0c\x1d":
        return  # JSON has no raw control characters
    lines = tmp_path / "x.jsonl"
    lines.write_text(f'{{"prompts": ["a cat{mark}asleep"]}}\n{{"prompts": ["a dog"]}}\n', encoding="utf-8")
    found = READERS[reader](lines)
    assert [prompt.replace(mark, " ") for prompt in found] == ["a cat asleep", "a dog"]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("x.csv", "id,words\n1,a cat\n", "line 1: no column prompt, caption or text, found id, words"),
        ("x.csv", "", "no column prompt, caption or text, found nothing"),
        ("x.csv", "prompt\n\n", "no prompt in this file"),
        ("x.csv", f'prompt\n"{"a" * 200_000}"\n', "line 2: no table: field larger than field limit"),
        ("x.txt", "\n\n", "no prompt in this file"),
        ("x.csv", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "a pointer of git LFS"),
        ("x.txt", "a cat\n".encode("utf-16"), "cannot be read"),
        ("x.jsonl", '{"words": "a cat"}\n', "line 1: no prompts"),
    ],
)
def test_what_is_no_prompt_file_is_refused(
    name: str, content: str | bytes, says: str, reader: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(AstroError) as caught:
        READERS[reader](path)
    assert says in str(caught.value)
    assert caught.value.hint
    assert caught.value.exit_code == 2


def test_prompts_in_turn_are_sampled_and_not_trained_on(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"prompt": "a"}\n{"prompts": ["b", "c"]}\n')
    assert stories(None, path, []) == [["a"], ["b", "c"]]
    with pytest.raises(AstroError, match="line 2: several prompts of one video"):
        read_prompts(path)


def test_standard_input_may_begin_with_a_byte_order_mark() -> None:
    assert stories(None, None, [f"{BOM}a cat\n", f"{BOM}\n", "a dog\r\n"]) == [["a cat"], ["a dog"]]


def test_tables_of_judgements_keep_what_is_quoted(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(f'{BOM}item,note\r\na,"two\u2028parts"\r\nb,"two\nlines"\r\n'.encode())
    assert [row for _, row in read_rows(path, ("item", "note"))] == [
        {"item": "a", "note": "two\u2028parts"},
        {"item": "b", "note": "two\nlines"},
    ]


def test_recipes_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text(f'{BOM}extends = "self_forcing_shapes"\r\nname = "x"\r\n', encoding="utf-8")
    assert toml.load(str(path)).data["name"] == "x"

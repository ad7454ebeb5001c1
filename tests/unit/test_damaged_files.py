"""Every reader of a user's file against every kind of damage: an error for users, never a traceback or a wait."""

from __future__ import annotations

import json
import os
import signal
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from readers import READERS, Reader

from astro_cli.config import files
from astro_cli.config.errors import EXIT_INTEGRITY, EXIT_USAGE, AstroError, RecordError
from eval.contract import ScoreError

DEEP = 10_000
LONGEST = 2_000  # characters of a message
DIGITS = "7" * 5_000
SECONDS = 10  # a reader that takes longer waits for something
TEXTS = ("json", "jsonl", "toml", "csv", "txt", "py", "yaml")
Damage = Callable[[Path, bytes], object]


def _write(text: str | bytes) -> Damage:
    return lambda path, good: path.write_bytes(text if isinstance(text, bytes) else text.encode())


def _before(text: str) -> Damage:
    return lambda path, good: path.write_bytes(text.encode() + good)


def _value(text: str) -> Damage:
    """A JSON text in place of the good one; of JSON lines in place of the first."""
    return lambda path, good: path.write_bytes(text.encode() + (b"\n" + good if path.suffix == ".jsonl" else b""))


def _wrapped(value: str) -> Damage:
    """A JSON object with a key whose value breaks what reads it."""
    return _value(f'{{"x": {value}}}')


# Damage that leaves no file at all, or a file of bytes that are no text: for every reader.
ANY: dict[str, Damage] = {
    "missing": lambda path, good: None,
    "a folder": lambda path, good: path.mkdir(),
    "a pipe": lambda path, good: os.mkfifo(path),
    "/dev/zero": lambda path, good: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path, good: path.symlink_to(path),
    "empty": _write(b""),
    "a terabyte": lambda path, good: (path.touch(), os.truncate(path, 2**40)),
    "not UTF-8": lambda path, good: path.write_bytes(b"\xff\xfe" + good),
    "zeros": _write(bytes(200)),
}
STRUCTURED: dict[str, Damage] = {"half of it": lambda path, good: path.write_bytes(good[: len(good) * 7 // 10])}
JSON: dict[str, Damage] = {
    **{f"top level {value}": _value(value) for value in ("[]", "null", '"text"', "7", "true", "[[]]", "{}")},
    "nested lists": _value("[" * DEEP + "]" * DEEP),
    "nested objects": _value('{"a":' * DEEP + "1" + "}" * DEEP),
    "deep but parsed": _wrapped("[" * 500 + "]" * 500),
    "5,000 digits": _wrapped(DIGITS),
    "400 digits": _wrapped(DIGITS[:400]),
    "NaN": _wrapped("NaN"),
    "Infinity": _wrapped("-Infinity"),
    "overflow": _wrapped("1e999"),
    "half a surrogate": _wrapped('"\\ud800"'),
}
TOML: dict[str, Damage] = {
    "nested arrays": _before("x = " + "[" * DEEP + "]" * DEEP + "\n"),
    "nested tables": _before("x = " + "{a=" * DEEP + "1" + "}" * DEEP + "\n"),
    "dotted key": _before(".".join("a" * 2_000) + " = 1\n"),
    "5,000 digits": _before(f"x = {DIGITS}\n"),
    "infinite": _before("x = inf\n"),
    "nan": _before("x = nan\n"),
    "a date": _before("x = 0001-01-01T00:00:00+14:00\n"),
    "extends itself": _write('extends = "mine"\n'),
    "extends a list": _write("extends = [1]\n"),
}
CSV: dict[str, Damage] = {
    "a field of 200,000": lambda path, good: path.write_bytes(good + b"x" * 200_000 + b",1,2,3\n"),
    "a zero byte": lambda path, good: path.write_bytes(good + b"a\0,b,c,d\n"),
    "an open quote": lambda path, good: path.write_bytes(good + b'"a,b\n' * 3),
    "5,000 digits": lambda path, good: path.write_bytes(good + f"1,x,y,{DIGITS}\n".encode()),
}
YAML: dict[str, Damage] = {"nested": _write("a: " + "[" * 2_000), "list": _write("- 1\n"), "words": _write("a: b\n")}


def _header(header: Any, body: bytes = b"") -> Damage:
    """A safetensors file with this header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return _write(struct.pack("<Q", len(text)) + text + body)


SAFETENSORS: dict[str, Damage] = {
    "header nested": _header(b"[" * DEEP),
    "header too long": _write(struct.pack("<Q", 2**62) + b"{}"),
    "huge shape": _header({"a": {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 4]}}, b"0000"),
    "shape that overflows": _header({"a": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 0]}}),
    "negative shape": _header({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"0000"),
    "offsets outside": _header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [96, 100]}}, b"0000"),
    "unknown dtype": _header({"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}, b"0000"),
}


def _bomb(path: Path, good: bytes) -> None:
    """A torch.save file whose tensors are packed zeros."""
    path.write_bytes(good)
    with zipfile.ZipFile(path) as archive:
        parts = {part.filename: archive.read(part) for part in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, bytes(2**27) if "/data/" in name else data)


def _spread(path: Path, good: bytes) -> None:
    """A tensor that repeats one stored value a trillion times."""
    import torch

    torch.save({"a": torch.zeros(1).expand(10**6, 10**6)}, path)


def _disks(path: Path, good: bytes) -> None:
    """An archive that says it is the second of two."""
    end = good.rfind(b"PK\x05\x06")
    path.write_bytes(good[:end] + b"PK\x06\x07" + struct.pack("<IQI", 1, 0, 2) + good[end:])


PICKLES: dict[str, Damage] = STRUCTURED | {"packed": _bomb, "one value spread": _spread, "several disks": _disks}
BY_KIND = {
    "json": STRUCTURED | JSON, "jsonl": STRUCTURED | JSON, "toml": STRUCTURED | TOML, "csv": CSV, "yaml": YAML,
    "safetensors": STRUCTURED | SAFETENSORS, "pt": PICKLES, "npy": STRUCTURED,
}  # fmt: skip
# What is no damage to a reader: a file it can do without, or that says nothing; a last line that a killed process left.
ABSENT, TORN = {"missing", "a link to itself"}, {"empty", "zeros", "half of it"}
TOPS = {damage for damage in JSON if damage.startswith("top level")}
TAKEN = {
    "card of a student": ABSENT, "run's identity": ABSENT, "import that is there": ABSENT,
    "reward's settings": {"top level {}"},
    "release's manifest": ABSENT | {"top level {}"},
    "import's adapters": ABSENT | {"top level {}"},
    "adapter's config": ABSENT | {"top level {}"},
    "official list": ABSENT | {"top level []"},
    "records": TORN,
    "scores of videos": ABSENT | TORN,
    "metrics": TORN | {"top level {}"},
    "metrics of a run": {"half of it"},
    "seconds of a grid": ABSENT | TORN | TOPS,
    "videos": {"empty"},
    "merged recipe": {"empty", "half of it", "a date"},
    "table of prompts": {"5,000 digits", "an open quote"},
}  # fmt: skip


@contextmanager
def in_time() -> Iterator[None]:
    """A TimeoutError where the block waits."""

    def late(*_: object) -> None:
        raise TimeoutError(f"no answer in {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # of the remembered hashes
    monkeypatch.setenv("ASTRO_CHECKPOINTS", str(tmp_path / "none"))
    made = tmp_path / "astro"
    made.mkdir()
    monkeypatch.chdir(made)
    return made


def read(reader: Reader, path: Path) -> AstroError | None:
    """The error of a reader; any other exception, or a wait, fails the test."""
    reader.beside(path)
    return read_again(reader, path)


def read_again(reader: Reader, path: Path) -> AstroError | None:
    """As `read`, with the files beside it there already."""
    try:
        with in_time():
            reader.read(path)
    except AstroError as error:
        return error
    return None


@pytest.mark.parametrize("reader", READERS, ids=[reader.name for reader in READERS])
def test_a_whole_file_is_read(reader: Reader, folder: Path) -> None:
    path = folder / reader.file
    path.write_bytes(reader.good)
    assert read(reader, path) is None
    if reader.kind in TEXTS and reader.name != "tokenizer":  # which a library reads
        path.write_bytes(b"\xef\xbb\xbf" + reader.good)
        assert read(reader, path) is None, "a byte order mark is no text"


@pytest.mark.parametrize("reader", READERS, ids=[reader.name for reader in READERS])
def test_a_damaged_file_is_refused(reader: Reader, folder: Path) -> None:
    taken = []
    for number, (damage, make) in enumerate((ANY | BY_KIND.get(reader.kind, {})).items()):
        path = folder / str(number) / reader.file
        path.parent.mkdir()
        make(path, reader.good)
        try:
            error = read(reader, path)
        except Exception as bug:
            raise AssertionError(f"{damage}: {type(bug).__name__}: {bug}") from bug
        if error is None:
            taken.append(damage)
        else:
            assert error.exit_code in (EXIT_USAGE, EXIT_INTEGRITY) or isinstance(error, ScoreError), damage
            assert len(str(error)) < LONGEST, damage
    everything = (ANY | BY_KIND.get(reader.kind, {})).keys()
    assert set(taken) == (everything if reader.passes else TAKEN.get(reader.name, set()))


# --- values of other kinds

OTHERS: tuple[Any, ...] = (None, "2", [1], {}, -1, 2**63, "\x1b[2J")


def _changed(value: Any) -> Iterator[tuple[str, Any]]:
    """Every document with one value replaced or left out, and where."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield f"{key} left out", {name: other for name, other in value.items() if name != key}
            for place, new in _changed(inner):
                yield f"{key}.{place}", value | {key: new}
    if isinstance(value, list):
        for index, inner in enumerate(value[:2]):
            for place, new in _changed(inner):
                yield f"[{index}].{place}", [*value[:index], new, *value[index + 1 :]]
    for other in OTHERS:
        if other != value or type(other) is not type(value):
            yield f"is {other!r}", other


@pytest.mark.parametrize("reader", [r for r in READERS if r.kind in ("json", "jsonl")], ids=lambda reader: reader.name)
def test_values_of_other_kinds_are_no_traceback(reader: Reader, folder: Path) -> None:
    path = folder / reader.file
    whole = json.loads(reader.good.splitlines()[0])
    reader.beside(path)
    for place, document in _changed(whole):
        lines = 2 if reader.kind == "jsonl" else 1
        path.write_text(f"{json.dumps(document)}\n" * lines)
        try:
            error = read_again(reader, path)
        except Exception as bug:
            raise AssertionError(f"{place}: {type(bug).__name__}: {bug}") from bug
        if error is not None:
            assert str(error).isprintable() or "\x1b" not in str(error)


# --- values that are of the right kind, and cannot be

RECORDS = next(reader for reader in READERS if reader.name == "records")
METRICS = next(reader for reader in READERS if reader.name == "metrics of a run")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"created": "0001-01-01T00:00:00+14:00"}, "created: 0001-01-01T00:00:00+14:00 is no date of the calendar"),
        ({"created": "9999-12-31T23:59:59-14:00"}, "is no date of the calendar in UTC"),
        ({"created": "2026-13-01T00:00:00+00:00"}, "created"),
        ({"created": 7}, "created"),
        ({"scores": ["1"]}, "scores.0: Input should be a valid number, found '1'"),
        ({"scores": [True]}, "scores.0"),
        ({"scores": [1e308]}, "found 1e+308, expected at most 1e+30"),
        ({"scores": [-1e31, 0.5]}, "found -1e+31"),
        ({"seed": 2**63 * 4}, "found an integer of 66 bits"),
        ({"seed": "0"}, "seed: Input should be a valid integer"),
        ({"dirty": "no"}, "dirty"),
        ({"benchmark": "../x"}, "benchmark"),
        ({"protocol": {"versions": [1]}}, "versions: found '[1]', expected dict"),
        ({"protocol": {"limit": "5"}}, "limit: found '5', expected int"),
    ],
    ids=str,
)
def test_values_of_a_record_that_cannot_be(change: dict[str, Any], says: str, folder: Path) -> None:
    path = folder / RECORDS.file
    first, second = RECORDS.good.splitlines()
    path.write_bytes(json.dumps(json.loads(first) | change).encode() + b"\n" + second + b"\n")
    error = read(RECORDS, path)
    assert error is not None
    assert "line 1" in str(error)
    assert says in str(error)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"stage": "other"}, "line 1: stage: found 'other', the recipe has nft"),
        ({"stage": None}, "line 1: stage: found 'None'"),
        ({"stage": ["nft"]}, "line 1: stage"),
        ({"step": -1}, "line 1: step: found '-1', expected a whole number from 0 to"),
        ({"step": 10**9}, "line 1: step: found '1000000000'"),
        ({"step": "0"}, "line 1: step"),
        ({"step": True}, "line 1: step"),
    ],
    ids=str,
)
def test_rows_of_another_recipe(change: dict[str, Any], says: str, folder: Path) -> None:
    path = folder / METRICS.file
    path.write_text(json.dumps(json.loads(METRICS.good.splitlines()[0]) | change) + "\n")
    error = read(METRICS, path)
    assert error is not None
    assert says in str(error)


def test_a_stage_cannot_name_a_file_outside_of_the_report(folder: Path) -> None:
    recipe = {"name": "a", "seed": 0, "backbone": "shapes", "order": ["../x"], "stages": {"../x": {"steps": 1}}}
    path = folder / "resolved.json"
    path.write_text(json.dumps({"hash": "h", "recipe": recipe}))
    reader = next(reader for reader in READERS if reader.name == "training's recipe")
    error = read(reader, path)
    assert error is not None
    assert "String should match pattern" in str(error)


@pytest.mark.parametrize(("levels", "is_read"), [(64, True), (65, False)])
def test_the_deepest_nesting_that_is_read(levels: int, is_read: bool, tmp_path: Path) -> None:
    path = tmp_path / "deep.json"
    path.write_text("[" * levels + "]" * levels)
    if is_read:
        assert files.Reader(RecordError).json(path)
    else:
        with pytest.raises(RecordError, match="nested too deeply, expected at most 64 levels"):
            files.Reader(RecordError).json(path)

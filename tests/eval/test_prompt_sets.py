"""Prompt sets: the real lists where they are here, small files in the same formats, and every way a file can be
wrong.
"""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from eval.contract import Segment
from eval.prompt_sets import Prompt, PromptSet, PromptSetError, prompt_set, text_id
from eval.prompt_sets import vbench as vbench_files

DATA = Path(__file__).parents[2].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")
needs_vbench = pytest.mark.skipif(
    vbench_files.importlib.util.find_spec("vbench") is None, reason="the vbench package is not installed"
)


@pytest.fixture
def lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty prompts folder."""
    folder = tmp_path / "lists"
    folder.mkdir()
    monkeypatch.setenv("ASTRO_PROMPTS", str(folder))
    return folder


@pytest.fixture
def real_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASTRO_PROMPTS", str(DATA))


# --- the real lists


@needs_vbench
def test_vbench_has_946_entries_of_944_texts() -> None:
    found = prompt_set("vbench")
    assert (len(found.prompts), len({prompt.text for prompt in found.prompts})) == (946, 944)
    assert (found.prompts[0].id, found.prompts[0].text) == ("vbench-0000", "In a still frame, a stop sign")
    assert found.version == "vbench 0.1.5"
    assert found.hash == prompt_set("vbench").hash


@needs_vbench
def test_vbench_labels_and_twins() -> None:
    found = prompt_set("vbench")
    style, overall = found.find("The bund Shanghai, oil painting")
    assert style.labels["dimension"] == ["appearance_style"]
    assert style.labels["auxiliary_info"] == {"appearance_style": {"appearance_style": "oil painting"}}
    assert overall.labels == {"dimension": ["overall_consistency", "aesthetic_quality", "imaging_quality"]}
    assert len(found.of_dimensions(("color",))) == 85
    assert len(found.of_dimensions(("overall_consistency", "aesthetic_quality"))) == 93  # one suite
    assert len(found.of_dimensions(())) == 946


@needs_vbench
def test_vbench_text_in_any_unicode_form_and_case() -> None:
    found = prompt_set("vbench")
    cedilla = next(prompt for prompt in found.prompts if not prompt.text.isascii())
    assert found.find(unicodedata.normalize("NFD", cedilla.text)) == (cedilla,)
    assert found.find("A FANTASY LANDSCAPE") == ()
    assert found.find_other_case("A FANTASY LANDSCAPE") == ()  # two prompts differ in case only
    assert [prompt.id for prompt in found.find("a fantasy landscape")] != [
        prompt.id for prompt in found.find("A fantasy landscape")
    ]
    assert found.find_other_case("the BUND Shanghai, oil painting") == found.find("The bund Shanghai, oil painting")


@needs_vbench
@needs_data
def test_extended_prompts_keep_ids_and_names(real_lists: None) -> None:
    plain, extended = prompt_set("vbench"), prompt_set("vbench-extended")
    assert [(prompt.id, prompt.text) for prompt in plain.prompts] == [
        (prompt.id, prompt.text) for prompt in extended.prompts
    ]
    assert extended.prompts[1].source.startswith("A frozen moment in time")
    assert extended.find(extended.prompts[1].source) == (extended.prompts[1],)
    assert plain.hash != extended.hash  # tables do not mix them


@needs_data
def test_image_prompts(real_lists: None) -> None:
    found = prompt_set("vbench-i2v")
    assert len(found.prompts) == 1118
    assert len(found.of_dimensions(("camera_motion",))) == 763
    assert found.prompts[0].labels["image_name"] == "a close up of a blue and orange liquid.jpg"


@needs_data
def test_moviegen(real_lists: None) -> None:
    first, hundred, whole = prompt_set("moviegen"), prompt_set("moviegen-100"), prompt_set("moviegen-all")
    assert [len(found.prompts) for found in (first, hundred, whole)] == [128, 100, 1003]
    assert first.prompts[:100] == hundred.prompts
    assert len({first.hash, hundred.hash, whole.hash}) == 3
    with pytest.raises(PromptSetError, match="1003 prompts"):
        prompt_set("moviegen-1004")
    with pytest.raises(PromptSetError, match="1003 prompts"):
        prompt_set("moviegen-0")


@needs_data
def test_interactive_scripts(real_lists: None) -> None:
    found = prompt_set("interactive")
    assert len(found.prompts) == 100
    assert {len(prompt.segments) for prompt in found.prompts} == {6}
    first = found.prompts[0]
    assert (first.text, first.segments[-1].end) == (first.segments[0].prompt, 60.0)


# --- small files


def test_text_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes("\ufeffa cat\r\na dog\u2028that runs\n\n".encode())
    found = prompt_set(path)
    assert [(prompt.id, prompt.text) for prompt in found.prompts] == [
        ("mine-0000", "a cat"),
        ("mine-0001", "a dog\u2028that runs"),
    ]
    assert found.name == "mine"


def test_hash_is_of_ids_and_texts(tmp_path: Path) -> None:
    def hash_of(*prompts: Prompt) -> str:
        return PromptSet("x", "1", prompts).hash

    base = hash_of(Prompt("a", "one"), Prompt("b", "two"))
    assert base == hash_of(Prompt("a", "one", {"dimension": ["color"]}), Prompt("b", "two"))
    assert base == PromptSet("other", "2", (Prompt("a", "one"), Prompt("b", "two"))).hash
    others = {
        hash_of(Prompt("a", "one")),
        hash_of(Prompt("b", "two"), Prompt("a", "one")),
        hash_of(Prompt("a", "one."), Prompt("b", "two")),
        hash_of(Prompt("a", "one", source="long"), Prompt("b", "two")),
        hash_of(Prompt("a", "one", segments=(Segment(0, 10, "one"), Segment(10, 20, "three"))), Prompt("b", "two")),
    }
    assert len(others | {base}) == 6


def test_text_ids_are_equal_for_equal_texts() -> None:
    assert text_id(" caf\u00e9") == text_id("cafe\u0301")
    assert text_id("a") != text_id("A")


def test_both_script_formats_give_the_same(lists: Path) -> None:
    (lists / "interactive_benchmark.txt").write_text(
        "a cat sits [10s] | a cat runs [2.5s]\na dog [10s] | a dog barks [10s]\n"
    )
    found = prompt_set("interactive")
    assert found.prompts[0].segments == (Segment(0, 10, "a cat sits"), Segment(10, 12.5, "a cat runs"))
    rows = [{"prompts": ["a cat sits", "a cat runs"]}, {"prompts": ["a dog", "a dog barks"]}]
    (lists / "interactive_benchmark.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    again = prompt_set("interactive")  # MemFlow's is looked for first
    assert again.prompts[0].segments == (Segment(0, 10, "a cat sits"), Segment(10, 20, "a cat runs"))
    assert again.prompts[1] == found.prompts[1]


def test_own_scripts_are_scripts(tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_text("a [4s] | b [4s]\n")
    assert prompt_set(tmp_path / "s.txt").prompts[0].segments == (Segment(0, 4, "a"), Segment(4, 8, "b"))
    (tmp_path / "one.jsonl").write_text('{"prompts": ["alone"]}\n')
    assert prompt_set(tmp_path / "one.jsonl").prompts[0] == Prompt("one-0000", "alone")
    (tmp_path / "plain.txt").write_text("a [4s] | b\n")
    assert prompt_set(tmp_path / "plain.txt").prompts[0].text == "a [4s] | b"


def test_lists_are_found_one_folder_down(lists: Path) -> None:
    (lists / "prompts").mkdir()
    (lists / "prompts" / "MovieGenVideoBench.txt").write_text("a\nb\n")
    assert [prompt.text for prompt in prompt_set("moviegen-2").prompts] == ["a", "b"]


# --- wrong


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("moviegen", "MovieGenVideoBench.txt"),
        ("interactive", "memflow_interactive_benchmark.jsonl"),
        ("vbench-i2v", "vbench2_i2v_full_info.json"),
    ],
)
def test_missing_lists_say_where_to_put_them(name: str, file: str, lists: Path) -> None:
    with pytest.raises(PromptSetError, match="not here") as caught:
        prompt_set(name)
    assert file in caught.value.hint
    assert str(lists) in caught.value.hint
    assert "ASTRO_PROMPTS" in caught.value.hint


def test_vbench_without_the_package(lists: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vbench_files.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PromptSetError, match="not here") as caught:
        prompt_set("vbench")
    assert "make setup" in caught.value.hint
    (lists / "VBench_full_info.json").write_text(json.dumps([{"prompt_en": "a cat", "dimension": ["color"]}]))
    assert prompt_set("vbench").prompts == (Prompt("vbench-0000", "a cat", {"dimension": ["color"]}),)


@needs_vbench
def test_extended_list_of_another_length(lists: Path) -> None:
    (lists / "all_dimension_extended.txt").write_text("one\ntwo\n")
    with pytest.raises(PromptSetError, match="2 lines, expected 946"):
        prompt_set("vbench-extended")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "JSON"),
        ("[]", "no prompt"),
        ("{}", "list"),
        ('[{"prompt_en": "a"}]', "missing"),
        ('[{"prompt_en": 3, "dimension": []}]', "string"),
    ],
)
def test_wrong_vbench_json(text: str, reason: str, lists: Path) -> None:
    (lists / "vbench2_i2v_full_info.json").write_text(text)
    with pytest.raises(PromptSetError, match=reason) as caught:
        prompt_set("vbench-i2v")
    assert "vbench2_i2v_full_info.json" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.txt", b"", "no prompt in this file"),
        ("a.txt", b"one\n\nthree\n", "line 2: empty line"),
        ("a.txt", b"\xff\xfe\x00", "cannot be read"),
        ("a.jsonl", b"{", "line 1: not JSON"),
        pytest.param("a.jsonl", b"[" * 100_000, "line 1: nested too deeply", id="nested"),
        ("a.jsonl", b'{"prompts": []}', "line 1: no prompts"),
        ("a.jsonl", b'{"prompts": ["a", " "]}', "line 1: no prompts"),
        ("a.jsonl", b'["a"]', "line 1: no prompts"),
        ("a.txt", b"a [0s] | b [10s]\n", "line 1: a part without prompt or time"),
    ],
)
def test_wrong_files(name: str, content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PromptSetError, match=reason) as caught:
        prompt_set(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_unknown_names_are_named_with_the_nearest() -> None:
    with pytest.raises(PromptSetError, match="neither a prompt set nor a file") as caught:
        prompt_set("vbnch")
    assert caught.value.hint == "did you mean 'vbench'?"

"""The page of the Python API is what the code says, its examples are Python, and the notebook runs."""

from __future__ import annotations

import ast
import inspect
import json
import runpy

import pytest

import astro_cli
from astro_cli import api
from tests.docs.pages import ROOT, blocks

script = runpy.run_path(str(ROOT / "scripts" / "write_api_page.py"))
PAGE = ROOT / "docs" / "api.md"
NOTEBOOK = ROOT / "docs" / "first_steps.ipynb"


def test_the_page_is_fresh() -> None:
    assert PAGE.read_text(encoding="utf-8") == script["page"](), "run python scripts/write_api_page.py"


@pytest.mark.parametrize("name", astro_cli.__all__)
def test_each_function_is_on_the_page_with_its_arguments(name: str) -> None:
    shown = [ast.parse(block.text).body[0] for block in blocks(PAGE) if block.text.startswith(f"def {name}(")]
    (definition,) = shown
    assert isinstance(definition, ast.FunctionDef)
    arguments = [*definition.args.args, *definition.args.kwonlyargs]
    parameters = inspect.signature(getattr(api, name)).parameters
    assert [argument.arg for argument in arguments] == list(parameters)
    text = inspect.getdoc(getattr(api, name)) or ""
    assert [key for key in parameters if f"{key}:" not in text and f"{key}," not in text] == []


def test_examples_are_python() -> None:
    for block in blocks(PAGE):
        ast.parse(block.text)


def cells() -> list[dict]:
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


def test_the_notebook_is_small_and_was_run() -> None:
    assert NOTEBOOK.stat().st_size < 100_000
    code = [cell for cell in cells() if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    kinds = {output["output_type"] for cell in code for output in cell["outputs"]}
    assert "error" not in kinds
    assert {"execute_result", "stream"} <= kinds


@pytest.mark.slow
def test_the_notebook_runs(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    for cell in cells():
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), NOTEBOOK.name, "exec"), names)
    assert names["video"].shape[1:] == (32, 32, 3)  # type: ignore[attr-defined]
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["vq", "mq", "ta"]

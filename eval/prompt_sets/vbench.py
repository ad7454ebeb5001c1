"""The prompt sets of VBench and VBench-I2V, read from their own JSON files."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from astro_cli.config.problems import first_problem
from eval.prompt_sets.base import Prompt, PromptSet, PromptSetError, numbered
from eval.prompt_sets.list_files import find_list, locate_list, read_lines, read_text

FULL_INFO = "VBench_full_info.json"
I2V_INFO = "vbench2_i2v_full_info.json"
EXTENDED = ("vbench_all_dimension_extended.txt", "all_dimension_extended.txt")


class _Row(BaseModel):
    """An entry of VBench's JSON; what is not named here is not kept."""

    prompt_en: str
    dimension: list[str]
    auxiliary_info: dict[str, Any] | None = None
    image_type: str | None = None
    image_name: str | None = None

    def labels(self) -> dict[str, Any]:
        return self.model_dump(exclude={"prompt_en"}, exclude_none=True)


def vbench() -> PromptSet:
    """VBench's 946 entries (944 texts; two occur twice, for different dimensions), from the installed `vbench` package.

    Raises:
        PromptSetError: neither the package nor its JSON is here, or the JSON is another one.
    """
    path, version = _full_info()
    return PromptSet("vbench", version, _prompts("vbench", path))


def vbench_extended() -> PromptSet:
    """VBench with the extended prompts that Self-Forcing and Reward Forcing generate from: line i stands for entry i.

    Names and scores go by the original text, as the official evaluation has it; human_action and every look-up fail
    otherwise.

    Raises:
        PromptSetError: a list is not here, or they do not have as many lines.
    """
    plain = vbench()
    path = locate_list("vbench-extended", *EXTENDED, origin="prompts/vbench of Self-Forcing's repository")
    lines = read_lines(path)
    if len(lines) != len(plain.prompts):
        raise PromptSetError(
            path, "", f"{len(lines)} lines, expected {len(plain.prompts)}: one for each entry of {plain.version}"
        )
    rows = zip(plain.prompts, lines, strict=True)
    prompts = tuple(Prompt(prompt.id, prompt.text, prompt.labels, source=line) for prompt, line in rows)
    return PromptSet("vbench-extended", f"{plain.version}, {path.name}", prompts)


def vbench_i2v() -> PromptSet:
    """VBench-I2V's 1,118 entries, with the image each begins from.

    Raises:
        PromptSetError: its JSON, which no package holds, is not here, or is another one.
    """
    path = locate_list("vbench-i2v", I2V_INFO, origin="vbench2_beta_i2v of VBench's repository")
    return PromptSet("vbench-i2v", path.name, _prompts("vbench-i2v", path))


def _full_info() -> tuple[Path, str]:
    """VBench's JSON and which version it is of."""
    spec = importlib.util.find_spec("vbench")
    if spec is not None and spec.origin is not None and (path := Path(spec.origin).with_name(FULL_INFO)).is_file():
        return path, f"vbench {importlib.metadata.version('vbench')}"
    path = find_list(FULL_INFO) or locate_list(
        "vbench", FULL_INFO, origin="the vbench package, which `make setup` installs"
    )
    return path, path.name


def _prompts(name: str, path: Path) -> tuple[Prompt, ...]:
    try:
        rows = TypeAdapter(list[_Row]).validate_json(read_text(path))
    except ValidationError as error:
        wrong = first_problem(error)
        raise PromptSetError(
            path, wrong.key, wrong.what, hint="expected a list of entries with prompt_en and dimension"
        ) from error
    if not rows:
        raise PromptSetError(path, "", "no prompt in this file")
    return tuple(Prompt(numbered(name, line), row.prompt_en.strip(), row.labels()) for line, row in enumerate(rows))

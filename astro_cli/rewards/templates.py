"""The instructions reward models were trained with, word for word. HPSv3's is a data file, VideoAlign's is read from
its release.

Sources: HPSv3 (arXiv 2508.03789), package hpsv3 1.0.0, MIT (`templates/hpsv3.LICENSE`); VideoAlign (arXiv 2501.13918),
`prompt_template.py`.
"""

from __future__ import annotations

import ast
from pathlib import Path

from astro_cli.config.errors import CheckpointError, PromptError
from astro_cli.config.files import Reader

FOLDER = Path(__file__).parent / "templates"
BLANK = "{text_prompt}"
HPSV3_TOKENS = ("<|Reward|>",)
VIDEOALIGN_TOKENS = ("<|VQ_reward|>", "<|MQ_reward|>", "<|TA_reward|>")  # in the order of the instruction
VIDEOALIGN_NAME = "DETAILED_PROMPT_WITH_SPECIAL_TOKEN"  # template type "detailed_special"
MARK = "<|"  # every special token of Qwen2-VL and of the reward models opens with it


def hpsv3_template() -> str:
    """HPSv3's instruction with its reward token."""
    return (FOLDER / "hpsv3.txt").read_text(encoding="utf-8")


def videoalign_template(path: Path) -> str:
    """VideoAlign's instruction from its own `prompt_template.py`, read as text: a string constant, nothing runs.

    Raises:
        CheckpointError: unreadable, no such constant in it, or not the three reward tokens in order.
    """
    reader = Reader(CheckpointError, what="no readable template", hint="copy the file of the VideoAlign repository")
    text = reader.text(path)
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # the last two: nested too deeply
        reader.fail(path, str(error) or "nested too deeply", error)
    constants = {
        name.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for name in node.targets
        if isinstance(name, ast.Name)
    }
    value = constants.get(VIDEOALIGN_NAME)
    if not (isinstance(value, ast.Constant) and isinstance(value.value, str)):
        raise CheckpointError(path, VIDEOALIGN_NAME, f"missing, found {', '.join(constants) or 'no assignment'}")
    check_template(value.value, VIDEOALIGN_TOKENS, path)
    return value.value


def check_template(template: str, tokens: tuple[str, ...], where: Path) -> None:
    """Raises: CheckpointError: not one blank for the prompt, or not every reward token once and in order."""
    places = [template.find(token) for token in tokens]
    if template.count(BLANK) != 1 or places != sorted(places) or any(template.count(token) != 1 for token in tokens):
        raise CheckpointError(
            where, "", f"not the template: expected one {BLANK} and, once each and in this order, {', '.join(tokens)}"
        )


def fill(template: str, prompt: str) -> str:
    """The instruction for a prompt.

    Raises:
        PromptError: the prompt holds a special token, which would be pooled or seen as a picture.
    """
    if MARK in prompt:
        token = prompt[prompt.index(MARK) :].split()[0]
        raise PromptError(prompt, token, f"holds a special token's text, expected none ({MARK}...|>)")
    return template.replace(BLANK, prompt)

"""Commands of the documentation and of help texts, and the rules by which a test runs them. A helper of tests."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any, NamedTuple

import click
import typer.main

from astro_cli.__main__ import app
from tests.docs.pages import ROOT, blocks, pages

SHELLS = ("", "sh", "bash", "console")  # languages of blocks that a reader types
EXAMPLE = "Example:"


class Command(NamedTuple):
    """A command line and where it stands: a page and its line, or the command whose help has it as its example."""

    place: str
    text: str

    @property
    def words(self) -> list[str]:
        """What a shell makes of it, without its comment."""
        return shlex.split(self.text, comments=True)


class Rule(NamedTuple):
    """How a test runs the commands that a pattern finds, where that is not as they stand.

    Attributes:
        pattern: searched in the command.
        reason: why it is not run as it stands, or why it does not end with 0.
        replace: (pattern, text) pairs that shorten it.
        append: further arguments.
        code: how it ends; 2 and 3 where weights are missing.
        says: searched in what it prints.
        typed: standard input.
        slow: over some seconds of one core; run by `make test-all`.
    """

    pattern: str
    reason: str
    replace: tuple[tuple[str, str], ...] = ()
    append: str = ""
    code: int = 0
    says: str = ""
    typed: str = ""
    slow: bool = False


TRAINING = "training takes minutes to hours: the recipe is read, checked and planned"
NO_WEIGHTS = "weights of released models are never on a test's machine: the command says what is missing"
NOT_READY = (
    *("aesthetic", "clip", "drift", "flow", "hpsv3", "hpsv3-long", "long-clip", "qwen-embedding", "qwen-judge"),
    *("structural-stability", "vbench", "videoalign", "videoalign-long", "videoalign-stitched", "videoclip-xl"),
)
PARTLY_READY = ("vbench-long-custom",)  # their other dimensions are scored
RULES = (
    Rule(
        r"^astro rl --recipe astrolabe_self_forcing --set",
        NO_WEIGHTS,
        code=2,
        says=r"\[ \] reward vq: HPSv3\n.*\n +hf download MizzenAI/HPSv3",
    ),
    Rule(r"^astro (pretrain|distill|rl|long-tune|sft|prefer) .*--dry-run", "as it stands", says="expected memory"),
    Rule(r"^astro (pretrain|distill|rl|long-tune|sft|prefer) ", TRAINING, append="--dry-run", says="expected memory"),
    Rule(r"^astro ablate ", TRAINING, append="--dry-run", says="runs"),
    Rule(
        r"^astro reproduce astrolabe --seeds",
        "hours: the plan of its first grid, with the same seeds",
        replace=((r"^astro reproduce astrolabe", "astro ablate astrolabe-bases"),),
        append="--dry-run",
        says="astrolabe_self_forcing_shapes",
    ),
    Rule(
        r"^astro reproduce (astrolabe|reward-forcing|delta-forcing) --quick",
        "ten minutes: a step of training instead of 60",
        append="--steps 1",
        says="index.html",
        slow=True,
    ),
    Rule(
        r"^astro sample .*--weights runs/astrolabe_self_forcing-seed0",
        "it follows a training run on Wan 2.1, which needs its weights",
        code=2,
        says="runs/astrolabe_self_forcing-seed0: no such checkpoint",
    ),
    Rule(r"^astro sample .*(self_forcing|Wan)", NO_WEIGHTS, code=2, says=r"\[ \] .*\n.*\n +hf download "),
    Rule(
        r"^astro sample .*--switch",
        "seconds instead of half a minute",
        replace=(("4s:", "1s:"), ("--seconds 8", "--seconds 2")),
        says=r"samples/.*\.mp4: 21 frames",
    ),
    Rule(r"^astro sample .*--image", "a user has a picture", code=2, says="first.png: cannot be read: No such file"),
    Rule(
        r"^astro sample .*--interactive",
        "a user would type, and end it",
        append="--frames 9",
        typed="a small blue square moves left fast\n",
        says=r"samples/.*\.mp4: 9 frames",
    ),
    Rule(
        r"^astro sample .*--seconds",
        "seconds instead of half a minute",
        replace=((r"--seconds \d+", "--seconds 1"),),
        says=r"samples/.*\.mp4: 9 frames",
    ),
    Rule(
        r"^astro bench sample .*--graphs",
        f"a GPU first, and then: {NO_WEIGHTS}",
        code=2,
        says=r"expected a CUDA GPU|\[ \] .*\n.*\n +hf download ",
    ),
    Rule(r"^astro zoo (import|verify) self_forcing", NO_WEIGHTS, code=2, says="gdhe17/Self-Forcing"),
    Rule(r"^astro eval shapes ", "two prompts instead of 256, and no timing", append="--prompts 2 --timing none"),
    Rule(
        r"^astro eval shapes-(long|multi|interactive|i2v-long) ",
        "one prompt and one seed instead of dozens",
        replace=((r"--seeds \S+", "--seeds 0"),),
        append="--prompts 1 --timing none",
        slow=True,
    ),
    Rule(r"^astro eval shapes-i2v ", "a prompt instead of eight, and no timing", append="--prompts 1 --timing none"),
    Rule(
        r"^astro eval shapes-camera ",
        "no packaged base has a camera",
        code=2,
        says="video.camera: found false, shapes-camera scores models with a camera",
    ),
    Rule(
        r"^astro bench decoder runs/",
        "it follows a training run of some minutes",
        code=2,
        says="light_decoder_shapes-seed0: --decoder: no such file",
    ),
    Rule(rf"^astro eval ({'|'.join(NOT_READY)}) samples", NO_WEIGHTS, code=2, says=r"not ready, .*:\n +\[ \] "),
    Rule(
        r"^astro eval vbench-i2v samples",
        "its prompt list may not be shipped",
        code=2,
        says="vbench-i2v: this prompt list is not here",
    ),
    Rule(
        r"^astro eval vbench-long samples",
        "videos of the prompts of VBench are expected, the samples here are of the embedded world",
        code=2,
        says="its prompt is not one of vbench",
    ),
    Rule(
        r"^astro eval ingest results_eval_results.json",
        "VBench's own tool leaves the file",
        code=2,
        says="results_eval_results.json: cannot be read: No such file",
    ),
    Rule(rf"^astro eval ({'|'.join(PARTLY_READY)}) ", NO_WEIGHTS, code=3, says="not run: .* needs weights"),
    Rule(r"^astro plan rewards ", "starts a process for each reward", slow=True, says='"answer": '),
    Rule(r"^astro doctor world ", "seconds instead of a minute", append="--clips 2 --prompts 1"),
    Rule(r"^astro report .*--arm", "clips of every arm take some seconds", slow=True),
    Rule(r"^astro figures ", "contact sheets take a minute per base", append="--no-sheets"),
)


def rule_of(command: Command) -> Rule:
    """The first rule that finds it; as it stands where none does."""
    return next((rule for rule in RULES if re.search(rule.pattern, command.text)), Rule("", "as it stands"))


def arguments(command: Command, rule: Rule) -> list[str]:
    """What follows `astro`, shortened by the rule."""
    text = command.text
    for pattern, shorter in rule.replace:
        text = re.sub(pattern, shorter, text)
    return [*Command(command.place, text).words[1:], *shlex.split(rule.append)]


def page_commands() -> list[Command]:
    """Every command in a block of a page, one a line."""
    found = []
    for page in pages():
        for block in blocks(page):
            if block.language in SHELLS:
                found += _lines(block.page, block.line, block.text)
    return found


def _lines(page: str, first: int, text: str) -> Iterator[Command]:
    for number, line in enumerate(text.replace("\\\n", "  ").splitlines(), first + 1):
        if shlex.split(line, comments=True):
            yield Command(f"{page}:{number}", line.strip())


def commands_of_the_app() -> Iterator[tuple[str, Any]]:
    """Every command and group by its name, those made when they are looked up too."""
    yield from _walk("astro", typer.main.get_command(app))


def _walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    yield name, command
    if hasattr(command, "list_commands"):
        context = click.Context(command, info_name=name)
        for child in command.list_commands(context):
            yield from _walk(f"{name} {child}", command.get_command(context, child))


def help_examples() -> list[Command]:
    """The examples of every command's help."""
    return [
        Command(f"{name} --help", line.split(EXAMPLE, 1)[1].strip())
        for name, command in commands_of_the_app()
        for line in (command.help or "").splitlines()
        if EXAMPLE in line
    ]


def makefile_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))

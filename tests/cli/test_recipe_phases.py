"""`astro recipe show` reads a recipe without torch and refuses what its structure rules out; the other commands ask the
methods too.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def fresh(*arguments: str) -> tuple[int, str, list[str]]:
    """Exit code and error text of `astro ARGUMENTS` in a process of its own, and whether it imported torch or numpy."""
    code = (
        f"import sys; sys.argv = {['astro', *arguments]!r}\nfrom astro_cli.__main__ import main\n"
        "try:\n    main()\nfinally:\n    print(*[name for name in ('torch', 'numpy') if name in "
        "sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT)
    *error, heavy = done.stderr.splitlines()
    return done.returncode, "\n".join(error), heavy.split()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["astrolabe_causal_shapes"], 0, ""),
        (["no_such_recipe"], 2, "no such recipe"),
        (["astrolabe_causal_shapes", "--set", "lora.rnk=3"], 2, "lora.rnk: unknown key"),
        (
            ["astrolabe_causal_shapes", "--set", "stages.nft.objective.kind=nfft"],
            2,
            "found 'nfft', did you mean 'nft'?",
        ),
        (
            ["astrolabe_causal_shapes", "--set", "stages.nft.experience.rewards={vqq=1.0}"],
            2,
            "rewards.vqq: unknown reward",
        ),
        (
            ["astrolabe_causal_shapes", "--set", "stages.nft.experience.group=15"],
            2,
            "stages.nft.batch: found 64, expected prompts x group (60)",
        ),
    ],
    ids=["shown", "missing", "key", "kind", "reward", "batch"],
)
def test_show_needs_no_torch_and_refuses_what_the_structure_rules_out(arguments, code, says):
    got, error, heavy = fresh("recipe", "show", *arguments)
    assert (got, heavy) == (code, [])
    assert says in error
    assert "Traceback" not in error


def test_all_other_commands_ask_the_methods(astro, tmp_path):
    mine = tmp_path / "mine.toml"
    mine.write_text('extends = "astrolabe_causal_shapes"\nname = "mine"\n[stages.nft.objective]\nbetta = 1.0\n')
    assert astro("recipe", "show", str(mine))[0] == 0
    for command in (["recipe", "check", str(mine)], ["rl", "--dry-run", "--recipe", str(mine)]):
        code, _, error = astro(*command)
        assert code == 2
        assert "mine.toml: stages.nft.objective.betta: unknown key, did you mean 'beta'?" in error

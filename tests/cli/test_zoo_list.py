"""`astro zoo list` and the help of `astro zoo`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from astro_cli.zoo.entries import ENTRIES

ONE = "diffusion_pytorch_model.safetensors"


def test_list_says_what_is_here_and_where_the_rest_belongs(zoo, teacher, tmp_path):
    zoo("import", "wan_1.3b")
    (tmp_path / "all" / "Wan2.1-T2V-14B").mkdir()
    code, out, _ = zoo("list", "--json")
    report = json.loads(out)
    rows = {row["name"]: row for row in report["entries"]}
    assert code == 0
    assert report["checkpoints"] == str(tmp_path / "all")
    assert list(rows) == [entry.name for entry in ENTRIES]
    assert rows["wan_1.3b"]["state"] == "imported"
    assert rows["wan_1.3b"]["path"] == str(tmp_path / "all" / "wan_1.3b")
    assert rows["wan_14b"]["state"] == "here"
    assert rows["self_forcing"] == {
        "name": "self_forcing",
        "state": "missing",
        "kind": "transformer",
        "what": "Self-Forcing student",
        "repo": "gdhe17/Self-Forcing",
        "file": "checkpoints/self_forcing_dmd.pt",
        "format": "torch.save, original names",
        "nesting": "generator, critic, generator_ema",
        "licence": "Apache-2.0 (code)",
        "path": str(tmp_path / "all" / "Self-Forcing" / "checkpoints" / "self_forcing_dmd.pt"),
    }


def test_list_prints_a_line_per_entry(zoo):
    code, out, err = zoo("list")
    assert code == 0
    assert len(out.splitlines()) == 1 + len(ENTRIES)
    assert "belongs at REPO/FILE below" in err


def test_list_and_help_import_nothing_heavy():
    code = (
        "import sys; sys.argv = ['astro', 'zoo', 'list']\nfrom astro_cli.__main__ import main\ntry:\n    "
        "main()\nexcept SystemExit:\n    pass\n"
    )
    code += (
        "print('heavy:', [name for name in ('torch', 'numpy', 'diffusers', 'peft') if name in sys.modules], "
        "file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stderr.splitlines()[-1] == "heavy: []"


@pytest.mark.parametrize("command", ["list", "import", "verify"])
def test_help_has_an_example(zoo, command):
    assert f"Example: astro zoo {command}" in zoo(command, "--help")[1]

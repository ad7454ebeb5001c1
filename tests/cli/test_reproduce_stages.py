"""`astro reproduce --stages` where there are no stages to run."""

import pytest

from tests.command_line import run


@pytest.mark.parametrize(("arguments", "found"), [
    (["astrolabe", "--stages"], "of astrolabe"),
    (["teleboost", "--stages", "--quick"], "with --quick"),
])  # fmt: skip
def test_only_a_paper_with_stages_runs_them(arguments, found, tmp_path, monkeypatch, capsys):
    assert run(["reproduce", *arguments, "--out", str(tmp_path / "out")], monkeypatch) == 2
    error = capsys.readouterr().err
    assert f"error: --stages: found {found}, expected the full study" in error
    assert "hint: stages have: teleboost" in error
    assert not (tmp_path / "out").exists()

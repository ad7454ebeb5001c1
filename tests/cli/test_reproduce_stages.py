"""`astro reproduce --stages` where there are no stages to run."""

import pytest

from tests.command_line import run


@pytest.mark.parametrize(("arguments", "what"), [
    (["astrolabe", "--stages"], "--stages: found astrolabe, expected a paper with stages: teleboost"),
    (["teleboost", "--stages", "--quick"], "--stages: found it with --quick, expected the full study"),
    (["teleboost", "--stages", "--until-decided", "1"], "--until-decided: found with --stages, expected hours above 0"),
])  # fmt: skip
def test_only_a_paper_with_stages_runs_them(arguments, what, tmp_path, monkeypatch, capsys):
    assert run(["reproduce", *arguments, "--out", str(tmp_path / "out")], monkeypatch) == 2
    error = capsys.readouterr().err
    assert f"error: {what}" in error
    assert not (tmp_path / "out").exists()

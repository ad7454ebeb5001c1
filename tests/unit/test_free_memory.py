"""Free memory in a container: pages of files make way, so they count as free."""

import pytest

from astro_cli.core import memory


@pytest.mark.parametrize(
    ("limit", "used", "parts", "free"),
    [
        ("1000", "900", "anon 300\nactive_file 200\ninactive_file 400\n", 700.0),
        ("1000", "900", "", 100.0),
        ("1000", "1200", "anon 1200\n", 0.0),
        ("1000", "900", "active_file none\n", 100.0),
    ],
)
def test_what_a_container_may_still_take(limit, used, parts, free, tmp_path, monkeypatch):
    files = {"CGROUP_LIMIT": limit, "CGROUP_USED": used, "CGROUP_PARTS": parts}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        monkeypatch.setattr(memory, name, tmp_path / name)
    assert memory.available() == free
    assert memory.total() == 1000


def test_without_a_container_it_is_the_machines(tmp_path, monkeypatch):
    for name in ("CGROUP_LIMIT", "CGROUP_USED", "CGROUP_PARTS"):
        monkeypatch.setattr(memory, name, tmp_path / name)
    assert 0 < memory.available() <= memory.total() < float("inf")

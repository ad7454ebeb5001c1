"""Executors on the command line: what is refused before anything is loaded, and an address that does not answer."""

import socket
import time

import pytest

from astro_cli.config.errors import EXIT_USAGE, AstroError
from astro_cli.execution import options
from astro_cli.execution.options import RayOptions, check_answers, check_installed, choose_executor, parse


def test_inline_is_the_default_and_takes_no_options_of_ray():
    assert choose_executor("inline", None, None) is None
    with pytest.raises(AstroError, match="--ray-workers"):
        choose_executor("inline", None, 2)
    with pytest.raises(AstroError, match="--ray-address"):
        choose_executor("inline", "host:6379", None)


def test_without_ray_the_line_that_installs_it_is_named(monkeypatch):
    monkeypatch.setattr(options, "find_spec", lambda name: None)
    with pytest.raises(AstroError) as caught:
        check_installed()
    assert caught.value.exit_code == 2
    assert "pip install 'astro-cli[ray]'" in str(caught.value)


def test_a_pool_has_one_worker_unless_told():
    assert choose_executor("ray", None, None) == RayOptions(None, 1)
    assert choose_executor("ray", "10.0.0.1:6379", 4) == RayOptions("10.0.0.1:6379", 4)


@pytest.mark.parametrize("address", ["host", "host:", ":6379", "host:0", "host:65536", "ray://host:10001", "a b:1", ""])
def test_an_address_is_host_and_port(address):
    with pytest.raises(AstroError, match="HOST:PORT"):
        parse(address)


def test_addresses_are_parsed():
    assert parse("10.0.0.1:6379") == ("10.0.0.1", 6379)
    assert parse("[::1]:6379") == ("::1", 6379)


def test_a_closed_port_is_an_error_at_once():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(AstroError, match="does not answer") as caught:
        check_answers(f"127.0.0.1:{port}")
    assert time.monotonic() - began < 2
    assert caught.value.exit_code == EXIT_USAGE
    assert "`ray status`" in caught.value.hint


@pytest.mark.slow  # waits for a silent server
def test_a_server_that_is_no_ray_cluster_is_an_error_within_ten_seconds():
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'astro-cli[ray]'")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        began = time.monotonic()
        with pytest.raises(AstroError, match=r"--ray-address: 127\.0\.0\.1") as caught:
            check_answers(f"127.0.0.1:{silent.getsockname()[1]}")
        assert time.monotonic() - began < 11
        assert caught.value.exit_code == EXIT_USAGE

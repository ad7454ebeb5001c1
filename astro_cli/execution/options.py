"""What the command line says about the executor, checked before anything is loaded. Imports no Ray."""

from __future__ import annotations

import os
import re
import secrets
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from astro_cli.config.errors import AstroError

ExecutorName = Literal["inline", "ray"]
ANSWER_SECONDS = 10.0  # in which a cluster must answer
CONNECT_SECONDS = 4.0  # of them for the connection
# In a process of its own: a client that waits for a silent server cannot be interrupted.
PROBE = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False, logging_level='error'); ray.shutdown()"


@dataclass(frozen=True)
class RayOptions:
    """Where the pool is (None: on this machine, started and ended with the run), and how many members it has."""

    address: str | None = None
    workers: int = 1


def choose_executor(name: str, address: str | None, workers: int | None) -> RayOptions | None:
    """The options of a run on Ray; None for `inline`.

    Raises:
        AstroError: an unknown name, Ray's options with another executor, or a malformed address.
    """
    if name not in ("inline", "ray"):
        raise AstroError("--executor", "", f"found {name!r}, allowed: inline, ray")
    if name == "inline":
        for option, value in (("--ray-address", address), ("--ray-workers", workers)):
            if value is not None:
                raise AstroError(option, "", f"found {value!r} with --executor inline", hint="add --executor ray")
        return None
    if address is not None:
        parse(address)
    return RayOptions(address, workers or 1)


def check_installed() -> None:
    """Raises: AstroError where Ray is missing, with the line that installs it."""
    if find_spec("ray") is None:
        raise AstroError("--executor", "ray", "Ray is not installed", hint="pip install 'astro-cli[ray]'")


def set_environment(options: RayOptions) -> None:
    """What Ray reads when it is imported: no reports to its makers, no device hidden from workers with a share of it,
    workers of this process's priority (Ray's own starves them on a busy machine); for a pool of this machine's own a
    token of this run, kept in no file, and the loopback address alone.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if options.address is None:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # on Linux too, Ray then takes 127.0.0.1 for its own


def parse(address: str) -> tuple[str, int]:
    """Host and port.

    Raises:
        AstroError: anything but HOST:PORT.
    """
    match = re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^\s:/\[\]]+):([0-9]{1,5})", address)
    if match is None or not 0 < int(match[2]) < 65536:
        what = f"found {address!r}, expected HOST:PORT of the cluster's head"
        raise AstroError("--ray-address", "", what, hint="`ray start --head --port 6379` prints it")
    return match[1].strip("[]"), int(match[2])


def check_answers(address: str) -> None:
    """Return once a Ray cluster has answered at this address.

    Raises:
        AstroError: nothing listens there, or it is no Ray cluster that takes us, within `ANSWER_SECONDS`.
    """
    began = time.monotonic()
    try:
        socket.create_connection(parse(address), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise unanswered(address, f"does not answer: {error}") from error
    left = ANSWER_SECONDS - (time.monotonic() - began)
    try:
        probe = subprocess.run([sys.executable, "-c", PROBE, address], capture_output=True, text=True, timeout=left)
    except subprocess.TimeoutExpired as error:
        raise unanswered(address, f"no Ray cluster answered within {ANSWER_SECONDS:g} seconds") from error
    if probe.returncode:
        lines = probe.stderr.strip().splitlines() or ["no reason given"]
        raise unanswered(address, f"refused: {lines[-1]}")


def unanswered(address: str, what: str) -> AstroError:
    """The error of an address behind which there is no cluster for us."""
    hint = "`ray status` on the head says whether it runs; without --ray-address a pool is started on this machine"
    return AstroError("--ray-address", address, what, hint=hint)

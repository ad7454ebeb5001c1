"""Processes of this program: how one starts another, and how several share a training on the cores of one machine."""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
POLL_SECONDS = 0.2
STARTED_BY = "ASTRO_STARTED_BY"  # the process that started this one and ends with it


def command(*arguments: str) -> list[str]:
    """The line that runs this program again with these arguments."""
    return [sys.executable, "-P", "-m", "astro_cli", *arguments]  # -P: the current folder holds no modules


def environment(**more: str) -> dict[str, str]:
    """This process's environment and more, for another of this program: it ends with this one, and finds the program
    where that runs from a source tree that is not installed.
    """
    own = {}
    if (ROOT / "pyproject.toml").is_file():
        own["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, **own, STARTED_BY: str(os.getpid()), **more}


def end_with_starter() -> None:
    """End this process, as a termination does, once the one that started it is gone: killed outright, that one could
    not do it. The run's folder is then free for the next.
    """
    if (starter := os.environ.pop(STARTED_BY, "")).isdecimal():
        threading.Thread(target=_outlive, args=(int(starter),), daemon=True).start()


def _outlive(starter: int) -> None:
    while os.getppid() == starter or _is_there(starter):  # there, and no parent: a launcher lies between
        time.sleep(POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


def _is_there(process: int) -> bool:
    import psutil

    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def most_processes(shares: list[int], cores: int) -> int:
    """The most processes, at most one a core, among which every one of these numbers divides."""
    return max(count for count in range(1, max(1, cores) + 1) if math.gcd(*shares) % count == 0)


def run_together(arguments: list[str], count: int, **more: str) -> int:
    """Run this program as `count` processes of one training, each told its rank as torch's launcher does; 0, or the
    exit code of the first that failed. The others end with it, and all with this process: an interruption or a
    termination reaches them from here.
    """
    ranks = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(count), **more}
    running: list[subprocess.Popen[bytes]] = []
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for rank in range(count):
            own = environment(**ranks, RANK=str(rank), LOCAL_RANK=str(rank))
            line = command(*arguments)
            running.append(subprocess.Popen(line, env=own, stdin=subprocess.DEVNULL, start_new_session=True))
        while True:
            codes = [process.poll() for process in running]
            if failed := [code for code in codes if code]:
                return failed[0]
            if None not in codes:
                return 0
            time.sleep(POLL_SECONDS)
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()
        signal.signal(signal.SIGTERM, before)


def _free_port() -> int:
    with closing(socket.socket()) as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])

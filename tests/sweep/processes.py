"""Helpers for sweeps as separate commands: to begin one, and to find its processes that still run."""

import os
import subprocess
import sys
import time
from pathlib import Path

MARK = "DEEPEXP_TEST_SWEEP"


def begin(folder: Path, *words: str, log: Path | None = None) -> subprocess.Popen[str]:
    """`deepexp train …` in its own session; its output can be read from the process, or is appended to `log`."""
    command = [sys.executable, "-m", "deepexp", "train", *words]
    environment = {**os.environ, MARK: str(folder)}
    descriptor = subprocess.PIPE if log is None else os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        return subprocess.Popen(
            command, cwd=folder, env=environment, stdout=descriptor, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip
    finally:
        if log is not None:
            os.close(descriptor)


def processes_of(folder: Path) -> list[int]:
    """Processes started through `begin` in this folder that still run."""
    mark = f"{MARK}={folder}".encode()
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and mark in (process / "environ").read_bytes().split(b"\0"):
                state = (process / "stat").read_text().rpartition(")")[2].split()[0]
                found += [int(process.name)] if state != "Z" else []
        except OSError:
            continue  # it has ended meanwhile, or is not ours
    return found


def jobs_of(started: subprocess.Popen[str], folder: Path) -> list[int]:
    """The processes of jobs: those that lead their own process group."""
    found = []
    for process in processes_of(folder):
        try:
            found += [process] if os.getpgid(process) == process != started.pid else []
        except ProcessLookupError:
            continue
    return found


def wait_until_gone(folder: Path, seconds: float = 20) -> None:
    """Wait until no process of the folder runs; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while left := processes_of(folder):
        assert time.monotonic() < deadline, f"still alive: {[described(process) for process in left]}"
        time.sleep(0.05)


def described(process: int) -> str:
    """Id and command line of a process, for messages."""
    try:
        return f"{process} {Path('/proc', str(process), 'cmdline').read_bytes().decode(errors='replace')}"
    except OSError:
        return f"{process} (gone)"

"""How a run came about: command, code, versions, machine, data. Gathering it never fails a run.

The code is that of the git checkout around the working directory, if there is one.
"""

import importlib.metadata
import os
import platform
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import deepexp

_PACKAGES = ("torch", "torchvision", "hydra-core", "omegaconf", "numpy", "tensorboard")
_GIT_SECONDS = 5.0
_DIFF_BYTES = 1_000_000
# A repository's settings can make git run programs and lock files; neither is wanted here.
_GIT = ("git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-c", "core.quotePath=false")
_GIT_DIFF = ("diff", "--no-ext-diff", "--no-textconv", "--no-color", "HEAD")


def collect(
    *,
    device: str,
    data_fingerprint: str,
    test_data_fingerprint: str,
    pretrained: str | None,
    pretrained_sha256: str | None,
    code: Mapping[str, str],
    choices: Mapping[str, Any],
) -> dict[str, Any]:
    """The content of provenance.json.

    `device`: in words. `data_fingerprint`: of the samples used. `test_data_fingerprint`: of the test samples alone.
    `pretrained`: where such weights came from. `pretrained_sha256`: of their file. `code`: see `identity.Identity`.
    `choices`: what was decided at run time.
    """
    directory = Path.cwd()
    return {
        "command_line": shlex.join(sys.argv),
        "working_directory": str(directory),
        "git": git_state(directory),
        "versions": versions(),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "device": device,
        "choices": dict(choices),
        "code": dict(code),
        "data_fingerprint": data_fingerprint,
        "test_data_fingerprint": test_data_fingerprint,
        "pretrained": pretrained,
        "pretrained_sha256": pretrained_sha256,
    }


def versions() -> dict[str, str | None]:
    """Version of each package that results can depend on, null if it is not installed."""
    found: dict[str, str | None] = {
        "python": platform.python_version(),
        "deepexp": deepexp.__version__,
    }
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def git_state(directory: Path) -> dict[str, Any] | None:
    """Commit and uncommitted changes of the checkout that `directory` is in; null outside of one.

    `commit` is null before the first one, `diff` null where git was too slow; `diff_is_cut` tells
    that only the beginning of a huge diff was kept.
    """
    root = _git(directory, "rev-parse", "--show-toplevel")
    if root is None:
        return None
    commit = _git(directory, "rev-parse", "--verify", "--quiet", "HEAD")
    diff = _git(directory, *_GIT_DIFF) if commit is not None else None
    return {
        "root": root.strip(),
        "commit": None if commit is None else commit.strip(),
        "diff": None if diff is None else diff[:_DIFF_BYTES],
        "diff_is_cut": diff is not None and len(diff) > _DIFF_BYTES,
    }


def _git(directory: Path, *arguments: str) -> str | None:
    """What git prints, at most a little over `_DIFF_BYTES`; None if it fails or takes too long."""
    try:
        process = subprocess.Popen(
            [*_GIT, *arguments],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except OSError:  # no git here, or no such directory
        return None
    assert process.stdout is not None
    timer = threading.Timer(_GIT_SECONDS, process.kill)
    timer.start()
    with process:
        output = process.stdout.read(_DIFF_BYTES + 1)
        was_cut = bool(process.stdout.read(1))
        if was_cut:
            process.kill()
    timer.cancel()
    if process.returncode != 0 and not was_cut:
        return None
    return output.decode(errors="replace")

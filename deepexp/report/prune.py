"""Which checkpoints are no longer needed, and removing them: nothing else is ever touched.

Only runs that are done lose any. Others can be resumed, and keep everything.
"""

import datetime
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepexp import checkpoint
from deepexp.errors import InputError
from deepexp.report.runs import DONE, Run
from deepexp.run.rundir import RunDirectory

_OURS = re.compile(r"(last|previous|best|best_earlier|best\.(step|attempt)\d+)\.pt")
"""The checkpoints that a run writes; other files beside them are the user's own."""


@dataclass(frozen=True)
class Pruning:
    """What one run would lose."""

    run: Run
    files: Sequence[Path]
    frees_bytes: int
    is_all: bool
    """Whether no checkpoint is left after it."""


def plan(runs: Sequence[Run], older_than_seconds: float, now: datetime.datetime) -> list[Pruning]:
    """What the runs would lose: all checkpoints if they were done so long ago, else the one before the last."""
    found = []
    for run in runs:
        if run.status != DONE:
            continue
        files = _checkpoints(run.path)
        is_all = (age := seconds_since_end(run.state, now)) is not None and age >= older_than_seconds
        if not is_all:
            files = {path: status for path, status in files.items() if path.name == checkpoint.PREVIOUS}
            if files and not checkpoint.is_whole(run.path / "checkpoints" / checkpoint.LAST):
                continue  # there is none but the one before it
        if files:
            found.append(Pruning(run, list(files), _freed(list(files.values())), is_all))
    return found


def remove(pruning: Pruning) -> None:
    """Remove what was planned. Raises `InputError` if a process is at work in the run, or it is no longer done.

    Raises `OSError` if the system refuses.
    """
    directory = RunDirectory(pruning.run.path)
    directory.lock()
    try:
        if directory.read_status().get("status") != DONE:
            raise InputError(f"{pruning.run.path} has been resumed; its checkpoints are kept")
        allowed = _checkpoints(pruning.run.path)
        for path in pruning.files:
            if path in allowed:
                path.unlink()
    finally:
        directory.unlock()


def seconds_since_end(state: Mapping[str, Any], now: datetime.datetime) -> float | None:
    """How long ago a run ended, or began if it has not; None if its times cannot be read."""
    try:
        return (now - datetime.datetime.fromisoformat(state.get("end_time") or state["start_time"])).total_seconds()
    except (KeyError, TypeError, ValueError):
        return None


def size(path: Path) -> int:
    """Bytes of all files below a directory; links are not followed."""
    total = 0
    for folder, _, files in os.walk(path):
        for name in files:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except FileNotFoundError:  # removed meanwhile by a run at work
                continue
    return total


def _checkpoints(run: Path) -> dict[Path, os.stat_result]:
    """The checkpoints of a run: only regular files, and nothing that is reached through a link."""
    folder = run / "checkpoints"
    if folder.is_symlink() or not folder.is_dir():
        return {}
    found = {path: path.lstat() for path in sorted(folder.iterdir()) if _OURS.fullmatch(path.name)}
    return {path: status for path, status in found.items() if stat.S_ISREG(status.st_mode)}


def _freed(files: Sequence[os.stat_result]) -> int:
    """Bytes that are freed; a file that has another hard link elsewhere frees none."""
    names: dict[tuple[int, int], int] = {}
    for file in files:
        names[file.st_dev, file.st_ino] = names.get((file.st_dev, file.st_ino), 0) + 1
    last = {(file.st_dev, file.st_ino): file for file in files}
    return sum(file.st_size for key, file in last.items() if names[key] >= file.st_nlink)

"""The directory of a sweep: `sweep.json`, `ledger.jsonl`, `table.csv`, and a run directory for each job."""

import contextlib
import dataclasses
import json
import os
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import filelock

from deepexp import paths
from deepexp.disk import json_file
from deepexp.disk.json_file import FORMAT
from deepexp.disk.storage import storage_errors
from deepexp.errors import InputError, in_short
from deepexp.run import provenance
from deepexp.run.rundir import RunDirectory, has_lost_status, make_unique_directory, was_only_made

SWEEP_FILE = "sweep.json"
LEDGER = "ledger.jsonl"
LOGS = "logs"

DataMode = Literal["resident", "streamed"]


def is_sweep(path: Path) -> bool:
    """Whether a sweep was begun in this directory."""
    return (path / SWEEP_FILE).is_file()


@dataclass
class Choices:
    """What `auto` stands for in all jobs of the sweep, chosen when it is first needed."""

    pretrained: bool | str | None = None
    threads: int | None = None
    data_mode: DataMode | None = None


@dataclass
class SweepDirectory:
    """A sweep's directory, locked by this process; the lock dies with it."""

    path: Path
    words: list[str]
    """What was asked for, as overrides."""
    choices: Choices = field(default_factory=Choices)
    search: Mapping[str, str | None] | None = None
    """Its search, if there is one: method, version of Optuna, and objective."""
    impossible: list[tuple[int, list[str]]] = field(default_factory=list)
    """Settings that the search chose and that were refused: (how many settings came before it, its words)."""
    lock: filelock.BaseFileLock | None = None
    new_above: list[Path] = field(default_factory=list)
    """The folders above it that were made for it, the lowest first."""
    ran_in: str | None = None
    """The working directory of the process that ran it before; None for a new one."""

    @classmethod
    def create(cls, output_dir: str, name: str, words: list[str]) -> "SweepDirectory":
        """Make and lock a new, empty directory."""
        above = Path(os.path.expanduser(output_dir), name).absolute()
        new = [folder for folder in (above, *above.parents) if not folder.exists()]
        sweep = cls(make_unique_directory(output_dir, name).absolute(), words, new_above=new)
        sweep.lock = _locked(sweep.path)
        return sweep

    @classmethod
    def open(cls, path: Path) -> "SweepDirectory":
        """Lock and read the directory of an earlier sweep; `InputError` if it is damaged or locked elsewhere."""
        lock = _locked(path)
        content = read_description(path)
        choices = content["choices"]
        made = Choices(choices["pretrained"], choices["threads"], choices.get("data_mode"))
        impossible = [(place, words) for place, words in content.get("impossible", [])]
        words, ran_in = list(content["overrides"]), content.get("working_directory")
        return cls(path.absolute(), words, made, impossible=impossible, lock=lock, ran_in=ran_in)

    def save(self) -> None:
        """Write `sweep.json`."""
        content = {
            "overrides": self.words,
            "choices": dataclasses.asdict(self.choices),
            "search": self.search,
            "impossible": self.impossible,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "working_directory": str(Path.cwd()),
            "versions": provenance.versions(),
        }
        with storage_errors(self.path):
            (self.path / LOGS).mkdir(exist_ok=True)
        json_file.write(self.path / SWEEP_FILE, content)

    def free_directory(self, name: str) -> Path:
        """A path for a run where nothing exists yet: the job's name, with a number behind it if that is taken.

        A directory in which a run was only made, as its job was killed before it began, is removed and used again.
        """
        path, number = self.path / name, 1
        while path.exists() and not _removed_unbegun(path):
            number += 1
            path = self.path / f"{name}~{number}"
        return path

    def close(self) -> None:
        """Unlock it, and remove it if it holds no run, with empty folders that were made for it above it.

        One that lost its `sweep.json` may hold results, and stays.
        """
        if self.lock is not None:
            self.lock.release()
        with contextlib.suppress(OSError):
            if set(os.listdir(self.path)) <= {".lock", LOGS}:
                shutil.rmtree(self.path)
                for folder in self.new_above:
                    folder.rmdir()  # fails, and ends this, if anything is in it


def can_go_on(run: Path) -> bool:
    """Whether the run in a directory can be resumed: from its last checkpoint, or from the start if it has none."""
    return (run / "status.json").is_file() or has_lost_status(run)


def _removed_unbegun(run: Path) -> bool:
    """Remove the directory of a run that was killed while it was made; False if it is no such directory, or stays."""
    if not was_only_made(run):
        return False
    shutil.rmtree(run, ignore_errors=True)
    return not run.exists()


def finished(run: Path) -> bool:
    """Whether the run in a directory came to its end, whatever the ledger says."""
    try:
        return RunDirectory.open(run).read_status().get("status") == "done"
    except InputError:
        return False


def read_summary(run: Path) -> dict[str, Any]:
    """The content of a finished run's `summary.json`."""
    return RunDirectory.open(run).read_json("summary.json")


def evaluations(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl` so far, up to the first that is not whole JSON."""
    lines: list[dict[str, Any]] = []
    with contextlib.suppress(OSError, ValueError):
        for line in (run / "metrics.jsonl").read_bytes().splitlines():
            lines.append(json.loads(line))
    return lines


def result_of(run: Path) -> tuple[dict[str, Any] | None, str | None]:
    """(the summary of a finished run, why it cannot be read); one of the two is None."""
    try:
        return read_summary(run), None
    except InputError as error:
        return None, (
            f"its result cannot be read: {error}; "
            "put that file back, or remove the job's directory and resume the sweep"
        )


def _locked(path: Path) -> filelock.BaseFileLock:
    lock = filelock.FileLock(path / ".lock", thread_local=False)
    with storage_errors(path, chosen_by_user=True, option=None):
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise InputError(
                f"{paths.shown(path)} belongs to a sweep that is still alive{_owner(path)}; "
                "wait until it ends, or stop it first"
            ) from None
    return lock


def _owner(path: Path) -> str:
    try:
        content = read_description(path)
    except InputError:
        return ""
    return f" (process {content['pid']} on {content['host']})"


def read_description(directory: Path) -> dict[str, Any]:
    """The content of `sweep.json`; `InputError` if it cannot be read, or a value is of the wrong type."""
    path = directory / SWEEP_FILE
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        if content["format"] > FORMAT:
            raise InputError(f"{path}: has format {content['format']}; a newer deepexp wrote it")
        choices = content["choices"]
        is_sound = (
            isinstance(content["format"], int)
            and isinstance(content["overrides"], list)
            and all(isinstance(word, str) for word in content["overrides"])
            and isinstance(choices["pretrained"], (type(None), bool, str))
            and isinstance(choices["threads"], (type(None), int))
            and choices.get("data_mode") in (None, "resident", "streamed")
            and isinstance(content["host"], str)
            and isinstance(content["pid"], int)
            and all(
                isinstance(place, int) and all(isinstance(word, str) for word in words)
                for place, words in content.get("impossible", [])
            )
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({in_short(error)})") from None
    if not is_sound:
        raise InputError(f"{path}: is damaged (a value is of another type than deepexp writes)")
    return content

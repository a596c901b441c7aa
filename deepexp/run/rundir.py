"""The directory that a run leaves behind: making, opening and locking it, and its JSON files.

Each JSON file has a `format` and is replaced in one step, so that none is ever read half written.
What the run measures is in `runlog.py`; how it came about, in `provenance.py`.
"""

import contextlib
import dataclasses
import datetime
import errno
import json
import os
import secrets
import shlex
import shutil
import socket
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import filelock

from deepexp import paths
from deepexp.disk import json_file
from deepexp.disk.json_file import FORMAT
from deepexp.disk.storage import make_directory, storage_errors, write_text
from deepexp.errors import InputError

Status = Literal["running", "done", "failed", "killed-by-signal", "paused"]

_FILES = (
    *("status.json", "provenance.json", "summary.json", "metrics.jsonl", "run.log", "predictions.npz"),
    *("events.out.tfevents.*", "checkpoints/previous.pt"),
)
"""What a resumed run writes to or cuts back. (A folder in place of `last.pt` is reported as a damaged file.)"""

_REQUIRED = (".hydra/config.yaml", "status.json")
_NOT_NEEDED = ("status.json", "provenance.json")
"""Files that a run with a checkpoint can go on without; a damaged one is refused, and not replaced."""

_SWEEP_FILES = ("sweep.json", "ledger.jsonl")
_ATTEMPTS = 100  # to find a free name; there are 2**24 in each second


def make_unique_directory(output_dir: str | Path, name: str) -> Path:
    """Make `<output_dir>/<name>/<date>_<time>_<unique>/`, which no other process gets as well.

    Raises `InputError` or `RunFailed` if that fails; `~` in `output_dir` is the home directory.
    """
    try:
        paths.check_folder_name(name)
    except ValueError as error:
        raise InputError(str(error)) from None
    parent = Path(os.path.expanduser(output_dir)) / name
    with storage_errors(parent, chosen_by_user=True):
        for left in reversed(range(_ATTEMPTS)):
            stamp = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
            path = parent / f"{stamp}_{secrets.token_hex(3)}"  # leaves seeded generators alone
            try:
                make_directory(path)  # fails if it is there, so it is ours alone
            except FileExistsError:
                if not path.exists():
                    raise  # something above it is no folder
                continue
            except FileNotFoundError:
                if not left:
                    raise
                continue  # a sweep that was refused has removed the empty folder above it in the same instant
            return path
        raise FileExistsError(f"no free name in {_ATTEMPTS} attempts")


@dataclasses.dataclass(frozen=True)
class HydraFiles:
    """What Hydra composed, as YAML texts: `.hydra/{config,overrides,hydra}.yaml`."""

    config: str
    overrides: str
    hydra: str


class RunDirectory:
    """One run's directory. A process that writes into it holds its lock, which ends with the process."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()  # holds even if the process changes its directory
        self.checkpoints = self.path / "checkpoints"
        # One lock for all threads of the process, not one for each.
        self._lock = filelock.FileLock(self.path / ".lock", thread_local=False)

    @classmethod
    def create(cls, output_dir: str | Path, name: str, files: HydraFiles) -> "RunDirectory":
        """Make a new, locked run directory below `output_dir`, with status `running`."""
        return cls._fill(make_unique_directory(output_dir, name), files)

    @classmethod
    def create_at(cls, path: Path, files: HydraFiles) -> "RunDirectory":
        """Make a new, locked run directory under a given name, as a sweep does for its jobs.

        Raises `InputError` if something is there already.
        """
        with storage_errors(path, chosen_by_user=True):
            make_directory(path)
        return cls._fill(path, files)

    @classmethod
    def _fill(cls, path: Path, files: HydraFiles) -> "RunDirectory":
        run = cls(path)
        try:
            run.lock()
            with storage_errors(path, chosen_by_user=True):
                run.checkpoints.mkdir()
                (path / ".hydra").mkdir()
            for name, text in dataclasses.asdict(files).items():
                run.write_hydra_file(name, text)
            run.set_status("running")
        except BaseException:
            run.unlock()
            shutil.rmtree(path, ignore_errors=True)  # nothing but what was made above is in it
            raise
        return run

    @classmethod
    def open(cls, path: str | Path) -> "RunDirectory":
        """The run in `path`, not locked; `InputError` says what is wrong if that is no run."""
        path = Path(os.path.expanduser(path))
        try:
            problem = _why_no_run(path)
        except OSError as error:
            problem = error.strerror or str(error)
        if problem:
            raise InputError(f"{path} is not a run: {problem}")
        run = cls(path)
        run.read_status()
        return run

    def lock(self) -> None:
        """Claim the directory for this process; `InputError` if a run is still alive in it."""
        with storage_errors(self.path, chosen_by_user=True, option=None):
            try:
                self._lock.acquire(timeout=1)  # for an instant, `is_alive` elsewhere may hold it
            except filelock.Timeout:
                raise InputError(
                    f"{self.path} belongs to a run that is still alive{self._owner()}; "
                    "wait until it ends, or stop it first"
                ) from None

    def unlock(self) -> None:
        """Let others have the directory; harmless if this process does not hold it."""
        self._lock.release()

    def is_alive(self) -> bool:
        """Whether a process, this one included, is at work in the directory."""
        if not (self.path / ".lock").exists():
            return False
        probe = filelock.FileLock(self.path / ".lock", thread_local=False)
        try:
            with probe.acquire(timeout=0):
                return False
        except filelock.Timeout:
            return True
        except PermissionError:  # another user's run, which only its status tells about
            return self.read_status().get("status") == "running"
        except OSError as error:
            if error.errno == errno.EROFS:  # where nobody can write, nobody is at work
                return False
            raise

    def write_hydra_file(self, name: str, text: str) -> None:
        """Replace `.hydra/<name>.yaml` durably by `text` with `format` before it; `name`: a field of `HydraFiles`."""
        write_text(self.path / ".hydra" / f"{name}.yaml", f"# format: {FORMAT}\n{text}")

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Replace the file `name` durably by `content` with `format` before it."""
        json_file.write(self.path / name, content)

    def read_json(self, name: str) -> dict[str, Any]:
        """What is in the file `name`; `InputError` if it is missing, damaged or too new."""
        path = self.path / name
        way_on = "; put the original back, or move it away to go on without it" if name in _NOT_NEEDED else ""
        if not path.is_file():
            raise InputError(f"{path} is missing")
        try:
            content = json.loads(path.read_bytes())
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path} is damaged: {error}{way_on}") from error
        if not isinstance(content, dict) or not isinstance(content.get("format"), int):
            raise InputError(f"{path} is not a file of a run: it has no 'format'{way_on}")
        if content["format"] > FORMAT:
            raise InputError(
                f"{path} has format {content['format']}, and this deepexp reads up to {FORMAT}: "
                "it was written by a newer one"
            )
        return content

    def read_status(self) -> dict[str, Any]:
        """The content of `status.json`; if that is lost, the other files tell whether the run was done or cut off."""
        if not has_lost_status(self.path):
            return self.read_json("status.json")
        if (self.path / "summary.json").is_file():  # written last, and renamed before a run is trained further
            return {"format": FORMAT, "status": "done"}
        return {"format": FORMAT, "status": "running", "reason": "its status.json is missing"}

    def set_status(self, status: Status, reason: str | None = None) -> None:
        """Record where the run stands; `running` a second time means that it was resumed."""
        now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        path = self.path / "status.json"
        before = self.read_json("status.json") if path.exists() else {}
        resumed = before.get("resume_times", [])
        running = status == "running"
        self.write_json(
            "status.json",
            {
                "status": status,
                "reason": reason,
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "start_time": before.get("start_time", now),
                "resume_times": [*resumed, now] if running and before else resumed,
                "end_time": None if running else now,
            },
        )

    def _owner(self) -> str:
        """Who holds the directory, as far as the status tells."""
        try:
            status = self.read_json("status.json")
        except InputError:
            return ""
        return f" (process {status.get('pid')} on {status.get('host')})"


def has_lost_status(path: Path) -> bool:
    """Whether a directory has the saved files of a run, but its `status.json` is gone."""
    kept = ("summary.json", "checkpoints/last.pt", "checkpoints/previous.pt")
    return (
        not os.path.lexists(path / "status.json")
        and (path / ".hydra" / "config.yaml").is_file()
        and any((path / name).is_file() for name in kept)
    )


def was_only_made(path: Path) -> bool:
    """Whether a directory is that of a run that was killed while it was made: its status is written last."""
    begun = os.path.lexists(path / "status.json") or has_lost_status(path) or (path / "run.log").exists()
    return not begun and (path / ".lock").exists() and not any((path / "checkpoints").glob("*"))


def check_entries(directory: Path) -> None:
    """Refuse a directory with anything but files and folders in it, or folders for files, before something is written.

    Through a link, what is written would land elsewhere; reading a pipe could wait for ever.
    """
    for folder, folders, files in os.walk(directory):
        for entry in (Path(folder, name) for name in (*folders, *files)):
            with contextlib.suppress(FileNotFoundError):  # a run that is alive, which is refused later, replaces files
                mode = entry.lstat().st_mode
                if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                    raise InputError(f"{entry} is neither a file nor a folder, and a run holds nothing else; remove it")
    for entry in (entry for name in _FILES for entry in directory.glob(name)):
        if entry.is_dir():
            raise InputError(f"{entry} is a folder, and a run has a file there; remove it, or give it another name")


def _why_no_run(path: Path) -> str | None:
    if not path.exists():
        return "there is nothing of that name"
    if not path.is_dir():
        return f"it is a file{_meant(path) or '; a run is a folder'}"
    if any((path / name).exists() for name in _SWEEP_FILES):
        return "it is a sweep, whose runs are the folders in it"
    missing = [name for name in _REQUIRED if not (path / name).is_file()]
    if not missing or has_lost_status(path):
        return None
    sweep = path.absolute().parent
    is_job = (sweep / "sweep.json").is_file()
    if was_only_made(path) or (is_job and not any(path.iterdir())):
        again = f"go on with its sweep: {shlex.join(['deepexp', 'train', f'resume={paths.shown(sweep)}'])}"
        way_on = again if is_job else "give its command again"
        return f"nothing had begun in it when it was cut off; {way_on}"
    return f"it has no {' and no '.join(missing)}{_meant(path) or _newest_in(path)}"


def _meant(path: Path) -> str:
    """The end of a message: the run that `path` lies in, if it does, as a question."""
    for folder in path.absolute().parents:
        if all((folder / name).is_file() for name in _REQUIRED):
            return f"; did you mean {folder}?"
    return ""


def _newest_in(folder: Path) -> str:
    """The end of a message: the newest run or sweep in a folder, if there is one; their names begin with the time."""
    names = ("status.json", "sweep.json")
    found = {path.parent for name in names for below in ("*", "*/*") for path in folder.glob(f"{below}/{name}")}
    alone = [place for place in found if place.parent not in found]  # without jobs, whose names are their settings
    return f"; the newest in it is {max(alone, key=lambda place: place.name)}" if alone else ""

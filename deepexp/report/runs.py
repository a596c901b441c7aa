"""Runs as a report reads them: only from the files of their directories, which anyone may have written.

No code from there is run, nothing is unpickled or written, and nothing heavy is imported. What is damaged is named and
left out. What varies among the runs is found in `variation.py`.
"""

import functools
import json
import logging
import math
import os
import types
import typing
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from deepexp.config.composed_of import choices_of, completed, words_of
from deepexp.disk.json_file import FORMAT
from deepexp.disk.yaml_file import read_mapping
from deepexp.errors import InputError, raise_any
from deepexp.metrics import EpochMetrics, Summary
from deepexp.report.balance import Balance, balance_of
from deepexp.run import event_format
from deepexp.run.rundir import RunDirectory
from deepexp.sweep.ledger import Entry
from deepexp.sweep.ledger import read as read_ledger
from deepexp.text.units import counted

log = logging.getLogger(__name__)

DONE, RUNNING, FAILED, INTERRUPTED, CUT_OFF, PAUSED = "done", "running", "failed", "interrupted", "cut off", "paused"
STATUSES = (DONE, RUNNING, FAILED, INTERRUPTED, CUT_OFF, PAUSED)
"""`interrupted`: a signal ended it after it was saved. `cut off`: its status is `running`, but its process is gone.
`paused`: it was saved and stopped, since other jobs of its sweep were better."""

BALANCED = "balanced_error_rate"
"""The mean of the error rates of the classes of the test set, which no summary has."""

AT_BEST = "test_error_rate_at_best"
"""The figure of a run: its test error after the epoch that was best in validation, whose weights are `best.pt`."""

_CONFIG, _STATUS, _PROVENANCE = ".hydra/config.yaml", "status.json", "provenance.json"
_BROKEN_ZIP = (zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class Run:
    """One run directory, finished or not."""

    path: Path
    name: str
    """As short as is unique among the runs that were read together."""
    choices: Mapping[str, str]
    """Group → the option that was chosen in it: `model`, `data`, `optim`, …; groups without a choice are left out."""
    config: Mapping[str, object]
    """Flat: `optim.lr` → 0.1."""
    status: str
    """One of `STATUSES`."""
    reason: str | None = None
    """Why it is not done, where that is known."""
    summary: Mapping[str, Any] | None = None
    """`summary.json` of a run that is done, else None."""
    metrics: Sequence[Mapping[str, Any]] = ()
    """The lines of `metrics.jsonl`."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    sweep: Path | None = None
    """The directory of the sweep that it is a job of."""
    overrides: Sequence[str] = ()
    """The overrides that were asked for, in the order in which they were given."""
    state: Mapping[str, Any] = field(default_factory=dict)
    """`status.json` as it stands: host, process, times."""

    @property
    def seed(self) -> object:
        """The seed in its config."""
        return self.config.get("seed")

    @property
    def has_lost_metrics(self) -> bool:
        """Whether it was resumed without its earlier measurements, as `lost_files` notes."""
        resumed = self.provenance.get("resumed")
        entries = resumed if isinstance(resumed, list) else []
        return any("metrics.jsonl" in (entry.get("lost") or ()) for entry in entries if isinstance(entry, dict))

    def figure(self, name: str) -> Any:
        """A figure of the summary, `BALANCED`, or `AT_BEST`; None for a run that has none."""
        if self.summary is None:
            return None
        if name == BALANCED:
            return self.balance.error_rate
        if name != AT_BEST:
            return self.summary.get(name)
        best = self.summary.get("best_epoch")
        of_best = [line["test_error_rate"] for line in self.metrics if line["epoch"] == best]
        return of_best[-1] if of_best else None

    @functools.cached_property
    def balance(self) -> Balance:
        """How its errors are spread over the classes of its test set."""
        try:
            found = self.predictions()
        except InputError:
            found = None
        return Balance() if found is None else balance_of(*found)

    def update_losses(self) -> tuple[np.ndarray, np.ndarray]:
        """(steps, training losses), each (updates,), as far as its event file has them; `InputError` if unreadable."""
        path = event_format.present(self.path)
        if path is None or not path.is_file():
            return np.zeros(0, np.int64), np.zeros(0)
        try:
            return event_format.curve(path, "train/loss")
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror or error})") from error

    def predictions(self) -> tuple[np.ndarray, np.ndarray] | None:
        """(predicted, target), each (samples,) of integers; None if there are none, `InputError` if damaged."""
        path = self.path / "predictions.npz"
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as arrays:
                predicted, target = (np.asarray(arrays[name]) for name in ("predicted", "target"))
        except ValueError:  # NumPy's message proposes to unpickle it, which could run a stranger's code
            raise InputError(f"{path} is damaged: it does not hold plain arrays") from None
        except (OSError, KeyError, EOFError, NotImplementedError, MemoryError, *_BROKEN_ZIP) as error:
            raise InputError(f"{path} is damaged: {error}") from None
        if (
            predicted.ndim != 1
            or predicted.shape != target.shape
            or {predicted.dtype.kind, target.dtype.kind} - {*"iu"}
        ):
            raise InputError(f"{path} is damaged: it must hold two integers for each test sample")
        return predicted, target


@dataclass(frozen=True)
class Reading:
    """What was found below some paths."""

    runs: list[Run]
    """Jobs of a sweep in the order of its grid, others as they were started."""
    damaged: list[str]
    """A line for each run, or folder that may hold some, that could not be read, naming it."""
    not_started: list[str]
    """A line for each job of the sweeps in the paths that has no directory yet."""


def read(paths: Sequence[Path]) -> Reading:
    """Every run in `paths`: run directories, sweeps, or any folders above them; links below them are not followed.

    Raises `InputError` for a path in which there is no run.
    """
    found: dict[Path, Path] = {}  # a run can be given twice, under two names
    closed: list[OSError] = []
    for path in paths:
        before, directories = len(closed), list(run_directories(path, closed.append))
        if not directories and not closed[before:]:
            raise InputError(_why_none(path))
        found |= {directory.resolve(): directory for directory in reversed(directories)}
    runs, damaged = [], [f"{error.filename}: cannot be read ({error.strerror})" for error in closed]
    sweeps = _Sweeps()
    for directory, name in zip(found.values(), unique_names(list(found.values())), strict=True):
        try:
            runs.append(_read_run(directory, name, sweeps))
        except InputError as error:
            damaged.append(str(error))
        except OSError as error:
            damaged.append(f"{error.filename or directory}: cannot be read ({error.strerror or error})")
    return Reading(sorted(runs, key=sweeps.position), sorted(damaged), sweeps.not_started(paths))


def read_one(word: str | None, command: str) -> Run:
    """The run in the directory that `one_directory` finds; `InputError` if its files are damaged."""
    reading = read([one_directory(word, command)])
    raise_any(reading.damaged)
    return reading.runs[0]


def one_directory(word: str | None, command: str) -> Path:
    """The run directory that `run=` gives to a command; else `InputError`, which names the first run below it."""
    if not word:
        raise InputError(f"run: of which run? Give its directory: deepexp {command} run=outputs/…")
    path = Path(os.path.expanduser(word))
    try:
        first = next(run_directories(path), None)
        if first is None:
            raise InputError(_why_none(path))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    if first != path:
        raise InputError(f"{path}: is no run; the first one below it is {first}")
    return path


def run_directories(path: Path, closed: Callable[[OSError], object] = bool) -> Iterator[Path]:
    """The run directories at or below `path`, found without opening a file; also those that have lost `.hydra`.

    `closed` is called for each folder that cannot be read.
    """

    def tell(error: OSError) -> None:
        if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
            closed(error)

    for folder, folders, files in os.walk(path, onerror=tell):
        here = Path(folder)
        has_config = ".hydra" in folders and (_STATUS in files or (here / _CONFIG).is_file())
        if has_config or {_STATUS, _PROVENANCE} <= set(files):
            yield here
            folders.clear()  # no run lies in another
        folders[:] = sorted(name for name in folders if not name.startswith("."))


def is_empty(path: Path) -> bool:
    """Whether there is no run in `path`, and no folder that cannot be read."""
    closed: list[OSError] = []
    return next(run_directories(path, closed.append), None) is None and not closed


def unique_names(paths: Sequence[Path]) -> list[str]:
    """For each path, the fewest of its last parts that tell it apart from the others; no two paths may be the same."""
    parts = [path.absolute().parts for path in paths]
    lengths = [1] * len(paths)
    while True:
        names = ["/".join(part[-length:]) for part, length in zip(parts, lengths, strict=True)]
        counts = Counter(names)
        if len(counts) == len(names):
            return names
        lengths = [length + (counts[name] > 1) for name, length in zip(names, lengths, strict=True)]


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """A nested config with its keys joined by dots; lists and empty mappings are values."""
    values: dict[str, object] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            values |= flat(value, f"{prefix}{key}.")
        else:
            values[f"{prefix}{key}"] = value
    return values


class _Sweeps:
    """The ledgers of the sweeps that runs lie in, each read once."""

    def __init__(self) -> None:
        self._jobs: dict[Path, dict[str, tuple[int, Entry]]] = {}

    def job(self, run: Path) -> tuple[int, Entry] | None:
        """The place of a run in its sweep's grid, and its entry in the sweep's ledger; None if it has none."""
        sweep = run.parent
        if sweep not in self._jobs:
            try:
                entries = list(read_ledger(sweep / "ledger.jsonl").values())
            except (InputError, OSError) as error:
                log.warning("%s; its jobs are shown by name", error)
                entries = []
            self._jobs[sweep] = {entry.directory or entry.job: (place, entry) for place, entry in enumerate(entries)}
        return self._jobs[sweep].get(run.name)

    def not_started(self, paths: Sequence[Path]) -> list[str]:
        """A line for each job without a directory, of sweeps that lie in the paths as a whole."""
        return [
            f"{entry.job}: {entry.reason or 'it was not started'}"
            for sweep, jobs in self._jobs.items()
            for _, entry in jobs.values()
            if entry.directory is None and any(sweep.resolve().is_relative_to(path.resolve()) for path in paths)
        ]

    def position(self, run: Run) -> tuple[str, str, float, str]:
        """What to sort by: a run's start, for jobs of a sweep the sweep's, and then their place in the grid."""
        if run.sweep is None:
            return str(run.state.get("start_time")), "", 0.0, str(run.path)
        job = self.job(run.path)
        # The directory of a sweep is named by its start, as `start_time` but with `-` for `:`.
        day, time = run.sweep.name[:10], run.sweep.name[11:19]
        began = f"{day}T{time.replace('-', ':')}"
        return began, str(run.sweep), float("inf") if job is None else float(job[0]), str(run.path)


def _read_run(path: Path, name: str, sweeps: _Sweeps) -> Run:
    """Raises `InputError` naming the file that is missing or damaged."""
    directory = RunDirectory(path)
    state = directory.read_status()
    status, reason = _status(directory, state)
    sweep = path.parent if (path.parent / "sweep.json").is_file() else None
    job = sweeps.job(path) if sweep else None
    if status not in (DONE, RUNNING) and reason is None:
        reason = job[1].reason if job else None
    if status == CUT_OFF and reason is None:
        reason = "it says that it is running, but its process is gone"
    summary = directory.read_json("summary.json") if status == DONE else None
    if summary is not None:
        _check_summary(path / "summary.json", summary)
    nested = completed(read_mapping(path / _CONFIG))
    config = flat(nested)
    if not isinstance(config.get("seed", 0), int):
        raise InputError(f"{path / _CONFIG} is damaged: seed is {config['seed']!r}")
    return Run(
        path=path,
        name=name,
        choices={group: option for group, option in choices_of(path, nested).items() if option is not None},
        config=config,
        status=status,
        reason=reason,
        summary=summary,
        metrics=_metrics(path / "metrics.jsonl"),
        provenance=directory.read_json(_PROVENANCE) if (path / _PROVENANCE).exists() else {},
        sweep=sweep,
        overrides=words_of(path),
        state=state,
    )


def _status(directory: RunDirectory, state: Mapping[str, Any]) -> tuple[str, str | None]:
    status, reason = state.get("status"), state.get("reason")
    reason = reason if isinstance(reason, str) else None
    if status == "killed-by-signal":
        return INTERRUPTED, reason
    if status == RUNNING and not directory.is_alive():
        return CUT_OFF, reason
    if status not in STATUSES:
        raise InputError(f"{directory.path / 'status.json'} is damaged: status is {status!r}")
    return str(status), reason


def _metrics(path: Path) -> list[Mapping[str, Any]]:
    """The whole lines; one that a crash has torn at the end is left out."""
    content = path.read_bytes() if path.is_file() else b""
    lines: list[Mapping[str, Any]] = []
    for number, text in enumerate(content[: content.rfind(b"\n") + 1].splitlines(), 1):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}:{number} is damaged: {error}") from None
        _check_types(f"{path}:{number}", line, EpochMetrics)
        lines.append(line)
    return lines


def _check_summary(path: Path, summary: Mapping[str, Any]) -> None:
    _check_types(str(path), summary, Summary)
    errors, samples = summary["test_errors"], summary["test_samples"]
    if not 0 <= errors <= samples or samples == 0:
        raise InputError(f"{path} is damaged: {counted(errors, 'test error')} of {counted(samples, 'sample')}")
    rate = summary["test_error_rate"]
    if rate is None or not math.isclose(rate, errors / samples, abs_tol=1e-6):
        raise InputError(
            f"{path} is damaged: test_error_rate is {rate}, "
            f"with {counted(errors, 'error')} of {counted(samples, 'sample')}"
        )


def _check_types(where: str, content: Any, kind: type) -> None:
    """`InputError` for content that lacks a field of a dataclass, or has another type in it; more keys are allowed."""
    if not isinstance(content, dict):
        raise InputError(f"{where} is damaged: it is no mapping")
    if isinstance(content.get("format"), int) and content["format"] > FORMAT:
        raise InputError(f"{where} has format {content['format']}: it was written by a newer deepexp")
    for name, allowed in _field_types(kind).items():
        if name not in content:
            raise InputError(f"{where} is damaged: {name} is missing")
        value = content[name]
        is_finite = not isinstance(value, float) or math.isfinite(value)
        if not isinstance(value, allowed) or isinstance(value, bool) or not is_finite:
            raise InputError(f"{where} is damaged: {name} is {value!r}")


@functools.cache
def _field_types(kind: type) -> dict[str, tuple[type, ...]]:
    """Field → the types that JSON may hold there: a number that is not finite is null, and 1.0 may be 1."""
    wider: dict[type, tuple[type, ...]] = {float: (float, int, type(None))}
    found = {}
    for name, annotation in typing.get_type_hints(kind).items():
        options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
        found[name] = tuple(allowed for option in options for allowed in wider.get(option, (option,)))
    return found


def _why_none(path: Path) -> str:
    if not path.exists():
        return f"{path}: there is nothing of that name"
    if not path.is_dir():
        return f"{path}: is a file; give the directory of a run or a sweep, or a folder above them"
    return f"{path}: there is no run in it (a run's directory has a status.json and a .hydra folder)"

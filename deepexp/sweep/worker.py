"""The process of one job: it trains, reports to its parent how far it is, and dies with its parent.

The process is forked from a server that has imported this module and with it torch, and so begins at once.
"""

import contextlib
import gc
import os
import signal
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

from hydra.core.utils import setup_globals

from deepexp.commands.train import train
from deepexp.config.composer import Composed
from deepexp.config.overrides import quote, split
from deepexp.disk.storage import storage_errors
from deepexp.errors import InputError, Interrupted, Paused, RunFailed, in_short
from deepexp.metrics import EpochMetrics
from deepexp.process.orphans import die_with_parent
from deepexp.process.spawning import drop_held_signals
from deepexp.run.identity import HOW
from deepexp.run.resuming import with_keys_of_its_own
from deepexp.sweep.shared_data import SharedSource
from deepexp.text.console import Console, Horizon

NOT_TRAINING = "stopped while it was not training"
_PROGRESS_SECONDS = 0.2
_OOM_SCORE = 500  # thousandths of the machine's memory, which Linux adds to what the process uses


@dataclass(frozen=True)
class Task:
    """One try of one job."""

    name: str
    config_hash: str
    overrides: list[str]
    directory: Path
    """The run directory: to be made, or of the run to be resumed."""
    resumes: bool
    log: Path
    """The file for what the process prints."""
    until: int | None = None
    """The epoch after which it is to pause; None: it goes on to its end."""
    data: SharedSource | None = None
    """Its pictures, if other jobs use them too."""
    composed: Composed | None = None
    """Its config, if the parent has composed it already."""

    @property
    def words(self) -> list[str]:
        """Its command line; to resume a run: `resume=` and those of its overrides that may change."""
        if not self.resumes:
            return self.overrides
        how = [word for word in self.overrides if split(word)[1] in HOW]
        return with_keys_of_its_own([f"resume={quote(str(self.directory))}", *how])


@dataclass(frozen=True)
class Progress:
    """How far a job is."""

    fraction: float
    """Of what it has to do now: up to its next pause, or its end."""
    epoch: int
    test_error_rate: float | None


@dataclass(frozen=True)
class Ending:
    """How a try ended."""

    state: Literal["done", "failed", "killed", "interrupted", "paused"]
    reason: str | None = None
    seconds: float = 0.0


def run_job(task: Task, environment: dict[str, str], working_directory: str, parent: Connection) -> None:
    """Train, and send the parent `Progress` and, at last, one `Ending`."""
    gc.enable()
    gc.freeze()  # collecting garbage in what the server has imported would copy those pages
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the server ignores it
    _die_with(parent)
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # Ctrl-C in the terminal is for the parent, which then asks each job once
    drop_held_signals()
    os.environ.clear()
    os.environ.update(environment)
    _offer_itself_when_memory_runs_out()
    try:
        with storage_errors(task.log, option=None):
            _print_into(task.log)
    except RunFailed as error:
        parent.send(Ending("failed", str(error)))
        return
    try:
        os.chdir(working_directory)
    except OSError as error:
        parent.send(Ending("failed", f"{working_directory}: cannot work there any longer ({error.strerror})"))
    else:
        parent.send(_ending_of(task, parent))


def kill_with_children(job: int) -> None:
    """Kill the process of a job and what it has started itself, such as the processes of a DataLoader."""
    with contextlib.suppress(ProcessLookupError):
        if not hasattr(os, "killpg"):
            os.kill(job, signal.SIGTERM)
        elif os.getpgid(job) == job:
            os.killpg(job, signal.SIGKILL)
        else:  # it has no process group of its own yet
            os.kill(job, signal.SIGKILL)


def _ending_of(task: Task, parent: Connection) -> Ending:
    console = _JobConsole(parent, task.until)
    loaded = {task.data.key: task.data} if task.data is not None else {}
    setup_globals()  # Hydra's resolvers, such as `now`: where the parent has composed the config, nothing starts Hydra
    try:
        train(task.composed or task.words, console, at=task.directory, loaded=loaded, until=task.until)
    except Paused as error:
        return Ending("paused", str(error))
    except (Interrupted, KeyboardInterrupt) as error:
        return Ending("interrupted", str(error) or NOT_TRAINING)
    except (InputError, RunFailed) as error:
        return Ending("failed", _show(error))
    except Exception as error:
        traceback.print_exc()
        return Ending("failed", in_short(error))
    return Ending("done")


def _show(error: InputError | RunFailed) -> str:
    """Print the error into the log if no console has shown it; returns its text on one line."""
    if not error.shown:
        print(error, file=sys.stderr)
    return "; ".join(str(error).splitlines())


def _die_with(parent: Connection) -> None:
    """Kill this process once the parent, which alone holds the other end of the pipe, is gone.

    On Linux also when the server that it was forked from is gone.
    """
    die_with_parent()

    def watch() -> None:
        with contextlib.suppress(OSError, EOFError):
            parent.recv()  # the parent never sends anything
        kill_with_children(os.getpid())

    threading.Thread(target=watch, daemon=True, name="parent").start()


def _offer_itself_when_memory_runs_out() -> None:
    """Have Linux kill this process before the sweep or the server, which may use as much and would end all jobs."""
    with contextlib.suppress(OSError, ValueError):
        adjustment = Path("/proc/self/oom_score_adj")
        if int(adjustment.read_bytes()) < _OOM_SCORE:  # only root may lower it
            adjustment.write_text(str(_OOM_SCORE))


def _print_into(log: Path) -> None:
    """Append standard output and error, also those of C libraries, to a file."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    for number in (1, 2):
        os.dup2(descriptor, number)
    os.close(descriptor)
    sys.stdout = open(1, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115


class _JobConsole(Console):
    """Shows the run in the log, and its progress in the parent's display."""

    def __init__(self, parent: Connection, until: int | None) -> None:
        super().__init__("plain")
        self._parent = parent
        self._until = until
        self._extent = Horizon(1, 1, 1)
        self._latest: float | None = None
        self._next = 0.0

    def begin(self, horizon: Horizon, *, has_validation: bool) -> None:
        super().begin(horizon, has_validation=has_validation)
        self._extent = horizon
        self._send(horizon.step)

    def tick(self, step: int, samples: int) -> None:
        super().tick(step, samples)
        if time.perf_counter() >= self._next:
            self._send(step)

    def epoch(self, metrics: EpochMetrics) -> None:
        super().epoch(metrics)
        self._latest = metrics.test_error_rate
        self._send(metrics.step)

    def _send(self, step: int) -> None:
        self._next = time.perf_counter() + _PROGRESS_SECONDS
        epoch = -(-step // max(self._extent.steps_per_epoch, 1))
        steps = self._extent.total_steps
        if self._until is not None:
            steps = min(steps, self._until * self._extent.steps_per_epoch)
        self._parent.send(Progress(min(step / max(steps, 1), 1.0), epoch, self._latest))

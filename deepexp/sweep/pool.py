"""Processes, one a job, never more at once than there are slots; whatever becomes of one, the others go on.

What follows from the end of a job is decided by the watcher (`watcher.py`).
"""

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Protocol

from deepexp.process.spawning import signals_held_back
from deepexp.sweep import server
from deepexp.sweep.slots import Slot
from deepexp.sweep.worker import NOT_TRAINING, Ending, Progress, Task, kill_with_children, run_job
from deepexp.training.interrupt import StopRequest

_POLL_SECONDS = 0.2
_SERVER_GONE = 255  # the exit code that multiprocessing gives a process whose server is gone
_GRACE_SECONDS = 30.0  # within which a job has to save itself once it was asked to stop


class Watcher(Protocol):
    """Is told what happens to jobs; an exception that it raises ends all of them at once."""

    def starting(self, task: Task) -> Task:
        """A process for this try is about to begin; returns the task that it gets."""

    def progress(self, task: Task, progress: Progress) -> None:
        """A job has reported how far it is."""

    def ended(self, task: Task, ending: Ending, *, stopping: bool) -> Task | None:
        """A try has ended; returns another try, to start at once, or None. `stopping`: all jobs are to stop."""

    def wants_more(self) -> bool:
        """Whether jobs that wait shall still be started."""

    def more(self) -> Sequence[Task]:
        """Further tasks, asked for when none waits and a slot is free; none: there is nothing more to do for now."""

    def tick(self) -> None:
        """Called several times a second."""


@dataclass
class _Running:
    task: Task
    slot: Slot
    process: BaseProcess
    pipe: Connection
    began: float = field(default_factory=time.monotonic)
    asked: float | None = None
    """When it was asked to stop."""
    was_stubborn: bool = False
    """Whether it did not stop in time."""
    is_late: bool = False
    ending: Ending | None = None


def run(
    tasks: Iterable[Task], slots: Sequence[Slot], threads: int, watcher: Watcher, time_limit: float | None
) -> int | None:
    """Run all tasks; a job that takes longer than `time_limit` seconds is stopped. Returns the signal, if one came.

    Upon SIGINT or SIGTERM the jobs are asked to save themselves and stop; upon a second SIGINT they are killed and
    `KeyboardInterrupt` is raised.
    """
    pool = _Pool(slots, threads, watcher, time_limit)
    with StopRequest() as stop:
        try:
            pool.run(deque(tasks), stop)
        finally:
            pool.kill()
    return stop.signal_number


class _Pool:
    def __init__(self, slots: Sequence[Slot], threads: int, watcher: Watcher, time_limit: float | None) -> None:
        self.free = list(reversed(slots))
        self.environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self.working_directory = os.getcwd()  # which may be gone by the time of a later job
        self.watcher = watcher
        self.time_limit = time_limit
        self.running: list[_Running] = []

    def run(self, waiting: deque[Task], stop: StopRequest) -> None:
        while True:
            while self.free and stop.signal_number is None and self.watcher.wants_more():
                if not waiting:
                    waiting.extend(self.watcher.more())
                if not waiting:
                    break
                self.start(waiting.popleft())
            if not self.running:
                return
            self.wait()
            for job in list(self.running):
                self.read(job)
                if not job.process.is_alive():
                    again = self.finish(job, stopping=stop.signal_number is not None)
                    if again is not None:
                        self.start(again)  # in the slot that came free, before another job can fail for good
                else:
                    self.limit(job, stopping=stop.signal_number is not None)
            self.watcher.tick()

    def start(self, task: Task) -> None:
        slot = self.free.pop()
        ours, theirs = multiprocessing.Pipe()
        environment = {**self.environment, **slot.environment}
        server.start()  # anew, if it was killed
        task = self.watcher.starting(task)
        if not os.path.isdir(self.working_directory):
            os.chdir(os.sep)  # multiprocessing needs one; the job reports that its own is gone
        process = server.context().Process(
            target=run_job, args=(task, environment, self.working_directory, theirs), name=task.name, daemon=False
        )
        with signals_held_back():
            process.start()
        theirs.close()
        self.running.append(_Running(task, slot, process, ours))

    def wait(self) -> None:
        watched: list[int | Connection] = [job.process.sentinel for job in self.running]
        watched += [job.pipe for job in self.running if not job.pipe.closed]
        connection.wait(watched, timeout=_POLL_SECONDS)

    def read(self, job: _Running) -> None:
        """Take in what a job has sent."""
        try:
            while not job.pipe.closed and job.pipe.poll():
                message = job.pipe.recv()
                if isinstance(message, Ending):
                    job.ending = message
                else:
                    self.watcher.progress(job.task, message)
        except (EOFError, OSError):  # it is gone, perhaps in the middle of a message
            job.pipe.close()

    def finish(self, job: _Running, *, stopping: bool) -> Task | None:
        self.read(job)  # what it sent last
        self.running.remove(job)
        self.free.append(job.slot)
        job.process.join()
        seconds = time.monotonic() - job.began
        ending = job.ending or _ending_of(job)
        if job.is_late and ending.state not in ("done", "paused"):
            limit = self.time_limit or 0.0
            ending = Ending("failed", f"took longer than hydra.launcher.time_limit_minutes={limit / 60:g}")
        elif ending.state == "interrupted" and not stopping:  # something else has stopped this job alone
            ending = Ending("killed", ending.reason)
        job.pipe.close()
        return self.watcher.ended(job.task, Ending(ending.state, ending.reason, seconds), stopping=stopping)

    def limit(self, job: _Running, *, stopping: bool) -> None:
        """Ask a job to stop that is late, or when all are to stop; kill it if it does not."""
        now = time.monotonic()
        if job.asked is not None:
            if now - job.asked > _GRACE_SECONDS:
                job.was_stubborn = True
                _kill(job)
            return
        job.is_late = not stopping and self.time_limit is not None and now - job.began > self.time_limit
        if stopping or job.is_late:
            job.asked = now
            job.process.terminate()

    def kill(self) -> None:
        """End what still runs, at once."""
        for job in self.running:
            _kill(job)
        for job in self.running:
            job.process.join()
            job.pipe.close()
        self.running.clear()


def _kill(job: _Running) -> None:
    if job.process.pid is not None and job.process.is_alive():
        kill_with_children(job.process.pid)


def _ending_of(job: _Running) -> Ending:
    """The ending of a job that has not reported one."""
    if job.was_stubborn:
        return Ending("killed", f"did not stop within {_GRACE_SECONDS:g} s")
    if job.asked is not None and job.process.exitcode == -signal.SIGTERM:  # while no `StopRequest` caught it
        return Ending("interrupted", NOT_TRAINING)
    return Ending("killed", _how_it_died(job.process.exitcode))


def _how_it_died(exitcode: int | None) -> str:
    if exitcode is None or exitcode >= 0:
        return (
            "its process is gone, with the server that it was forked from"
            if exitcode == _SERVER_GONE
            else f"its process ended with status {exitcode}"
        )
    name = signal.Signals(-exitcode).name if -exitcode in signal.valid_signals() else str(-exitcode)
    hint = " (the system does that when memory runs out)" if name == "SIGKILL" else ""
    return f"killed by {name}{hint}"

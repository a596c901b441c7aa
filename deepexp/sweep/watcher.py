"""Records and shows what becomes of the jobs in the pool, and decides what follows from the end of one."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from deepexp.config.compose import compose
from deepexp.sweep.directory import result_of
from deepexp.sweep.display import Display
from deepexp.sweep.ledger import Entry, Ledger, path_within
from deepexp.sweep.points import Point
from deepexp.sweep.settings import LauncherConfig
from deepexp.sweep.worker import Ending, Progress, Task


class Jobs(Protocol):
    """What the watcher asks of the sweep."""

    def task(self, point: Point, entry: Entry, *, anew: bool = False) -> Task:
        """A try of a job; `anew`: from the start, in a new directory, and not from its checkpoint."""

    def is_waiting(self, point: Point) -> bool:
        """Whether a job has still to be trained: to the present look, or to its end."""

    def latest(self, entry: Entry) -> dict[str, Any] | None:
        """The latest evaluation of a job that has paused, if there is one."""


class JobWatcher:
    """The `pool.Watcher` of a sweep: writes into its ledger what happens, and applies the policy for failures."""

    def __init__(
        self,
        config: LauncherConfig,
        directory: Path,
        ledger: Ledger,
        display: Display,
        jobs: Jobs,
        more: Callable[[], Sequence[Point]],
    ) -> None:
        """`directory`: the sweep's. `more`: asked for further points while slots are free."""
        self.config = config
        self.directory = directory
        self.ledger = ledger
        self.display = display
        self.jobs = jobs
        self.more_points = more
        self.points: dict[str, Point] = {}
        self.tries: dict[str, int] = {}
        self.failed: set[str] = set()
        """Jobs that are not tried again."""

    def tasks(self, points: Sequence[Point]) -> list[Task]:
        """A first try of each of these points that is to be run."""
        once = {point.config_hash: point for point in points if point.config_hash not in self.failed}
        self.points.update(once)
        waiting = {name: point for name, point in once.items() if self.jobs.is_waiting(point)}
        return [self.jobs.task(point, self.ledger.entries[name]) for name, point in waiting.items()]

    def more(self) -> list[Task]:
        return self.tasks(self.more_points())

    def starting(self, task: Task) -> Task:
        self.tries[task.config_hash] = self.tries.get(task.config_hash, 0) + 1
        entry = self.ledger.entries[task.config_hash]
        tries = entry.tries + (entry.state != "paused")
        self.ledger.record(
            replace(entry, state="running", tries=tries, directory=task.directory.name, reason=None, log=None)
        )
        self.display.started(task)
        try:
            return replace(task, composed=compose(task.words))
        except Exception:  # a file has changed since all points were checked: the job, and it alone, fails for that
            return task

    def progress(self, task: Task, progress: Progress) -> None:
        self.display.progress(task, progress)

    def ended(self, task: Task, ending: Ending, *, stopping: bool) -> Task | None:
        entry = self.ledger.entries[task.config_hash]
        is_well = ending.state in ("done", "paused")
        run_log = task.directory / "run.log"
        kept = None if is_well else run_log if run_log.exists() else task.log
        entry = replace(
            entry,
            state=ending.state,
            reason=ending.reason,
            log=None if kept is None else path_within(kept, self.directory),
            seconds=round(ending.seconds, 3),
        )
        figures, trouble = result_of(task.directory) if ending.state == "done" else (None, None)
        if ending.state == "paused":
            self.tries[task.config_hash] -= 1  # when it goes on, that is the same try
            figures = self.jobs.latest(entry)
        has_tries = not is_well and self.tries[task.config_hash] <= self.config.retries
        # If the sweep is stopped or killed before the next try begins, the job goes on then, and has not failed.
        goes_on = has_tries and (stopping or self.wants_more()) and ending.state != "interrupted"
        self.ledger.record(entry, *([replace(entry, state="interrupted")] if goes_on else []))
        # It has paused, but the figures that it is compared by are lost. Trained anew, it has the same ones again.
        is_lost = ending.state == "paused" and task.resumes and self.jobs.is_waiting(self.points[task.config_hash])
        if is_lost:
            figures, trouble = None, "its evaluations are lost with its metrics.jsonl"
        again = (has_tries or is_lost) and not stopping and self.wants_more()
        shown_ending = ending if trouble is None else replace(ending, state="failed", reason=trouble)
        self.display.ended(task, shown_ending, figures, again=again)
        if again:
            return self.jobs.task(self.points[task.config_hash], entry, anew=is_lost)
        if not is_well:
            self.failed.add(task.config_hash)
        return None

    def wants_more(self) -> bool:
        return not (self.failed and self.config.on_failure == "stop")

    def tick(self) -> None:
        self.display.tick()

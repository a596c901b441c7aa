"""What is written down and shown of the jobs in the pool, and what follows from the end of one."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from deepexp.compose import compose
from deepexp.sweep.directory import result_of
from deepexp.sweep.display import Display
from deepexp.sweep.ledger import Entry, Ledger, path_within
from deepexp.sweep.points import Point
from deepexp.sweep.settings import LauncherConfig
from deepexp.sweep.worker import Ending, Progress, Task


class JobWatcher:
    """The `pool.Watcher` of a sweep: writes into its ledger what happens, and applies the policy for failures."""

    def __init__(
        self,
        config: LauncherConfig,
        directory: Path,
        ledger: Ledger,
        display: Display,
        task: Callable[[Point, Entry], Task],
        more: Callable[[], Sequence[Point]] = list,
    ) -> None:
        """`directory`: the sweep's. `task`: a try of a job. `more`: asked for further points while slots are free."""
        self.config = config
        self.directory = directory
        self.ledger = ledger
        self.display = display
        self._task = task
        self._more = more
        self.points: dict[str, Point] = {}
        self.tries: dict[str, int] = {}
        self.has_failed = False

    def tasks(self, points: Sequence[Point]) -> list[Task]:
        """A first try of each of these points that has no result."""
        once = {point.config_hash: point for point in points}
        self.points.update(once)
        entries = {name: self.ledger.entries[name] for name in once}
        return [self._task(once[name], entry) for name, entry in entries.items() if entry.state != "done"]

    def more(self) -> list[Task]:
        return self.tasks(self._more())

    def starting(self, task: Task) -> Task:
        self.tries[task.config_hash] = self.tries.get(task.config_hash, 0) + 1
        entry = self.ledger.entries[task.config_hash]
        self.ledger.record(
            replace(entry, state="running", tries=entry.tries + 1, directory=task.directory.name, reason=None, log=None)
        )
        self.display.started(task)
        try:
            return replace(task, composed=compose("train", task.words))
        except Exception:  # a file has changed since all points were checked: the job, and it alone, fails for that
            return task

    def progress(self, task: Task, progress: Progress) -> None:
        self.display.progress(task, progress)

    def ended(self, task: Task, ending: Ending, *, stopping: bool) -> Task | None:
        entry = self.ledger.entries[task.config_hash]
        run_log = task.directory / "run.log"
        kept = None if ending.state == "done" else run_log if run_log.exists() else task.log
        entry = replace(
            entry,
            state=ending.state,
            reason=ending.reason,
            log=None if kept is None else path_within(kept, self.directory),
            seconds=round(ending.seconds, 3),
        )
        self.ledger.record(entry)
        summary, trouble = result_of(task.directory) if ending.state == "done" else (None, None)
        has_tries = self.tries[task.config_hash] <= self.config.retries and self.wants_more()
        again = ending.state != "done" and not stopping and has_tries
        shown_ending = ending if trouble is None else replace(ending, state="failed", reason=trouble)
        self.display.ended(task, shown_ending, summary, again=again)
        if ending.state == "done":
            return None
        if again:
            return self._task(self.points[task.config_hash], entry)
        self.has_failed = True
        return None

    def wants_more(self) -> bool:
        return not (self.has_failed and self.config.on_failure == "stop")

    def tick(self) -> None:
        self.display.tick()

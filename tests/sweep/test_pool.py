"""The pool with jobs that end at the same moment; no processes are started."""

import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from deepexp.sweep import pool
from deepexp.sweep.pool import Watcher
from deepexp.sweep.slots import Slot
from deepexp.sweep.worker import Ending, Task


class Dead:
    """A process that has already ended."""

    pid = None
    exitcode = 1

    def __init__(self, **_: Any) -> None:
        self.sentinel, writing = os.pipe()
        os.close(writing)  # so that waiting for it ends at once

    def start(self) -> None: ...

    def join(self) -> None:
        os.close(self.sentinel)

    def is_alive(self) -> bool:
        return False


@pytest.fixture
def dead(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(pool.server, "start", lambda: None)
    monkeypatch.setattr(pool.server, "context", lambda: SimpleNamespace(Process=Dead))
    yield


class StopAtFailure(Watcher):
    """Tries `a` twice and the others once, and wants no more once one has failed for good."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.has_failed = False

    def starting(self, task: Task) -> Task:
        self.started.append(task.name)
        return task

    def progress(self, task: Task, progress: Any) -> None: ...

    def ended(self, task: Task, ending: Ending, *, stopping: bool) -> Task | None:
        if task.name == "a" and self.started.count("a") == 1:
            return task
        self.has_failed = True
        return None

    def wants_more(self) -> bool:
        return not self.has_failed

    def more(self) -> list[Task]:
        return []

    def tick(self) -> None: ...


def test_an_announced_retry_is_made_although_another_job_fails_for_good(dead: None) -> None:
    """The display has shown the retry, and the ledger counted it."""
    tasks: list[Any] = [SimpleNamespace(name=name) for name in ("a", "b", "c")]
    watcher = StopAtFailure()
    assert pool.run(tasks, [Slot({}), Slot({})], 1, watcher, None) is None
    assert watcher.started == ["a", "b", "a"]

"""What the ledger says of a job that has ended."""

import types
from pathlib import Path
from typing import Any, Literal, cast

import pytest

from deepexp.sweep.ledger import Entry
from deepexp.sweep.settings import LauncherConfig
from deepexp.sweep.watcher import JobWatcher
from deepexp.sweep.worker import Ending, Task


@pytest.mark.parametrize("on_failure", ["continue", "stop"])
def test_one_that_fails_while_its_sweep_is_stopped_has_failed_only_without_tries_left(
    tmp_path: Path, on_failure: Literal["continue", "stop"]
) -> None:
    entries = {name: Entry("seed=0", name, [], "running") for name in "ab"}

    def record(*records: Entry) -> None:
        entries[records[-1].config_hash] = records[-1]

    book: Any = types.SimpleNamespace(entries=entries, record=record)
    display: Any = types.SimpleNamespace(ended=lambda *_, again: None)
    watcher = JobWatcher(
        LauncherConfig(retries=1, on_failure=on_failure), tmp_path, book, display, cast(Any, None), list
    )
    watcher.tries = {"a": 2, "b": 1}
    for name in "ab":
        task = Task(f"seed={name}", name, [], tmp_path / name, False, tmp_path / "log")
        assert watcher.ended(task, Ending("failed", "why"), stopping=True) is None
    assert [entries[name].state for name in "ab"] == ["failed", "interrupted"]
    assert entries["b"].reason == "why"

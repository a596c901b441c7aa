"""The process of a job; here it is forked from the tests, and trains nothing."""

import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from deepexp.sweep import worker
from deepexp.sweep.worker import Ending, Task, run_job

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and looks into /proc")


def ending_of_job(folder: Path, log: Path) -> Ending:
    """The ending of a job that prints into `log`."""
    task = Task("job", "0" * 8, [], folder / "job", resumes=False, log=log)
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(
        target=run_job, args=(task, dict(os.environ), str(folder), theirs)
    )
    process.start()
    theirs.close()
    process.join(timeout=60)
    assert process.exitcode == 0
    ending = ours.recv()
    assert isinstance(ending, Ending)
    return ending


def test_a_job_is_killed_before_its_sweep_when_memory_runs_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(*_: Any, **__: Any) -> None:
        (tmp_path / "score").write_bytes(Path("/proc/self/oom_score_adj").read_bytes())

    monkeypatch.setattr(worker, "train", train)
    assert ending_of_job(tmp_path, tmp_path / "log") == Ending("done")
    ours = int(Path("/proc/self/oom_score_adj").read_bytes())
    assert int((tmp_path / "score").read_bytes()) >= max(ours, 500)


def test_a_job_whose_log_cannot_be_made_reports_why(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    ending = ending_of_job(tmp_path, tmp_path / "log")
    assert ending.state == "failed"
    assert str(ending.reason).startswith(f"cannot write {tmp_path / 'log'}: Is a directory")

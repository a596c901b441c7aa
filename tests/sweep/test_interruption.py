"""Sweeps, as separate processes, that are interrupted or killed: what is left, and that they can be resumed."""

import functools
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import deepexp
from deepexp.sweep import ledger

from .conftest import SMALL, Sweeper
from .processes import begin, jobs_of, processes_of, wait_until_gone

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc"),
]

ONE = (*SMALL, "model=troubled", "epochs=4", "output_dir=slow")
SLOW = (*ONE, "model.trouble=slow", "seed=0,1,2")


def wait_for_checkpoint(folder: Path, seconds: float = 120) -> Path:
    """Wait until some job has saved its first epoch; returns the sweep's directory."""
    deadline = time.monotonic() + seconds
    while not (found := list(folder.glob("slow/*/*/*/checkpoints/last.pt"))):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found[0].parents[2]


@pytest.fixture
def started(folder: Path, default_signals: None) -> Iterator[subprocess.Popen[str]]:
    """A sweep of three slow jobs, two at a time."""
    process = begin(folder, "-m", *SLOW, "hydra.launcher.jobs=2")
    yield process
    for left in processes_of(folder):
        os.kill(left, signal.SIGKILL)
    process.wait()


@functools.cache
def losses_without_interruption() -> list[float]:
    """Test losses of the same three runs alone; needs the working directory of a test."""
    runs = [deepexp.train([*ONE, f"seed={seed}"], quiet=True) for seed in range(3)]
    return [run.test_loss for run in runs if run]


def assert_goes_on_to_its_end(sweep: Sweeper, directory: Path) -> None:
    """The resumed sweep has the results of an uninterrupted one, and ran no finished job again."""
    before = {entry.job: entry.state for entry in ledger.read(directory / "ledger.jsonl").values()}
    resumed = sweep(f"resume={directory}", quiet=True)
    assert resumed.failures == []
    losses = [row.summary["test_loss"] for row in resumed.rows if row.summary]
    assert losses == losses_without_interruption() and len(losses) == 3
    tries = {row.name: row.tries for row in resumed.rows}
    assert all(tries[name] == 1 for name, state in before.items() if state == "done")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_the_group_saves_all_jobs_and_leaves_no_process(
    started: subprocess.Popen[str], folder: Path, sweep: Sweeper, number: signal.Signals
) -> None:
    directory = wait_for_checkpoint(folder)
    os.killpg(started.pid, number)  # as terminals, `timeout` and clusters do; the server of the jobs is in this group
    out, _ = started.communicate(timeout=60)
    assert started.returncode == 128 + number
    assert f"go on with: deepexp train resume={directory.relative_to(folder)}" in out
    assert "Traceback" not in out
    wait_until_gone(folder)
    states = {entry.state for entry in ledger.read(directory / "ledger.jsonl").values()}
    assert states <= {"interrupted", "queued", "done"} and "interrupted" in states
    assert "are not finished: " in out and "failed" not in out
    assert_goes_on_to_its_end(sweep, directory)


def test_a_second_ctrl_c_ends_a_sweep_at_once(started: subprocess.Popen[str], folder: Path) -> None:
    wait_for_checkpoint(folder)
    for job in jobs_of(started, folder):
        os.kill(job, signal.SIGSTOP)  # so that it cannot save and end
    started.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert started.poll() is None
    started.send_signal(signal.SIGINT)
    out, _ = started.communicate(timeout=20)
    assert started.returncode == 130 and "go on with:" in out and "cut off" in out
    wait_until_gone(folder)


@pytest.mark.parametrize("whom", ["parent", "group"])
def test_sigkill_leaves_no_process_and_loses_nothing(
    started: subprocess.Popen[str], folder: Path, sweep: Sweeper, whom: str
) -> None:
    directory = wait_for_checkpoint(folder)
    if whom == "parent":
        started.kill()
    else:
        os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    wait_until_gone(folder)
    assert_goes_on_to_its_end(sweep, directory)


def test_a_killed_worker_affects_only_its_own_job(started: subprocess.Popen[str], folder: Path) -> None:
    directory = wait_for_checkpoint(folder)
    running = [entry for entry in ledger.read(directory / "ledger.jsonl").values() if entry.state == "running"]
    os.kill(jobs_of(started, folder)[0], signal.SIGKILL)
    out, _ = started.communicate(timeout=120)
    assert started.returncode == 1 and running
    assert out.count("killed: killed by SIGKILL") >= 2  # in the line of the job, and at the end
    states = [entry.state for entry in ledger.read(directory / "ledger.jsonl").values()]
    assert sorted(states) == ["done", "done", "killed"]

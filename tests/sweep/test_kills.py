"""Sweeps that are killed at any time and resumed end with the same results as one that was not killed.

The real command is killed with SIGKILL at seeded random times: one of its jobs, the server that they are forked from,
the parent alone, or all at once. DEEPEXP_SWEEP_KILLS=20 sets how often; by default a few times.
"""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from deepexp import checkpoint
from deepexp.sweep import ledger

from .processes import begin, jobs_of, processes_of, wait_until_gone

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc"),
]

KILLS = int(os.environ.get("DEEPEXP_SWEEP_KILLS", "2"))
JOBS = 4
GRID = [
    "-m", "optim.lr=0.01,0.1", "seed=0,1", "epochs=3", "data.subset=300", "batch_size=30", "dropout=0.2", "threads=1",
    "device=cpu", "checkpoint.every_minutes=0.002", "hydra.launcher.jobs=2", "output_dir=out",
]  # fmt: skip
VICTIMS = ("group", "parent", "job", "server")
CLOCKS_AND_TRIES = ("train_seconds", "total_seconds", "tries")
SECONDS_TO_DIE = 2.0


@dataclass(frozen=True)
class Whole:
    """A sweep that was not interrupted."""

    directory: Path
    seconds: float


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    began = time.monotonic()
    status = begin(folder, *GRID, log=folder / "log").wait(timeout=300)
    assert status == 0, (folder / "log").read_text()
    (directory,) = sweeps_in(folder)
    return Whole(directory, time.monotonic() - began)


@pytest.fixture(scope="module")
def tally(request: pytest.FixtureRequest) -> Iterator[Counter[str]]:
    """Counts what was killed, and in which phase."""
    counts: Counter[str] = Counter()
    yield counts
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        hits = ", ".join(f"{what} {count}" for what, count in sorted(counts.items()))
        print(f"\n{sum(counts.values())} kills of sweeps, that have hit: {hits}")


@pytest.mark.parametrize("number", range(KILLS))
def test_sweeps_killed_at_random_times_resume_exactly(
    tmp_path: Path, whole: Whole, tally: Counter[str], number: int
) -> None:
    random_times = random.Random(f"sweep {number}")
    done: dict[str, int] = {}
    for attempt in range(3):
        victim = VICTIMS[(number + attempt) % len(VICTIMS)]
        strike(tmp_path, random_times.uniform(0, 1.02 * whole.seconds), victim, tally)
        assert done.items() <= (done := results(tmp_path)).items(), "what had finished was touched again"
        if random_times.random() < 0.6:
            break
    status = go_on(tmp_path).wait(timeout=300)
    assert status == 0, (tmp_path / "log").read_text()
    wait_until_gone(tmp_path, SECONDS_TO_DIE)
    assert done.items() <= results(tmp_path).items(), "what had finished was touched again"
    (directory,) = sweeps_in(tmp_path)
    assert_same(directory, whole.directory)
    assert_nothing_ran_to_its_end_twice(directory)


def strike(folder: Path, seconds: float, victim: str, tally: Counter[str]) -> None:
    """Begin or resume the sweep, and kill some of its processes after so many seconds."""
    started = go_on(folder)
    try:
        started.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        hit = f"{phase(folder)}, {kill(started, folder, victim)}"
    else:
        hit = "after the end"
    tally[hit] += 1
    if hit.endswith(("job", "server")):
        started.wait(timeout=120)  # the sweep goes on without that process
    started.wait(timeout=10)
    wait_until_gone(folder, SECONDS_TO_DIE)


def go_on(folder: Path) -> subprocess.Popen[str]:
    """Resume the sweep in a folder, or begin one if none has a directory yet."""
    begun = sweeps_in(folder)
    words = [f"resume={begun[0]}"] if begun else GRID
    return begin(folder, *words, log=folder / "log")


def kill(started: subprocess.Popen[str], folder: Path, victim: str) -> str:
    """Kill a victim of this kind, or the parent if there is none yet; returns what was killed."""
    jobs = jobs_of(started, folder)
    servers = [process for process in processes_of(folder) if b"forkserver" in command_of(process)]
    servers = [server for server in servers if server not in jobs]
    if victim == "group":
        for process in [started.pid, *jobs]:
            os.killpg(process, signal.SIGKILL)
    elif victim == "job" and jobs:
        os.kill(jobs[0], signal.SIGKILL)
    elif victim == "server" and servers:
        os.kill(servers[0], signal.SIGKILL)
    else:
        victim = "parent"
        started.kill()
    return victim


def command_of(process: int) -> bytes:
    try:
        return Path("/proc", str(process), "cmdline").read_bytes()
    except OSError:
        return b""


def phase(folder: Path) -> str:
    """How far the sweep is, from its files."""
    begun = sweeps_in(folder)
    if not begun:
        return "start-up"
    states = Counter(entry.state for entry in ledger.read(begun[0] / "ledger.jsonl").values())
    if not states["done"] + states["running"]:
        return "pre-flight"
    return "the end" if states["done"] == JOBS else "running"


def sweeps_in(folder: Path) -> list[Path]:
    return [path.parent for path in folder.glob("out/*/*/sweep.json")]


def results(folder: Path) -> dict[str, int]:
    """Modification times of the summaries of finished runs."""
    finished = [path.parent for path in folder.glob("out/*/*/*/status.json") if '"done"' in path.read_text()]
    return {run.name: (run / "summary.json").stat().st_mtime_ns for run in finished}


def assert_same(directory: Path, whole: Path) -> None:
    """The tables are equal apart from times and tries, and the weights bit for bit."""
    mine, theirs = table(directory), table(whole)
    assert mine == theirs
    for line in theirs:
        weights = [state(path / line["directory"]) for path in (directory, whole)]
        assert weights[0].keys() == weights[1].keys()
        assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def table(directory: Path) -> list[dict[str, str]]:
    with (directory / "table.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == JOBS and {line["status"] for line in lines} == {"done"}
    return [{key: value for key, value in line.items() if key not in CLOCKS_AND_TRIES} for line in lines]


def state(run: Path) -> dict[str, Any]:
    model: dict[str, Any] = checkpoint.load(run / "checkpoints" / "last.pt")["model"]
    return model


def assert_nothing_ran_to_its_end_twice(directory: Path) -> None:
    finished = {path.parent.name.partition("~")[0] for path in directory.glob("*/summary.json")}
    assert len(finished) == len(list(directory.glob("*/summary.json"))) == JOBS
    done: set[str] = set()
    for line in (directory / "ledger.jsonl").read_text().splitlines():
        entry = json.loads(line)
        assert not (entry["state"] == "running" and entry["job"] in done)
        done |= {entry["job"]} if entry["state"] == "done" else set()
    assert len(done) == JOBS
    for run in directory.glob("*/metrics.jsonl"):
        epochs = [json.loads(line)["epoch"] for line in run.read_text().splitlines()]
        assert epochs == [1, 2, 3]

"""Runs that are killed at any time and resumed end with the same files, bit for bit, as runs that were not killed.

The real command is killed with SIGKILL at seeded random times, and at each write point of a checkpoint. A few by
default; DEEPEXP_KILLS=60 sets how many at random times, and has all combinations and write points tried.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ..same_run import assert_same_run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has imported torch, and reads /proc"),
]

COMMON = ["epochs=3", "data.subset=160", "batch_size=20", "threads=1", "device=cpu", "log_every=3"]
EVERY_SAVE = "checkpoint.every_minutes=0.0003"

COMBINATIONS = {
    "mnist_net, sgd": [],
    "mnist_net, adam, dropout, streamed": ["optim=adam", "dropout=0.3", "data.mode=streamed", "data.workers=1"],
    "mnist_net, momentum, bf16, mixup": ["optim=momentum", "optim.lr=0.02", "precision=bf16", "augment=mixup"],
    "mnist_net, muon, one_cycle": ["optim=muon", "schedule=one_cycle"],
    "mnist_net, lbfgs": ["optim=lbfgs", "optim.max_iter=2", "dropout=0.2"],
    "mnist_net, rmsprop, ema, validation": ["optim=rmsprop", "ema=0.9", "val_fraction=0.1", "batch_norm=true"],
    "mnist_net, adamw, accumulate, clip": ["optim=adamw", "accumulate=3", "clip_grad_norm=1.0", "augment=cutmix"],
    "mnist_net, adagrad, freeze, with_replacement": [
        "optim=adagrad", "freeze=[{pattern: conv1.*, epochs: 1}]", "order=with_replacement", "label_smoothing=0.1",
    ],
    "resnet, nesterov, cosine, bf16, streamed": [
        "model=resnet", "model.depth=8", "model.width=4", "optim=nesterov", "schedule=cosine", "precision=bf16",
        "data.mode=streamed", "data.workers=0", "augment=crop_flip",
    ],
    "resnet, nadam, evaluate_every": [
        "model=resnet", "model.depth=8", "model.width=4", "optim=nadam", "evaluate_every=2", "val_fraction=0.2",
    ],
    "monster, adadelta": [
        "model=monster", "model.pretrained=false", "model.nb_residual_blocks=1", "model.nb_channels=8",
        "optim=adadelta",
    ],
    "monster, adamax, step": [
        "model=monster", "model.pretrained=false", "model.nb_residual_blocks=1", "model.nb_channels=8", "optim=adamax",
        "schedule=step", "augment=cutout",
    ],
}  # fmt: skip

WRITE_POINTS = [
    ("half of the file written", ".last.pt.partial"),
    ("half of the file written", ".best.pt.partial"),
    ("before fsync", ".last.pt.partial"),
    ("after fsync", ".last.pt.partial"),
    ("before link", "previous.pt.tmp"),
    ("after link", "previous.pt.tmp"),
    ("before replace", "previous.pt"),
    ("after replace", "previous.pt"),
    ("before replace", "last.pt"),
    ("after replace", "last.pt"),
    ("before replace", "best.pt"),
    ("after replace", "best.pt"),
]


class Commands:
    """Runs `deepexp …` in processes forked from one that has imported everything."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._server = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("server.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            cwd=folder,
        )
        assert self._answer() == "ready"

    def __call__(self, *argv: str, seconds: float | None = None, fault: dict[str, Any] | None = None) -> int:
        """The exit status of one command, killed after some seconds or by a fault."""
        assert self._server.stdin is not None
        command = {"argv": argv, "seconds": seconds, "fault": fault, "log": str(self.folder / "log")}
        print(json.dumps(command), file=self._server.stdin, flush=True)
        return int(self._answer())

    def close(self) -> None:
        self._server.kill()
        self._server.communicate()

    def _answer(self) -> str:
        assert self._server.stdout is not None
        return self._server.stdout.readline().strip()


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    made = Commands(tmp_path_factory.mktemp("commands"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def tally() -> Iterator[list[int]]:
    """Counts the kills, and prints how many there were."""
    kills = [0]
    yield kills
    print(f"\n{kills[0]} kills; every run went on to the end of the run that was not killed, bit for bit")


KILLS = os.environ.get("DEEPEXP_KILLS")
EACH = -(-int(KILLS or 12) // len(COMBINATIONS))
CHOSEN = COMBINATIONS if KILLS else dict(list(COMBINATIONS.items())[1::4])


@pytest.mark.parametrize("options", CHOSEN.values(), ids=CHOSEN.keys())
def test_runs_killed_at_random_times_resume_exactly(
    commands: Commands, tmp_path: Path, tally: list[int], options: list[str]
) -> None:
    chosen = random.Random(" ".join(options))
    whole, seconds = run_to_the_end(commands, tmp_path / "whole", options)
    kills, number = 0, 0
    while kills < EACH:
        number += 1
        assert number < 100, "it always ends before it is killed"
        folder = tmp_path / f"killed {number}"
        kills += kill_until_done(commands, folder, options, EACH - kills, lambda: chosen.uniform(0.25, 1.0) * seconds)
        compare(finish(commands, folder, options), whole)
    tally[0] += kills


def kill_until_done(commands: Commands, folder: Path, options: list[str], most: int, pause: Callable[[], float]) -> int:
    """Kill a run until it ends before the kill, or `most` times; returns how often it was killed."""
    words = ["train", *COMMON, EVERY_SAVE, *options, f"output_dir={folder}"]
    for kills in range(most):
        begun = [path for path in folder.glob("*/*") if (path / "status.json").exists()]
        if begun:
            words = ["train", f"resume={begun[0]}"]
        status = commands(*words, seconds=pause())
        if status == 0:
            return kills
        assert status == -signal.SIGKILL, (folder, (commands.folder / "log").read_text()[-2000:])
    return most


@pytest.mark.parametrize(("point", "name"), WRITE_POINTS if KILLS else WRITE_POINTS[::3], ids=lambda value: value)
def test_runs_killed_at_each_write_point_resume_exactly(
    commands: Commands, tmp_path: Path, tally: list[int], reference: Path, point: str, name: str
) -> None:
    folder = tmp_path / "killed"
    count = 1 if "best" in name else 4
    words = ["train", *COMMON, EVERY_SAVE, *VALIDATED, f"output_dir={folder}"]
    status = commands(*words, fault={"point": point, "name": name, "count": count})
    assert status == -signal.SIGKILL, (commands.folder / "log").read_text()[-2000:]
    tally[0] += 1
    compare(finish(commands, folder, VALIDATED), reference)


VALIDATED = ["optim=adam", "dropout=0.2", "val_fraction=0.2"]


@pytest.fixture(scope="module")
def reference(commands: Commands, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_to_the_end(commands, tmp_path_factory.mktemp("reference"), VALIDATED)[0]


def run_to_the_end(commands: Commands, folder: Path, options: list[str]) -> tuple[Path, float]:
    began = time.monotonic()
    status = commands("train", *COMMON, *options, f"output_dir={folder}")
    assert status == 0, (commands.folder / "log").read_text()[-2000:]
    (run,) = folder.glob("*/*")
    return run, time.monotonic() - began


def finish(commands: Commands, folder: Path, options: list[str]) -> Path:
    """Resume the run in a folder, or begin one if none has a directory yet."""
    found = [path for path in folder.glob("*/*") if (path / "status.json").exists()]
    if not found:
        return run_to_the_end(commands, folder.with_name(f"{folder.name} again"), [*options, EVERY_SAVE])[0]
    (run,) = found
    assert commands("train", f"resume={run}") == 0, (commands.folder / "log").read_text()[-2000:]
    return run


def compare(run: Path, whole: Path) -> None:
    """Everything but times must be equal bit for bit, and no other file be left."""
    assert_same_run(run, whole)
    assert {path.name for path in (run / "checkpoints").iterdir()} == {
        path.name for path in (whole / "checkpoints").iterdir()
    }

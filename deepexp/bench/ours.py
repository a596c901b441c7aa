"""deepexp itself as a contender: the trainer that `deepexp train` uses, writing all that a run writes.

Its run directory is a temporary one. Only what is drawn on a terminal is left out.

The outputs of frozen first layers are kept from one turn to the next, as a run keeps them from one epoch to the next
(`training/frozen_features.py`). So the frozen epochs after the first are measured: the step is a median of turns, of
which only the first ones fill the memory, and the epoch comes after one to warm up. The first frozen epoch takes as
long as without keeping; `bench epoch warm_up=false rounds=1` measures it. `cache_frozen=false` keeps nothing.
"""

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from deepexp import build
from deepexp.bench.breakdown import Breakdown
from deepexp.bench.contender import EpochResult, peak_memory_bytes
from deepexp.bench.operations import breakdown, busy_seconds, profiler
from deepexp.check import Plan
from deepexp.data.memory import available_bytes
from deepexp.run.rundir import HydraFiles, RunDirectory
from deepexp.runlog import RunLog
from deepexp.runtime import synchronise
from deepexp.schema import CheckpointConfig, TrainConfig
from deepexp.text.console import Console
from deepexp.trainer import Trainer
from deepexp.training.interrupt import StopRequest

_LEAD = 2  # updates before the clock starts: the order is drawn and memory allocated in the first

_PIECE = 64 << 20  # bytes; glibc gives blocks of a gigabyte back to the system


@contextlib.contextmanager
def opened(config: TrainConfig, plan: Plan) -> Iterator["Ours"]:
    """The trainer, ready to start, in a process set up as for a run."""
    with build.session(config, plan), tempfile.TemporaryDirectory(prefix="deepexp-bench-") as folder:
        run = RunDirectory.create(folder, "bench", HydraFiles("", "", ""))
        log = _Stopwatch(run, Console("quiet"), plan.device)
        try:
            yield Ours(config, plan, log, run.checkpoints)
        finally:
            log.close()
            run.unlock()


class Ours:
    """A `Contender`."""

    name = "deepexp"

    def __init__(self, config: TrainConfig, plan: Plan, log: "_Stopwatch", checkpoints: Path) -> None:
        # One epoch that nothing cuts short; what is frozen in it follows from the epochs that the config asks for.
        self._config = dataclasses.replace(
            config,
            epochs=1,
            evaluate_every=1,
            early_stop=None,
            max_steps=None,
            max_minutes=None,
            checkpoint=CheckpointConfig(),
        )
        self._plan = plan
        self._log = log
        self._checkpoints = checkpoints
        data = build.dataset(config, plan)
        model = build.model(config, plan.shape, len(data.classes), plan.device)
        self._parts = build.parts(config, plan, data, model, build.data_mode(config, plan, data))
        # Updates are recorded once all features of an epoch are kept, and a turn may end long before an epoch does.
        self._has_to_fill = self._parts.step.recorded and self._parts.frozen_features.epochs > 0

    def steps(self, count: int) -> float:
        """See `Contender`; over as many epochs as it takes, without their tests."""
        self._fill()
        seconds, left = 0.0, count
        while left:
            made = self._at_once(left)
            seconds += self._timed(made)
            left -= made
        return seconds / count

    def epoch(self) -> EpochResult:
        """See `Contender`; saving the checkpoint counts too."""
        began = time.perf_counter()
        outcome = self._trainer().fit()
        synchronise(self._plan.device)
        return EpochResult(time.perf_counter() - began, outcome.test.error_rate)

    def kernel_share(self, count: int) -> float | None:
        """The share of a step's time in which the GPU is at work; None where there is no GPU, or it does not tell.

        Steps are timed without the profiler, which makes them longer, but not the GPU's part of them.
        """
        if self._plan.device.type != "cuda":
            return None
        profile, made, _ = self._profiled(count)
        return busy_seconds(profile) / made / self.steps(count) or None

    def breakdown(self, count: int) -> Breakdown:
        """Where a step spends its time, as the mean of at most `count`; the process may double its memory for it."""
        if self._plan.device.type == "cpu":
            _widen_heap(self._plan.device)
        profile, made, seconds = self._profiled(count)
        return breakdown(profile, self._plan.device, made, seconds)

    def _profiled(self, count: int) -> tuple[torch.profiler.profile, int, float]:
        """(profile, number, seconds) of at most `count` updates."""
        self._fill()
        profile, made = profiler(self._plan.device), self._at_once(count)
        return profile, made, self._timed(made, profile)

    def _fill(self) -> None:
        if self._has_to_fill:
            self._has_to_fill = False
            self._timed(len(self._plan.updates))

    def _at_once(self, count: int) -> int:
        """How many of `count` updates can be timed in one epoch."""
        return min(count, max(1, len(self._plan.updates) - _LEAD))

    def _timed(self, count: int, profile: torch.profiler.profile | None = None) -> float:
        """Seconds of `count` updates of an epoch, which is then broken off; `profile` records them and no others."""
        self._log.arm(min(_LEAD, len(self._plan.updates) - count), count, profile)
        with contextlib.suppress(_TurnOver):
            self._trainer().fit()
        return self._log.seconds

    def _trainer(self) -> Trainer:
        return Trainer(self._config, self._parts, self._plan.total_steps, self._log, self._checkpoints, StopRequest())


def _widen_heap(device: torch.device) -> None:
    """Give the process spare pages, as many as it has had at most, before it is profiled.

    A profiler's small records take parts of freed blocks, which are then too short for the next tensor. It would get
    new pages from the system, and an operation that writes 8 MB to it would take several times as long.
    """
    peak, available = peak_memory_bytes(), available_bytes(device)
    if peak is not None and available is not None:
        spare = min(peak, available // 4)
        [torch.empty(_PIECE, dtype=torch.uint8).fill_(0) for _ in range(spare // _PIECE)]  # held until all are there


class _TurnOver(Exception):
    """The updates that were to be timed have been made."""


class _Stopwatch(RunLog):
    """The log of a run, which the trainer calls after each update and which can therefore time them."""

    def __init__(self, run: RunDirectory, console: Console, device: torch.device) -> None:
        super().__init__(run, console)
        self._device = device
        self.seconds = 0.0
        self._first: int | None = None
        self._last: int | None = None
        self._began = 0.0
        self._profile: torch.profiler.profile | None = None

    def arm(self, lead: int, count: int, profile: torch.profiler.profile | None) -> None:
        """Time the `count` updates after the first `lead` of the next epoch, then raise `_TurnOver`."""
        self._first, self._last = lead, lead + count
        self._profile = profile
        if lead == 0:
            self._begin()

    def tick(self, step: int, samples: int) -> None:
        super().tick(step, samples)
        if step == self._first:
            self._begin()
        elif step == self._last:
            synchronise(self._device)
            self.seconds = time.perf_counter() - self._began
            self._first = self._last = None
            if self._profile is not None:
                self._profile.stop()
            raise _TurnOver

    def _begin(self) -> None:
        synchronise(self._device)
        if self._profile is not None:
            self._profile.start()
        self._began = time.perf_counter()

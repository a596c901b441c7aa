"""What takes part in a comparison: one way of training a given model on given data.

They are `ours.py`, `plain.py`, `bare.py`, `lightning_loop.py` and `keras_loop.py`; each runs in a process of its own
(`worker.py`).
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from deepexp.schema import TrainConfig


@dataclass(frozen=True)
class EpochResult:
    """An epoch of training and a pass over the test set."""

    seconds: float
    test_error_rate: float


class Unsuited(Exception):
    """A contender does not have what the config asks for, and is left out; says why."""


class Contender(Protocol):
    """Trains the model, each time from where it is by then: only time is measured, and each step takes as long."""

    name: str
    """For people, with its version."""

    def steps(self, count: int) -> float:
        """Make `count` updates; returns the mean seconds of one."""
        ...

    def epoch(self) -> EpochResult:
        """Train for one epoch and test."""
        ...


def check_plain_batches(config: TrainConfig) -> None:
    """Raise `Unsuited` for updates of several batches or of the whole set, which no framework's own loop makes."""
    if config.accumulate > 1 or isinstance(config.batch_size, str):
        raise Unsuited("it is given plain batches only")


def peak_memory_bytes() -> int | None:
    """The most memory that this process has had (resident, not on a GPU); None where the system does not tell."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage of a Linux process can hold the peak of the one that started it
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if os.name != "posix":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def peak_device_memory_bytes(device: torch.device) -> int | None:
    """The most memory that torch has reserved on a GPU; None on a CPU."""
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None

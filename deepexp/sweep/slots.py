"""How many jobs run at a time here, on which device and with how many threads each."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from deepexp import runtime
from deepexp.sweep.settings import LauncherConfig


@dataclass(frozen=True)
class Slot:
    """A place for one job at a time, and the environment variables that keep the job to it."""

    environment: dict[str, str]


def make_slots(config: LauncherConfig, devices: Sequence[torch.device], *, any_gpu: bool) -> list[Slot]:
    """Slots for jobs on these `devices`, one entry a job; no more slots than jobs.

    On a CPU: one for each core. On CUDA: `jobs_per_gpu` for each GPU, which is then the only one that the job sees; but
    where jobs name their GPU themselves (`any_gpu` is false), `jobs_per_gpu` in all, and jobs see every GPU that this
    process sees. A Mac has one GPU, which needs no name.
    """
    if any(device.type == "cuda" for device in devices):
        gpus = _visible_gpus() if any_gpu else []
        count = config.jobs_per_gpu * max(len(gpus), 1) if config.jobs == "auto" else config.jobs
        places = [{"CUDA_VISIBLE_DEVICES": gpus[index % len(gpus)]} if gpus else {} for index in range(count)]
    elif any(device.type == "mps" for device in devices):
        places = [{} for _ in range(config.jobs_per_gpu if config.jobs == "auto" else config.jobs)]
    else:
        places = [{} for _ in range(runtime.available_cores() if config.jobs == "auto" else config.jobs)]
    return [Slot(environment) for environment in places[: len(devices)]]


def threads_of_a_job(slots: int) -> int:
    """The cores of this process, divided among the slots."""
    return max(1, runtime.available_cores() // slots)


def _visible_gpus() -> list[str]:
    """What `CUDA_VISIBLE_DEVICES` calls each GPU that this process may use."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = given.split(",") if given else []
    return [names[index] if index < len(names) else str(index) for index in range(torch.cuda.device_count())]

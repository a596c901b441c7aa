"""What an update consists of, as torch's profiler sees it: on a CPU torch's operations, on a GPU kernels and copies."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.profiler import ProfilerActivity

from deepexp.bench.breakdown import Breakdown, Operation

Interval = tuple[float, float]
"""Begin and end of a kernel or a copy, in microseconds."""


def profiler(device: torch.device) -> torch.profiler.profile:
    """To be started and stopped around updates. On a GPU it records no work of the CPU, which would slow that down."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # otherwise it writes about itself to stderr
    on_gpu = device.type == "cuda"
    return torch.profiler.profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU])


def busy_seconds(profile: torch.profiler.profile) -> float:
    """How long the GPU was busy; the GPU must be synchronised before the profiler is stopped."""
    return covered((event.time_range.start, event.time_range.end) for event in _gpu_events(profile)) / 1e6


def busy_seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """How long `work` keeps the GPU busy; it must not return before the GPU is done."""
    with profiler(device) as profile:
        work()
    return busy_seconds(profile)


def covered(intervals: Iterable[Interval]) -> float:
    """The length of the union of intervals, which may overlap."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def breakdown(profile: torch.profiler.profile, device: torch.device, updates: int, seconds: float) -> Breakdown:
    """Where an update spends its time, from a profile of so many `updates` that took `seconds` together."""
    calls: dict[str, int] = defaultdict(int)
    microseconds: dict[str, float] = defaultdict(float)
    for name, number, spent in _gpu_times(profile) if device.type == "cuda" else _cpu_times(profile):
        calls[name] += number
        microseconds[name] += spent
    operations = [Operation(name, calls[name] / updates, spent / 1e6 / updates) for name, spent in microseconds.items()]
    return Breakdown(seconds / updates, sorted(operations, key=lambda operation: -operation.seconds))


def _cpu_times(profile: torch.profiler.profile) -> Iterator[tuple[str, int, float]]:
    """Name, calls, and microseconds without those of the operations that it calls."""
    for row in profile.key_averages():
        yield row.key, row.count, row.self_cpu_time_total


def _gpu_times(profile: torch.profiler.profile) -> Iterator[tuple[str, int, float]]:
    for event in _gpu_events(profile):
        yield event.name, 1, event.time_range.elapsed_us()


def _gpu_events(profile: torch.profiler.profile) -> Iterator[Any]:
    """Kernels and copies, without a program's own annotations."""
    for event in profile.events():
        if event.device_type.name == "CUDA" and not event.is_user_annotation:
            yield event

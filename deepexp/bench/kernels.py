"""How long a GPU is at work, as its own clock says: the rest of a step is waiting for the CPU."""

from collections.abc import Callable, Iterable

import torch

Interval = tuple[float, float]
"""Begin and end of a kernel or a copy, in microseconds."""


def busy_seconds(work: Callable[[], object]) -> float:
    """For how long the GPU does something of `work`, which is to end only when the GPU has done it."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        work()
    events = [event for event in profile.events() if event.device_type.name == "CUDA"]
    return covered((event.time_range.start, event.time_range.end) for event in events) / 1e6


def covered(intervals: Iterable[Interval]) -> float:
    """The length of the union of intervals, which may overlap."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total

"""Recorders of the work of a device, and which devices have one."""

from collections.abc import Callable, Hashable
from typing import Any, Protocol, TypeVar

import torch

from deepexp.text.units import amount

T = TypeVar("T")


class NoRoom(RuntimeError):
    """A recording would not fit in memory. It was not begun, so other recordings can still be used."""


class Recorder(Protocol):
    """Records what a function has the device do, so that it can be done again without the function."""

    works: bool
    """False once a recording has failed: others might draw from an old random state, so none is replayed then."""

    def warm_up(self, work: Callable[[], T], size: Hashable) -> T:
        """Do the work once without recording it, on the stream of recordings. `size` stands for the memory it needs."""
        ...

    def record(self, work: Callable[[], T], size: Hashable) -> tuple[Callable[[], None], T]:
        """A function that does the work again, on the same tensors, and the result, whose tensors each replay fills.

        Nothing is done yet. Raises `NoRoom`, and `RuntimeError` for what cannot be recorded.
        """
        ...


_MOST_MEMORY = 1 / 3
"""The share of the free memory that a recording may take: work that is not recorded needs as much again, in pieces."""


class CudaRecorder:
    """A `Recorder` of CUDA graphs, each with memory of its own: results of one outlive the replays of others."""

    def __init__(self, device: torch.device) -> None:
        self.works = True
        self._device = device
        self._stream = torch.cuda.Stream(device)  # the default one cannot be recorded
        self._needed: dict[Hashable, int] = {}  # peak bytes when it was last done, less those allocated before

    def warm_up(self, work: Callable[[], T], size: Hashable) -> T:
        """See `Recorder`."""
        usual = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(usual)
        torch.cuda.reset_peak_memory_stats(self._device)
        before = torch.cuda.memory_allocated(self._device)
        try:
            with torch.cuda.stream(self._stream):
                return work()
        finally:
            usual.wait_stream(self._stream)
            self._needed[size] = torch.cuda.max_memory_allocated(self._device) - before

    def record(self, work: Callable[[], T], size: Hashable) -> tuple[Callable[[], None], T]:
        """See `Recorder`. `NoRoom` unless three times the memory that work of this size last needed is free."""
        self._check_room(self._needed.get(size, 0))
        graph, memory = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        usual = torch.cuda.current_stream(self._device)
        try:
            with torch.cuda.graph(graph, pool=memory, stream=self._stream):
                result = work()
        except RuntimeError:
            self._end_recording(usual, memory)
            raise
        return graph.replay, result

    def _check_room(self, needed: int) -> None:
        free, _ = torch.cuda.mem_get_info(self._device)  # other processes' memory is not free
        unused = torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
        left = free + unused
        if needed > _MOST_MEMORY * left:
            raise NoRoom(
                f"a recording keeps its memory, and {amount(needed, 'B')} are too much of the {amount(left, 'B')} left"
            )

    def _end_recording(self, usual: torch.cuda.Stream, memory: Any) -> None:
        """After a failed recording, reset what torch leaves in the state of recording."""
        index = self._device.index or 0
        if torch.cuda.current_stream(self._device) != usual:
            torch.cuda.set_stream(usual)
            torch._C._cuda_endAllocateToPool(index, memory)
            torch._C._cuda_releasePool(index, memory)
        random = torch.cuda.default_generators[index]
        random.graphsafe_set_state(random.clone_state().graphsafe_get_state())  # the old one would go on recording


def can_record(device: torch.device) -> bool:
    """Whether the device has a `Recorder`."""
    return device.type == "cuda"


def make_recorder(device: torch.device) -> Recorder:
    """A recorder of what is done on the device."""
    return CudaRecorder(device)


def reason_of(error: RuntimeError) -> str:
    """The first line of the error that made a recording fail; ending the recording may have raised another one."""
    while isinstance(error.__context__, RuntimeError):
        error = error.__context__
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__

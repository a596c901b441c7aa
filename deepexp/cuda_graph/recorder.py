"""What records the work of a device, and which devices have it."""

from collections.abc import Callable
from typing import Protocol, TypeVar

import torch

T = TypeVar("T")


class Recorder(Protocol):
    """Records what a function has the device do, so that it can be done again without the function."""

    def warm_up(self, work: Callable[[], T]) -> T:
        """Do it once as usual, where recordings are made."""
        ...

    def record(self, work: Callable[[], T]) -> tuple[Callable[[], None], T]:
        """What does it again, with all tensors where they were, and its result, whose tensors are written anew.

        Nothing is done yet. Raises `RuntimeError` for what cannot be recorded.
        """
        ...


class CudaRecorder:
    """A `Recorder` of CUDA graphs, which share their memory: they are never replayed at the same time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # the default one cannot be recorded
        self._memory = torch.cuda.graph_pool_handle()

    def warm_up(self, work: Callable[[], T]) -> T:
        """See `Recorder`."""
        usual = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(usual)
        with torch.cuda.stream(self._stream):
            result = work()
        usual.wait_stream(self._stream)
        return result

    def record(self, work: Callable[[], T]) -> tuple[Callable[[], None], T]:
        """See `Recorder`."""
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._memory, stream=self._stream):
                result = work()
        except RuntimeError:
            random = torch.cuda.default_generators[self._device.index or 0]
            random.graphsafe_set_state(random.clone_state().graphsafe_get_state())  # the old one would go on recording
            raise
        return graph.replay, result


def can_record(device: torch.device) -> bool:
    """Whether the device has a `Recorder`."""
    return device.type == "cuda"


def make_recorder(device: torch.device) -> Recorder:
    """Records what is done on the device."""
    return CudaRecorder(device)


def reason_of(error: RuntimeError) -> str:
    """The first line of what kept something from being recorded."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__

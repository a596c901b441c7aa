"""A recorder for the CPU that behaves as a CUDA graph does, so that recordings can be tested without a GPU.

Every operation below autograd is recorded with its tensors and numbers. A replay does the same operations on the same
tensors: numbers that came from the CPU keep their recorded values, and Python code is not run again.
"""

from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from deepexp.cuda_graph.recorder import NoRoom

T = TypeVar("T")


class _Tape(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, tuple, dict, list[Tensor]]] = []
        self._ours: set[int] = set()  # storages made while recording
        self._before: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.item.default):
            raise RuntimeError("operation not permitted when stream is capturing")
        for tensor in tensors((args, kwargs or {})):
            self._remember(tensor)
        result = function(*args, **(kwargs or {}))
        given = {storage(tensor) for tensor in tensors((args, kwargs or {}))}
        fresh = [tensor for tensor in tensors(result) if storage(tensor) not in given]
        self._ours |= {storage(tensor) for tensor in fresh}
        self.operations.append((function, args, kwargs or {}, tensors(result)))
        return result

    def _remember(self, tensor: Tensor) -> None:
        known = {storage(before) for before, _ in self._before}
        if storage(tensor) not in self._ours | known:
            whole = torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage())
            self._before.append((whole, whole.clone()))

    def undo(self) -> None:
        """Put back what recording changed: a CUDA graph records operations without doing them."""
        for whole, before in self._before:
            whole.copy_(before)

    @torch.no_grad()
    def replay(self) -> None:
        for function, args, kwargs, results in self.operations:
            given = {storage(tensor) for tensor in tensors((args, kwargs))}
            for old, new in zip(results, tensors(function(*args, **kwargs)), strict=True):
                if storage(old) not in given:
                    old.copy_(new)


class Tape:
    """A `Recorder`; `recorded` and `replayed` count recordings and replays by the type of their result."""

    def __init__(self) -> None:
        self.works = True
        self.recorded: Counter[type] = Counter()
        self.replayed: Counter[type] = Counter()

    def warm_up(self, work: Callable[[], T], size: Hashable) -> T:
        return work()

    def record(self, work: Callable[[], T], size: Hashable) -> tuple[Callable[[], None], T]:
        tape, random = _Tape(), torch.get_rng_state()
        try:
            with tape:
                result = work()
        finally:
            with torch.no_grad():
                tape.undo()
            torch.set_rng_state(random)
        self.recorded[type(result)] += 1

        def replay() -> None:
            self.replayed[type(result)] += 1
            tape.replay()

        return replay, result


class Refusing(Tape):
    """Cannot record, so that every update and evaluation is made as usual."""

    def record(self, work, size):
        raise RuntimeError("no")


class Short(Tape):
    """Lacks memory for work of these sizes: a tuple for the batches of an update, a number for one of an evaluation."""

    def __init__(self, *sizes):
        super().__init__()
        self.sizes = sizes

    def record(self, work, size):
        if size in self.sizes:
            raise NoRoom("32 GB are too much")
        return super().record(work, size)


def tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()

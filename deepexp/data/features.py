"""Batches of features: what a fixed function gives for each picture, computed once and then kept in memory.

Which function that is, and when it may be used, is decided in `training/frozen_features.py`.
"""

import logging
import math
import mmap
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from deepexp.data.loader import Loader
from deepexp.data.order import Bounds
from deepexp.data.resident import Gather
from deepexp.data.source import Shape

log = logging.getLogger(__name__)

Function = Callable[[Tensor], Tensor]
"""Normalised pictures (batch, channels, height, width) → features (batch, …), each from its own picture alone."""

_COMPARED = 2  # batches of each size


class FeatureLoader:
    """A `Loader` over another one; while it is switched to a function, it yields features in place of pictures.

    The first time, they are computed in the batches asked for, and kept. A later batch is computed too if it has a
    sample that is not known yet (left out before, not drawn, or before the point at which a run was resumed).

    Kept features must equal computed ones bit for bit, but a kernel may sum in another order for another batch size.
    So before batches of a size are first taken from memory, the first few are computed too; if they differ, nothing is
    kept from then on. `shape`: of a picture; `name`: of the split, for people.
    """

    def __init__(self, pictures: Loader, samples: int, shape: Shape, device: torch.device, name: str) -> None:
        self.samples = samples
        self.shape = shape
        self._name = name
        self._pictures = pictures
        self._device = device
        self.switch(None)

    def switch(self, function: Function | None) -> None:
        """Yield features from here on; with None, pictures. What was kept is freed."""
        self._function = function
        self._kept: _Kept | None = None
        self._may_keep = True
        self._computed_sizes: set[int] = set()  # of the batches in `_kept`
        self._compared_sizes: set[int] = set()

    def batches(self, order: Tensor, bounds: Sequence[Bounds]) -> Iterator[tuple[Tensor, Tensor]]:
        """See `loader.Loader`; features (batch, …) have the shape, type and memory order that the function gives."""
        if self._function is None:
            return self._pictures.batches(order, bounds)
        return self._features(self._function, order, bounds)

    def gatherer(self, order: Tensor, bounds: Sequence[Bounds]) -> Gather | None:
        """See `loader.Loader`; for features, None until all that are asked for are kept."""
        if self._function is None:
            return self._pictures.gatherer(order, bounds)
        is_known = all(self._known(self._function, order, bounds))
        return self._kept.take if self._kept is not None and is_known else None

    def close(self) -> None:
        """See `loader.Loader`."""
        self.switch(None)
        self._pictures.close()

    def _features(self, function: Function, order: Tensor, bounds: Sequence[Bounds]) -> Iterator[tuple[Tensor, Tensor]]:
        known = self._known(function, order, bounds)
        rows = order.to(self._device)
        unknown = [bound for bound, is_known in zip(bounds, known, strict=True) if not is_known]
        pictures = self._pictures.batches(order, unknown)
        for (start, stop), is_known in zip(bounds, known, strict=True):
            if is_known and self._kept is not None:
                yield self._kept.take(rows[start:stop])
                continue
            images, labels = next(pictures)
            features = function(images)
            if self._may_keep:
                self._kept = self._kept or _Kept(self.samples, features)
                self._kept.put(order[start:stop], rows[start:stop], features, labels)
                self._computed_sizes.add(stop - start)
            yield features, labels

    def _known(self, function: Function, order: Tensor, bounds: Sequence[Bounds]) -> list[bool]:
        """For each bound, whether its batch can be taken from memory."""
        if self._kept is None:
            return [False] * len(bounds)
        known = self._kept.knows(order, bounds)
        candidates = [bound for bound, is_known in zip(bounds, known, strict=True) if is_known]
        sizes = {stop - start for start, stop in candidates} | self._compared_sizes
        if not self._computed_sizes <= sizes:  # a kept size has no batch to compare, as after a cut-off epoch
            return [False] * len(bounds)
        wrong = self._first_inexact(self._kept, function, order, candidates)
        if wrong is None:
            return known
        log.warning(
            "the output of the frozen layers for the %s samples is computed anew each time: a kept one would not be "
            "the same bit for bit (in batches of %d)",
            self._name,
            wrong,
        )
        self._may_keep, self._kept = False, None
        return [False] * len(bounds)

    def _first_inexact(self, kept: "_Kept", function: Function, order: Tensor, bounds: Sequence[Bounds]) -> int | None:
        """A batch size for which kept and computed features differ, or None; each size is compared once."""
        new = {stop - start for start, stop in bounds} - self._compared_sizes
        chosen = [bound for size in new for bound in [b for b in bounds if b[1] - b[0] == size][:_COMPARED]]
        rows = order.to(self._device)
        for (start, stop), (images, _) in zip(chosen, self._pictures.batches(order, chosen), strict=True):
            if not kept.is_same(rows[start:stop], function(images)):
                return stop - start
        self._compared_sizes |= new
        return None


class _Kept:
    """Features and labels of the samples of a split, a row for each, in the memory order of the features given."""

    def __init__(self, samples: int, example: Tensor) -> None:
        strides = example.stride()
        dims = sorted(range(1, example.dim()), key=lambda dim: strides[dim], reverse=True)
        self._to_memory = (0, *dims)
        self._from_memory = tuple(self._to_memory.index(dim) for dim in range(example.dim()))
        self._sizes = [example.shape[dim] for dim in dims]
        with torch.inference_mode(False):  # tensors made in inference mode could not be written to outside of it
            self._features = _memory_of_its_own(samples, math.prod(self._sizes), example)
            self._labels = torch.zeros(samples, dtype=torch.int64, device=example.device)
            self._is_known = torch.zeros(samples, dtype=torch.bool)

    def knows(self, order: Tensor, bounds: Sequence[Bounds]) -> list[bool]:
        """For each bound, whether all of its samples are here."""
        missing = [0, *(~self._is_known[order]).cumsum(0).tolist()]
        return [missing[start] == missing[stop] for start, stop in bounds]

    def put(self, order: Tensor, rows: Tensor, features: Tensor, labels: Tensor) -> None:
        """Keep a batch; `order` and `rows` are the same samples, on the CPU and on the device."""
        self._features.index_copy_(0, rows, self._flat(features))
        self._labels.index_copy_(0, rows, labels)
        self._is_known[order] = True

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(features, labels) of samples that are known."""
        flat = self._features.index_select(0, rows)
        return flat.view(-1, *self._sizes).permute(self._from_memory), self._labels.index_select(0, rows)

    def is_same(self, rows: Tensor, features: Tensor) -> bool:
        """Whether these rows have the bytes of `features`, in the same memory order."""
        kept, _ = self.take(rows)
        facts = [(tensor.dtype, tensor.shape, tensor.stride()[1:]) for tensor in (kept, features)]
        if facts[0] != facts[1]:
            return False
        return torch.equal(self._flat(kept).view(torch.uint8), self._flat(features).view(torch.uint8))

    def _flat(self, features: Tensor) -> Tensor:
        """(batch, …) as (batch, values of a sample), in memory order."""
        return features.permute(self._to_memory).reshape(len(features), -1)


def _memory_of_its_own(samples: int, values: int, example: Tensor) -> Tensor:
    """(samples, values) of the example's type on its device, not filled; the system gets the memory back when freed.

    On a CPU, the allocator might not: it may keep freed blocks of up to a gigabyte (`runtime.tune_malloc`).
    """
    if example.device.type != "cpu":
        return example.new_empty(samples, values)
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_ANONYMOUS") else {}
    block = mmap.mmap(-1, samples * values * example.element_size(), **private)
    return torch.frombuffer(block, dtype=example.dtype).view(samples, values)

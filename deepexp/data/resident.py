"""Batches from pictures that lie as uint8 in the memory of the device: no processes, no copies but the batch itself."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from deepexp.data.normalise import Normaliser
from deepexp.data.order import Bounds
from deepexp.data.source import Split

Gather = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Indices of samples (batch,) int64 on the device → (images, labels), as a loader's batches have them.

The device does it alone, from memory that stays where it is, without waiting for the CPU or copying from it.
"""


class ResidentLoader:
    """A `Loader`. On a CPU it uses the split's own memory; elsewhere it copies the pictures that are needed once."""

    def __init__(self, split: Split, mean: Tensor, std: Tensor, device: torch.device) -> None:
        if device.type != "cpu":
            split = split.compact()
        self._device = device
        self._pixels = split.pixels.to(device)
        self._rows = None if split.rows is None else split.rows.to(device)
        self._labels = split.labels.to(device)
        self._normalise = Normaliser(split.shape, mean.to(device), std.to(device))

    def batches(self, order: Tensor, bounds: Sequence[Bounds]) -> Iterator[tuple[Tensor, Tensor]]:
        """See `loader.Loader`. The order is copied to the device once, not batch by batch."""
        order = order.to(self._device)
        rows = order if self._rows is None else self._rows[order]
        labels = self._labels[order]
        for start, stop in bounds:
            pixels = self._pixels.index_select(0, rows[start:stop])  # (batch, height * width * channels)
            yield self._normalise(pixels), labels[start:stop]

    def gatherer(self, order: Tensor, bounds: Sequence[Bounds]) -> Gather:  # noqa: ARG002
        """See `loader.Loader`; the pictures are always there."""
        return self._gather

    def _gather(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        rows = samples if self._rows is None else self._rows.index_select(0, samples)
        return self._normalise(self._pixels.index_select(0, rows)), self._labels.index_select(0, samples)

    def close(self) -> None:
        """Nothing to end: memory is freed with the loader."""

"""The updates of an epoch, one after the other: their batches gathered and augmented, the weights and averages moved.

The trainer decides on the samples and their order; `step.py` has what one update does.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Protocol

from torch import Tensor

from deepexp.data.augment import Augment, Draws
from deepexp.data.loader import Loader
from deepexp.data.order import Bounds
from deepexp.optim.ema import Ema
from deepexp.step import Batch, Step, Update


class UpdateMaker(Protocol):
    """Makes the updates of a run."""

    choice: str
    """Whether they are recorded as a CUDA graph, in words."""

    def of_epoch(
        self, order: Tensor, draws: Draws, updates: Sequence[Sequence[Bounds]]
    ) -> Iterator[tuple[Callable[[], Update], int]]:
        """For each update: a function that makes it, to be called before the next is taken, and its number of samples.

        `order`: samples of the epoch, int64 on the CPU; `draws`: a row for each of them, on the CPU; `updates`: the
        batches of each.
        """
        ...


class EagerUpdates:
    """An `UpdateMaker` that calls the model each time."""

    def __init__(self, step: Step, loader: Loader, augment: Augment, ema: Ema | None) -> None:
        self.step = step
        self.loader = loader
        self.augment = augment
        self.ema = ema
        self.choice = "no"
        self.device = step.precision.device

    def of_epoch(
        self, order: Tensor, draws: Draws, updates: Sequence[Sequence[Bounds]]
    ) -> Iterator[tuple[Callable[[], Update], int]]:
        """See `UpdateMaker`."""
        draws = {name: rows.to(self.device) for name, rows in draws.items()}
        batches = self._batches(order, draws, [bounds for update in updates for bounds in update])
        for update in updates:
            samples = samples_of(update)
            yield partial(self._make, (next(batches) for _ in update), samples), samples

    def _make(self, batches: Iterator[Batch], samples: int) -> Update:
        update = self.step(batches, samples)
        if self.ema is not None:
            self.ema.update()
        return update

    def _batches(self, order: Tensor, draws: Draws, bounds: Sequence[Bounds]) -> Iterator[Batch]:
        for (images, labels), (start, stop) in zip(self.loader.batches(order, bounds), bounds, strict=True):
            yield augmented(self.augment, images, labels, {name: rows[start:stop] for name, rows in draws.items()})


def samples_of(update: Sequence[Bounds]) -> int:
    """How many samples its batches have together."""
    return sum(stop - start for start, stop in update)


def augmented(augment: Augment, images: Tensor, labels: Tensor, draws: Mapping[str, Tensor]) -> Batch:
    """A batch as the model sees it; `draws`: a row for each of its samples."""
    images, mix = augment.apply(images, dict(draws))
    if mix is None:
        return Batch(images, labels)
    return Batch(images, labels, labels[mix.partner], mix.share)

"""The protocol of loaders, which yield batches, and the choice between its two implementations.

Both give the same bytes: `resident.py` gathers from memory of the device, `streamed.py` from processes that read ahead.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor

from deepexp.data.dataset import Dataset
from deepexp.data.memory import available_bytes
from deepexp.data.order import Bounds
from deepexp.data.resident import Gather, ResidentLoader
from deepexp.data.source import Split
from deepexp.data.streamed import StreamedLoader
from deepexp.runtime import available_cores

Mode = Literal["auto", "resident", "streamed"]

_MOST_WORKERS = 4  # they only copy bytes; more of them would wait for the memory


class Loader(Protocol):
    """Yields the batches of a split."""

    def batches(self, order: Tensor, bounds: Sequence[Bounds]) -> Iterator[tuple[Tensor, Tensor]]:
        """(images, labels) of the samples `order[start:stop]` for each bound, on the loader's device.

        images: (batch, channels, height, width) float32, normalised, channels_last; labels: (batch,) int64.
        `order`: int64 on the CPU. Only one iteration of a loader goes on at a time: a new one ends the one before.
        """
        ...

    def gatherer(self, order: Tensor, bounds: Sequence[Bounds]) -> Gather | None:
        """A function that gives any batch of `batches(order, bounds)` from the device's memory; None: not all is there.

        Equal functions gather from the same memory.
        """
        ...

    def close(self) -> None:
        """Free what it holds, processes above all. It can be used again, and then starts them anew."""
        ...


def choose_mode(dataset: Dataset, device: torch.device, mode: Mode) -> Literal["resident", "streamed"]:
    """`auto` is resident where the pictures take at most half of the device's available memory.

    On a CPU only memory-mapped pictures count: the others are in its memory already.
    """
    if mode != "auto":
        return mode
    splits = [split for split in (dataset.train, dataset.val, dataset.test) if split is not None]
    if device.type == "cpu":
        splits = [split for split in splits if split.file is not None]
    needed = sum(_picture_bytes(split) for split in splits)
    return mode_that_fits(needed, available_bytes(device))


def mode_that_fits(needed: int, available: int | None) -> Literal["resident", "streamed"]:
    """Resident where pictures of `needed` bytes take at most half of the memory; None: it is not known."""
    return "resident" if available is None or needed <= available / 2 else "streamed"


def make_loader(
    split: Split,
    dataset: Dataset,
    device: torch.device,
    mode: Literal["resident", "streamed"],
    workers: int | Literal["auto"] = "auto",
) -> Loader:
    """A loader for one split of `dataset`, with its mean and std."""
    if mode == "resident":
        return ResidentLoader(split, dataset.mean, dataset.std, device)
    count = min(_MOST_WORKERS, available_cores()) if workers == "auto" else workers
    return StreamedLoader(split, dataset.mean, dataset.std, device, workers=count)


def _picture_bytes(split: Split) -> int:
    rows = len(split.images) if split.rows is None else len(split.rows.unique())
    return rows * split.images[0].numel()

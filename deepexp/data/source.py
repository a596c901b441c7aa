"""What every data source gives: facts about its pictures at once, the pictures themselves when asked.

The sources themselves have a module each; what a run makes of them is in `dataset.py`.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

Shape = tuple[int, int, int]
"""(channels, height, width)"""


@dataclass(frozen=True)
class DataInfo:
    """What is known of a data set without loading it."""

    shape: Shape
    classes: tuple[str, ...]
    train_samples: int
    test_samples: int
    is_mapped: bool = False
    """Whether the pictures stay in files that are memory-mapped."""
    val_samples: int = 0
    """Of validation data of the source's own; 0: it has none, and they can be held out of the training data."""


@dataclass(frozen=True)
class Split:
    """Labelled pictures, several samples of which may share one picture in memory.

    The memory order of `images` is that of NHWC, so that gathering samples copies one run of bytes each and the batch
    that comes out is `channels_last`. `Split.of` takes any order.
    """

    images: Tensor
    """(rows, channels, height, width) uint8"""
    labels: Tensor
    """(samples,) int64"""
    rows: Tensor | None = None
    """(samples,) int64: where in `images` each sample's picture is; None: sample i is row i"""
    file: Path | None = None
    """The `.npy` file that `images` is a memory map of, if it is one."""

    @classmethod
    def mapped(cls, file: Path, labels: Tensor) -> "Split":
        """A split over a `.npy` file of (samples, height, width, channels) uint8, which is read where it is needed."""
        # Copy-on-write: torch wants memory that may be written to, and the file must not change.
        images = torch.from_numpy(np.load(file, mmap_mode="c"))
        return cls(images.permute(0, 3, 1, 2), labels, file=file)

    @classmethod
    def of(cls, images: Tensor, labels: Tensor) -> "Split":
        """A split of (samples, channels, height, width) pictures in any memory order; `ValueError` for others."""
        if not isinstance(images, Tensor) or images.dim() != 4:
            found = str(tuple(images.shape)) if isinstance(images, Tensor) else f"a {type(images).__name__}"
            raise ValueError(f"pictures are {found}; needed is a tensor (samples, channels, height, width)")
        nhwc = images.permute(0, 2, 3, 1).contiguous()
        return cls(nhwc.permute(0, 3, 1, 2), labels)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> Shape:
        """The shape of one picture."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    @property
    def pixels(self) -> Tensor:
        """The same memory as `images`, flat: (rows, height * width * channels) uint8."""
        return self.images.permute(0, 2, 3, 1).flatten(1)

    def pictures(self, samples: Tensor) -> Tensor:
        """The pictures of some samples: (n, channels, height, width) uint8, a copy."""
        return self._gather(samples if self.rows is None else self.rows[samples])

    def take(self, samples: Tensor) -> "Split":
        """The split of these samples in this order; no picture is copied."""
        rows = samples if self.rows is None else self.rows[samples]
        return Split(self.images, self.labels[samples], rows, self.file)

    def compact(self) -> "Split":
        """The split without the pictures that no sample needs; the others are copied."""
        if self.rows is None:
            return self
        used, rows = torch.unique(self.rows, return_inverse=True)
        if len(used) == len(self.images):
            return self
        return Split(self._gather(used), self.labels, rows)

    def _gather(self, rows: Tensor) -> Tensor:
        channels, height, width = self.shape
        return self.pixels.index_select(0, rows).view(-1, height, width, channels).permute(0, 3, 1, 2)


Splits = tuple[Split, Split] | tuple[Split, Split, Split]
"""(training, test), or (training, test, validation)"""


class Source(Protocol):
    """Where pictures come from. The constructor's arguments are listed in the source's YAML."""

    def info(self) -> DataInfo:
        """Constants or a look at headers and folders: nothing is downloaded or decoded."""
        ...

    def load(self) -> Splits:
        """May download, decode and cache. `InputError` names the file that is missing or damaged."""
        ...


@runtime_checkable
class WritingSource(Source, Protocol):
    """A source that downloads, or caches, to where its arguments point."""

    def keep_out_of(self, places: Collection[str]) -> None:
        """From now on, write nothing where these arguments (`root`, `cache`) point: a stranger may have chosen them.

        Called before `load` when a run is resumed, as its config may come from anywhere.
        """
        ...


@runtime_checkable
class FileSource(Source, Protocol):
    """A source of picture files."""

    def test_files(self) -> list[str]:
        """The path of each test picture, in the order of the test samples."""
        ...

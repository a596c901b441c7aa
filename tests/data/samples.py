"""Small data of the real formats, made up."""

import gzip
import struct
from dataclasses import dataclass

import numpy as np
import torch

from deepexp.data.source import DataInfo, Split, Splits


@dataclass
class FixedSource:
    """A data source that gives the splits that a test made."""

    train: Split
    test: Split
    classes: tuple[str, ...]
    announced: DataInfo | None = None
    val: Split | None = None

    def info(self) -> DataInfo:
        sizes = len(self.train), len(self.test)
        of_its_own = 0 if self.val is None else len(self.val)
        return self.announced or DataInfo(self.train.shape, self.classes, *sizes, val_samples=of_its_own)

    def load(self) -> Splits:
        return (self.train, self.test) if self.val is None else (self.train, self.test, self.val)


def random_split(samples: int, shape: tuple[int, int, int], classes: int, seed: int = 0) -> Split:
    """Random pictures; the classes take turns."""
    random = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (samples, *shape), generator=random, dtype=torch.uint8)
    return Split.of(images, torch.arange(samples) % classes)


def random_source(
    train: int = 50, test: int = 20, shape: tuple[int, int, int] = (3, 6, 5), classes: int = 5
) -> FixedSource:
    return FixedSource(
        random_split(train, shape, classes, 0), random_split(test, shape, classes, 1), tuple("abcdefghij"[:classes])
    )


def idx_bytes(array: np.ndarray) -> bytes:
    """An array of uint8 in the format of the MNIST files."""
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def idx_arrays(seed: int = 0, train: int = 30, test: int = 12) -> dict[str, np.ndarray]:
    random = np.random.RandomState(seed)
    arrays = {}
    for part, samples in (("train", train), ("t10k", test)):
        arrays[f"{part}-images-idx3-ubyte"] = random.randint(0, 256, (samples, 28, 28)).astype(np.uint8)
        arrays[f"{part}-labels-idx1-ubyte"] = (np.arange(samples) % 10).astype(np.uint8)
    return arrays


def packed(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)

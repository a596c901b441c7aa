"""MNIST and Fashion-MNIST: the IDX files as published, in the folders where torchvision keeps them.

`<root>/MNIST/raw/train-images-idx3-ubyte` and the like, packed (`.gz`) or not. Other IDX files under these names are
used as they are, with a warning, as long as they are whole.
"""

import contextlib
import gzip
import hashlib
import io
import logging
import struct
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from deepexp.data.download import check_download, check_root, damaged, fetch
from deepexp.data.source import DataInfo, Split
from deepexp.errors import InputError
from deepexp.text.units import counted

log = logging.getLogger(__name__)

_SIZE = 28
_SAMPLES = {"train": 60_000, "t10k": 10_000}


@dataclass(frozen=True)
class Published:
    """A data set of four IDX files: the URLs that have them, and their MD5 sums (packed, unpacked)."""

    folder: str
    classes: tuple[str, ...]
    mirrors: tuple[str, ...]
    checksums: dict[str, tuple[str, str]]


MNIST = Published(
    folder="MNIST",
    classes=tuple(str(digit) for digit in range(10)),
    mirrors=("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"),
    checksums={
        "train-images-idx3-ubyte": ("f68b3c2dcbeaaa9fbdd348bbdeb94873", "6bbc9ace898e44ae57da46a324031adb"),
        "train-labels-idx1-ubyte": ("d53e105ee54ea40749a09fcbcd1e9432", "a25bea736e30d166cdddb491f175f624"),
        "t10k-images-idx3-ubyte": ("9fb629c4189551a2d022fa330f9573f3", "2646ac647ad5339dbf082846283269ea"),
        "t10k-labels-idx1-ubyte": ("ec29112dd5afa0611ce80d1b7f02629c", "27ae3e4e09519cfbb04c329615203637"),
    },
)

FASHION_MNIST = Published(
    folder="FashionMNIST",
    classes=("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    mirrors=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
    checksums={
        "train-images-idx3-ubyte": ("8d4fb7e6c68d591d4c3dfef9ec88bf0d", "f4a8712d7a061bf5bd6d2ca38dc4d50a"),
        "train-labels-idx1-ubyte": ("25c81989df183df01b3e8a0aad5dffbe", "9018921c3c673c538a1fc5bad174d6f9"),
        "t10k-images-idx3-ubyte": ("bef4ecab320f06d8554ea6380940ec79", "8181f5470baa50b63fa0f6fddb340f0a"),
        "t10k-labels-idx1-ubyte": ("bb300cfdad3c16e7a12a480ee83cd310", "15d484375f8d13e6eb1aabb0c3f46965"),
    },
)


def mnist(*, root: Path, download: bool = True) -> "IdxSource":
    """MNIST (LeCun, Cortes, Burges 1998)."""
    return IdxSource(MNIST, root, download)


def fashion_mnist(*, root: Path, download: bool = True) -> "IdxSource":
    """Fashion-MNIST (Xiao, Rasul, Vollgraf 2017)."""
    return IdxSource(FASHION_MNIST, root, download)


class IdxSource:
    """A data set in four IDX files below `<root>/<folder>/raw`; missing ones are downloaded if `download`."""

    def __init__(self, published: Published, root: Path, download: bool) -> None:
        self._published = published
        self._root = Path(root)
        self._download = download
        self._keep_out = False

    def keep_out_of(self, places: Collection[str]) -> None:
        """See `source.WritingSource`."""
        self._keep_out = "root" in places

    def info(self) -> DataInfo:
        """From the headers of the image files that are there, else as published."""
        check_root(self._root)
        sizes = {}
        for part, samples in _SAMPLES.items():
            path = self._find(f"{part}-images-idx3-ubyte")
            sizes[part] = (samples, _SIZE, _SIZE) if path is None else _image_header(path)
        train_samples, height, width = sizes["train"]
        return DataInfo((1, height, width), self._published.classes, train_samples, sizes["t10k"][0])

    def load(self) -> tuple[Split, Split]:
        """Both splits in the order of the files."""
        check_root(self._root)
        return self._split("train"), self._split("t10k")

    def _split(self, part: str) -> Split:
        images_path, images = self._read(f"{part}-images-idx3-ubyte", dimensions=3)
        labels_path, labels = self._read(f"{part}-labels-idx1-ubyte", dimensions=1)
        if len(images) != len(labels):
            raise InputError(
                f"{labels_path}: {counted(len(labels), 'label')}, "
                f"and {images_path} has {counted(len(images), 'picture')}"
            )
        classes = len(self._published.classes)
        if labels.max() >= classes:
            raise InputError(f"{labels_path}: holds the label {labels.max()}; 0 to {classes - 1} are allowed")
        return Split(torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels.astype(np.int64)))

    def _find(self, name: str) -> Path | None:
        folder = self._root / self._published.folder / "raw"
        for path in (folder / name, folder / f"{name}.gz"):
            if path.exists():
                return path
        return None

    def _read(self, name: str, dimensions: int) -> tuple[Path, np.ndarray]:
        path = self._find(name)
        packed_md5, unpacked_md5 = self._published.checksums[name]
        if path is None:
            path = self._root / self._published.folder / "raw" / f"{name}.gz"
            check_download(path, self._download, self._keep_out)
            urls = [f"{mirror}{name}.gz" for mirror in self._published.mirrors]
            fetch(path, urls, packed_md5, self._published.folder)
        content = _read_bytes(path)
        array = _parse(path, content, dimensions)
        if hashlib.md5(content.data, usedforsecurity=False).hexdigest() != unpacked_md5:
            part = name.split("-")[0]
            if len(array) == _SAMPLES[part]:
                raise damaged(path, "its MD5 is not that of the published file")
            log.warning("%s is not the published file (%d samples); it is used as it is", path, len(array))
        return path, array


def _read_bytes(path: Path) -> np.ndarray:
    """The unpacked content (bytes,) uint8, writable, so that tensors can share its memory."""
    with _opened(path) as file:
        if path.suffix != ".gz":
            return np.fromfile(file, np.uint8)
        return np.frombuffer(bytearray(file.read()), np.uint8)


def _parse(path: Path, content: np.ndarray, dimensions: int) -> np.ndarray:
    """The array in an IDX file: two zero bytes, type 8 (uint8), number of dimensions, big-endian sizes, values."""
    shape = _header(path, content[: 4 + 4 * dimensions].tobytes(), dimensions)
    offset = 4 + 4 * dimensions
    expected = offset + int(np.prod(shape, dtype=object))
    if len(content) != expected:
        raise damaged(path, f"{len(content)} bytes, and its header promises {expected}")
    return content[offset:].reshape(shape)


def _header(path: Path, start: bytes, dimensions: int) -> tuple[int, ...]:
    if len(start) < 4 + 4 * dimensions or start[:4] != bytes([0, 0, 8, dimensions]):
        raise damaged(path, f"it does not begin as an IDX file of {counted(dimensions, 'dimension')} does")
    shape = struct.unpack(f">{dimensions}I", start[4:])
    if min(shape) == 0:
        raise damaged(path, f"its header promises an empty array {shape}")
    return shape


def _image_header(path: Path) -> tuple[int, int, int]:
    with _opened(path) as file:
        start = file.read(16)
    samples, height, width = _header(path, start, dimensions=3)
    return samples, height, width


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[io.BufferedIOBase]:
    """The file, open for reading and unpacked if it is a `.gz`; `InputError` if it is damaged or cannot be read."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            yield file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise damaged(path, str(error)) from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error

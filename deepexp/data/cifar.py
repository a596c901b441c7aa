"""CIFAR-10 and CIFAR-100: the Python archives as published, unpacked where torchvision keeps them.

The archives hold pickles, which could run any code. So a file is read only if its MD5 is the published one, and then by
an unpickler that knows nothing but arrays.
"""

import concurrent.futures
import hashlib
import io
import os
import pickle
import tarfile
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deepexp.data.download import check_download, check_root, damaged, fetch
from deepexp.data.source import DataInfo, Split
from deepexp.errors import InputError

_PICTURE = (3, 32, 32)


@dataclass(frozen=True)
class Published:
    """An archive of pickled batches: its URL, the files in it, and their MD5 sums."""

    name: str
    url: str
    archive_md5: str
    folder: str
    train_files: dict[str, str]
    test_files: dict[str, str]
    label_key: bytes
    classes: tuple[str, ...]
    train_samples: int = 50_000
    test_samples: int = 10_000


CIFAR10 = Published(
    name="CIFAR-10",
    url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    archive_md5="c58f30108f718f92721af3b95e74349a",
    folder="cifar-10-batches-py",
    train_files={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    },
    test_files={"test_batch": "40351d587109b95175f43aff81a1287e"},
    label_key=b"labels",
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
)

CIFAR100 = Published(
    name="CIFAR-100",
    url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    archive_md5="eb9058c3a382ffc7106e4002c42a8d85",
    folder="cifar-100-python",
    train_files={"train": "16019d7e3df5f24257cddd939b257f8d"},
    test_files={"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
    label_key=b"fine_labels",
    classes=tuple(
        """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
        castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
        elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
        man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
        pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
        skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
        tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm""".split()
    ),
)


def cifar10(*, root: Path, download: bool = True) -> "CifarSource":
    """CIFAR-10 (Krizhevsky 2009)."""
    return CifarSource(CIFAR10, root, download)


def cifar100(*, root: Path, download: bool = True) -> "CifarSource":
    """CIFAR-100 (Krizhevsky 2009) with its 100 fine labels."""
    return CifarSource(CIFAR100, root, download)


class CifarSource:
    """A data set of pickled batches below `<root>/<folder>`; downloaded and unpacked if missing and `download`."""

    def __init__(self, published: Published, root: Path, download: bool) -> None:
        self._published = published
        self._root = Path(root)
        self._folder = self._root / published.folder
        self._download = download
        self._keep_out = False

    def keep_out_of(self, places: Collection[str]) -> None:
        """See `source.WritingSource`."""
        self._keep_out = "root" in places

    def info(self) -> DataInfo:
        """Constants, as only the published files are accepted."""
        check_root(self._root)
        published = self._published
        return DataInfo(_PICTURE, published.classes, published.train_samples, published.test_samples)

    def load(self) -> tuple[Split, Split]:
        """Both splits in the order of the files."""
        check_root(self._root)
        published = self._published
        checksums = published.train_files | published.test_files
        missing = [name for name in checksums if not (self._folder / name).exists()]
        if missing:
            self._unpack(missing, checksums)
        with concurrent.futures.ThreadPoolExecutor() as threads:  # hashing and reading release the GIL
            batches = dict(zip(checksums, threads.map(self._read, checksums, checksums.values()), strict=True))
        train, test = (
            _join([batches[name] for name in names]) for names in (published.train_files, published.test_files)
        )
        return train, test

    def _unpack(self, names: list[str], checksums: dict[str, str]) -> None:
        """Take the named files, and nothing else, out of the archive; each appears whole or not at all."""
        archive = self._root / self._published.url.rsplit("/", 1)[-1]
        check_download(self._folder / names[0], self._download or archive.exists(), self._keep_out)
        fetch(archive, [self._published.url], self._published.archive_md5, self._published.name)
        try:
            self._folder.mkdir(exist_ok=True)
            with tarfile.open(archive) as tar:
                for name in names:
                    member = tar.extractfile(f"{self._published.folder}/{name}")
                    content = b"" if member is None else member.read()
                    if hashlib.md5(content, usedforsecurity=False).hexdigest() != checksums[name]:
                        raise damaged(archive, f"{name} in it is not the published file")
                    part = self._folder / f".{name}.{os.getpid()}.part"
                    part.write_bytes(content)
                    part.replace(self._folder / name)
        except (tarfile.TarError, KeyError, EOFError, zlib.error) as error:
            raise damaged(archive, str(error)) from error
        except OSError as error:
            raise InputError(f"{archive}: cannot be unpacked there ({error.strerror or error})") from error

    def _read(self, name: str, md5: str) -> tuple[np.ndarray, np.ndarray]:
        """(samples, 32, 32, 3) uint8 pictures and (samples,) int64 labels of one file."""
        path = self._folder / name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
            raise damaged(path, "its MD5 is not that of the published file")
        batch = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
        images = batch[b"data"].reshape(-1, *_PICTURE).transpose(0, 2, 3, 1)
        return np.ascontiguousarray(images), np.array(batch[self._published.label_key], np.int64)


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles arrays and plain values; anything else that a pickle names is refused."""

    def find_class(self, module: str, name: str) -> Any:
        """The few names that pickled arrays are made with."""
        known = {
            ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
            ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a data file")
        return known[module, name]


def _join(batches: list[tuple[np.ndarray, np.ndarray]]) -> Split:
    images = np.concatenate([images for images, _ in batches])  # NHWC
    labels = np.concatenate([labels for _, labels in batches])
    return Split(torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels))

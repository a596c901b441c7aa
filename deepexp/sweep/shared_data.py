"""Pictures that several jobs of a sweep use: loaded once, by the sweep's own process, into memory that the jobs map.

This needs Linux, for anonymous files in memory (`memfd_create`). Elsewhere, and if memory runs out, each job loads the
pictures for itself; pictures that are memory-mapped from files are shared anyway.
"""

import logging
import mmap
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import reduction
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from deepexp import build
from deepexp.data import dataset
from deepexp.data.source import DataInfo, Split, Splits
from deepexp.errors import InputError
from deepexp.schema import TrainConfig
from deepexp.sweep.points import Point, refusal

log = logging.getLogger(__name__)

_ALIGNMENT = 64  # bytes; a cache line, and a multiple of what any dtype asks for


@dataclass(frozen=True)
class _Array:
    """Where in the memory an array lies."""

    dtype: str
    shape: tuple[int, ...]
    offset: int

    def tensor(self, memory: mmap.mmap) -> Tensor:
        """The array as a tensor over that memory, which lives as long as the tensor."""
        return torch.from_numpy(np.ndarray(self.shape, self.dtype, buffer=memory, offset=self.offset))


@dataclass(frozen=True)
class _SplitArrays:
    """The tensors of a `Split`."""

    images: _Array
    """(rows, height, width, channels)"""
    labels: _Array
    rows: _Array | None


@dataclass(frozen=True)
class SharedSource:
    """A `Source` over memory that is shared with every process that is given this object as it is started.

    The memory is read-only: a process that writes to the tensors gets its own copy of the pages.
    """

    key: str
    """See `build.source_key`."""
    facts: DataInfo
    train: _SplitArrays
    test: _SplitArrays
    val: _SplitArrays | None
    descriptor: int
    """The file descriptor of the memory; each process has its own."""

    @classmethod
    def of(cls, key: str, facts: DataInfo, train: Split, test: Split, val: Split | None = None) -> "SharedSource":
        """Copy the splits into new memory. `OSError` if there is too little of it."""
        import fcntl  # not on every system

        descriptor = os.memfd_create("deepexp-data", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with os.fdopen(descriptor, "wb", closefd=False) as file:
                arrays = _append_split(file, train), _append_split(file, test)
                made = cls(key, facts, *arrays, None if val is None else _append_split(file, val), descriptor)
            seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
        except BaseException:
            os.close(descriptor)
            raise
        return made

    def info(self) -> DataInfo:
        """The `DataInfo` of the source that was loaded."""
        return self.facts

    def load(self) -> Splits:
        """All splits over the shared memory."""
        # Copy-on-write, as for `Split.mapped`: torch wants memory that may be written to.
        memory = mmap.mmap(self.descriptor, 0, access=mmap.ACCESS_COPY)
        train, test = _split(self.train, memory), _split(self.test, memory)
        return (train, test) if self.val is None else (train, test, _split(self.val, memory))

    def __reduce__(self) -> tuple[Callable[..., "SharedSource"], tuple[Any, ...]]:
        """Pickle for a process that is being started, with a duplicate of the descriptor: its number differs there."""
        arrays = self.train, self.test, self.val
        return _received, (self.key, self.facts, *arrays, reduction.DupFd(self.descriptor))

    def close(self) -> None:
        """Close this process's descriptor; tensors over the memory stay valid."""
        os.close(self.descriptor)


class SharedData:
    """The sources that a sweep has loaded for its jobs, each once."""

    def __init__(self) -> None:
        self._uses: Counter[str] = Counter()
        self._sources: dict[str, SharedSource | None] = {}

    def load(self, points: Sequence[Point]) -> None:
        """Load, once, the data that several points use, counting those of earlier calls.

        `InputError` for all data that cannot be loaded, with the points that need them.
        """
        users: dict[str, list[Point]] = {}
        for point in points:
            users.setdefault(build.source_key(point.config), []).append(point)
        problems: dict[str, list[str]] = {}
        for key, alike in users.items():
            self._uses[key] += len(alike)
            if self._uses[key] == 1 or key in self._sources:
                continue
            try:
                self._sources[key] = _loaded(key, alike[0].config)
            except InputError as error:
                for line in str(error).splitlines():
                    problems.setdefault(line, []).extend(point.name for point in alike)
        if problems:
            raise refusal(problems, len(points))

    def of(self, config: TrainConfig) -> SharedSource | None:
        """The source of a config, if its pictures are shared."""
        return self._sources.get(build.source_key(config))

    def close(self) -> None:
        """Close all sources; memory that no job uses is freed."""
        for source in self._sources.values():
            if source is not None:
                source.close()
        self._sources.clear()


def _loaded(key: str, config: TrainConfig) -> SharedSource | None:
    """The pictures in shared memory; None if that is not possible, or if they are mapped from files."""
    source = build.source(config)
    if not hasattr(os, "memfd_create") and not source.info().is_mapped:
        return None
    splits = dataset.load(source)  # this decodes image files, once for all jobs
    if any(split is not None and split.file is not None for split in splits):
        return None
    try:
        return SharedSource.of(key, source.info(), *splits)
    except OSError as error:
        log.warning(
            "data: the pictures cannot be shared by the jobs (%s); each loads them for itself, which takes more memory",
            error.strerror,
        )
        return None


def _append_split(file: IO[bytes], split: Split) -> _SplitArrays:
    return _SplitArrays(
        _append(file, split.images.permute(0, 2, 3, 1)),
        _append(file, split.labels),
        None if split.rows is None else _append(file, split.rows),
    )


def _append(file: IO[bytes], tensor: Tensor) -> _Array:
    array = np.ascontiguousarray(tensor.numpy())
    offset = file.seek(-(-file.tell() // _ALIGNMENT) * _ALIGNMENT)
    file.write(array.data)
    return _Array(array.dtype.str, array.shape, offset)


def _split(arrays: _SplitArrays, memory: mmap.mmap) -> Split:
    return Split(
        arrays.images.tensor(memory).permute(0, 3, 1, 2),
        arrays.labels.tensor(memory),
        None if arrays.rows is None else arrays.rows.tensor(memory),
    )


def _received(
    key: str, facts: DataInfo, train: _SplitArrays, test: _SplitArrays, val: _SplitArrays | None, descriptor: Any
) -> SharedSource:
    return SharedSource(key, facts, train, test, val, descriptor.detach())

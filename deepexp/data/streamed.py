"""Batches read ahead by other processes, for pictures that do not fit in the memory of the device."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from deepexp.data.normalise import Normaliser
from deepexp.data.order import Bounds
from deepexp.data.source import Split
from deepexp.errors import RunFailed
from deepexp.process.orphans import die_with_parent
from deepexp.process.spawning import signals_held_back

_PREFETCH_BATCHES = 4  # for each worker


class StreamedLoader:
    """A `Loader` over a torch `DataLoader`, whose workers live as long as it does.

    Workers gather bytes and the device normalises them: a quarter as much is copied as with float32, and the arithmetic
    is the same as for resident pictures. `workers=0` gathers in this process.
    """

    def __init__(self, split: Split, mean: Tensor, std: Tensor, device: torch.device, *, workers: int) -> None:
        self._device = device
        # Only then may a copy go on behind our back: MPS reads memory that was freed meanwhile (pytorch #189690).
        self._is_pinned = device.type == "cuda"
        self._rows = split.rows
        self._labels = split.labels.to(device)
        self._normalise = Normaliser(split.shape, mean.to(device), std.to(device))
        self._sampler = _Batches()
        self._pictures = _Pictures(split)
        self._workers = workers
        self._loader: DataLoader[Tensor] | None = None

    def batches(self, order: Tensor, bounds: Sequence[Bounds]) -> Iterator[tuple[Tensor, Tensor]]:
        """See `loader.Loader`. `RunFailed` when a worker is killed."""
        rows = (order if self._rows is None else self._rows[order]).numpy()
        labels = self._labels[order.to(self._device)]
        self._sampler.rows = [rows[start:stop] for start, stop in bounds]
        if self._loader is None:
            self._loader = self._make_loader()
        with _worker_deaths_explained():
            with _default_child_signals(), signals_held_back():
                pieces = iter(self._loader)
            for (start, stop), pixels in zip(bounds, pieces, strict=True):
                yield self._normalise(pixels.to(self._device, non_blocking=self._is_pinned)), labels[start:stop]

    def gatherer(self, order: Tensor, bounds: Sequence[Bounds]) -> None:  # noqa: ARG002
        """See `loader.Loader`; the pictures come from other processes."""
        return

    def close(self) -> None:
        """End the workers."""
        self._loader = None

    def _make_loader(self) -> DataLoader[Tensor]:
        several: dict[str, Any] = {}
        if self._workers > 0:
            # A fork shares the pictures without a copy and starts at once. That is safe even with CUDA in use, since a
            # worker only copies bytes and never calls the device.
            several = {
                "persistent_workers": True,
                "prefetch_factor": _PREFETCH_BATCHES,
                "worker_init_fn": _start_worker,
                "multiprocessing_context": "fork" if sys.platform == "linux" else None,
            }
        return DataLoader(
            self._pictures,
            batch_size=None,  # an element of the sampler is a batch already
            sampler=self._sampler,
            num_workers=self._workers,
            pin_memory=self._is_pinned,
            generator=torch.Generator(),  # else each epoch draws from the global one, and dropout would differ
            **several,
        )


class _Batches(Sampler[np.ndarray]):
    """The rows of each batch of the coming epoch; the `DataLoader` iterates over it once an epoch."""

    def __init__(self) -> None:
        self.rows: list[np.ndarray] = []

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.rows)


class _Pictures(Dataset[Tensor]):
    """What a worker reads: (rows, height * width * channels) uint8."""

    def __init__(self, split: Split) -> None:
        self._pixels = split.pixels
        self._file = split.file

    def __getitem__(self, rows: np.ndarray) -> Tensor:
        return self._pixels.index_select(0, torch.from_numpy(rows))

    def __getstate__(self) -> dict[str, Any]:
        """For workers that are not forks: a memory map is opened again, not sent."""
        return {"_file": self._file, "_pixels": self._pixels if self._file is None else None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._file is not None:
            self._pixels = Split.mapped(self._file, torch.empty(0)).pixels


def _start_worker(_: int) -> None:
    """Set up a worker: it ignores Ctrl-C, pre-emption and a closed terminal, which its parent process handles.

    The parent may need it for its last step. A worker ends when the parent tells it to, or dies: one that lived on for
    seconds would hold the lock of the run.
    """
    for name in ("SIGINT", "SIGUSR1", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # a SIGTERM to the whole group (`timeout`, schedulers) must reach only the parent
    die_with_parent()


@contextlib.contextmanager
def _worker_deaths_explained() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, OSError, EOFError) as error:  # also from the sockets by which workers hand over memory
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        raise RunFailed(
            f"data: a process that reads pictures ahead was killed, most likely for lack of memory ({error}); "
            f"lower data.workers, or set data.workers=0"
        ) from error


@contextlib.contextmanager
def _default_child_signals() -> Iterator[None]:
    """Keep the handler of SIGCHLD that was there before.

    torch's handler raises in whatever code runs when a worker dies. Without it, the wait for a batch notices the death
    within seconds, where it can be explained.
    """
    if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)

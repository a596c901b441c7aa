"""Both loaders against a plain loop, and so against each other."""

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from deepexp.data import loader as loader_module
from deepexp.data.dataset import Dataset, assemble
from deepexp.data.loader import Loader, choose_mode, make_loader
from deepexp.data.order import batch_bounds, epoch_order
from deepexp.data.resident import ResidentLoader
from deepexp.data.source import Split
from deepexp.data.streamed import StreamedLoader, _Pictures
from deepexp.errors import RunFailed

from ..processes import ends_soon
from .samples import FixedSource, random_source

CPU = torch.device("cpu")
Batches = list[tuple[Tensor, Tensor]]


def dataset(channels: int = 3, **options: object) -> Dataset:
    shape = (channels, 6, 5)
    return assemble(random_source(shape=shape), shape=shape, **options)  # type: ignore[arg-type]


def plain_loop(data: Dataset, split: Split, order: Tensor, bounds: list[tuple[int, int]]) -> Batches:
    """Batches in NCHW by their definition."""
    pictures = split.pictures(torch.arange(len(split))).contiguous()
    batches = []
    for start, stop in bounds:
        samples = order[start:stop]
        images = pictures[samples].float()
        images = (images - data.mean.view(1, -1, 1, 1)) / data.std.view(1, -1, 1, 1)
        batches.append((images, split.labels[samples]))
    return batches


def same(one: Batches, other: Batches) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, b) and torch.equal(x, y) for (a, x), (b, y) in zip(one, other, strict=True)
    )


@pytest.fixture(params=["resident", "streamed-0", "streamed-2"])
def kind(request: pytest.FixtureRequest) -> Iterator[str]:
    return request.param


def make(kind: str, data: Dataset, split: Split | None = None) -> Loader:
    mode, _, workers = kind.partition("-")
    return make_loader(split or data.train, data, CPU, mode, int(workers or 0))  # type: ignore[arg-type]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_batches_are_those_of_a_plain_loop_bit_for_bit(kind: str, channels: int) -> None:
    data = dataset(channels)
    loader = make(kind, data)
    for epoch in range(2):  # workers live on from one epoch to the next
        order = epoch_order(50, "shuffled", 0, epoch)
        bounds = batch_bounds(50, 8, False, False)
        batches = list(loader.batches(order, bounds))
        assert same(batches, plain_loop(data, data.train, order, bounds))
        for images, labels in batches:
            assert images.dtype == torch.float32 and labels.dtype == torch.int64
            assert images.is_contiguous(memory_format=torch.channels_last)
    loader.close()


def test_batches_of_subset_replicated_and_validation_samples(kind: str) -> None:
    data = dataset(subset=11, replicate=3, val_fraction=0.2)
    assert data.val is not None
    for split in (data.train, data.val, data.test):
        order = epoch_order(len(split), "shuffled", 1, 0)
        bounds = batch_bounds(len(split), 7, False, True)
        loader = make(kind, data, split)
        assert same(list(loader.batches(order, bounds)), plain_loop(data, split, order, bounds))
        loader.close()


def test_pictures_that_are_not_pinned_are_there_before_their_memory_is_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy to MPS that goes on behind our back reads what is there by then."""
    to, in_background = Tensor.to, []

    def recorded(self: Tensor, *arguments: object, **options: object) -> Tensor:
        in_background.append(bool(options.get("non_blocking")))
        return to(self, *arguments, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(Tensor, "to", recorded)
    list(make("streamed-0", dataset()).batches(torch.arange(50), [(0, 50)]))
    assert in_background and not any(in_background)


def test_samples_may_come_twice(kind: str) -> None:
    data = dataset()
    order = epoch_order(50, "with_replacement", 0, 0)
    bounds = batch_bounds(50, 20, False, False)
    loader = make(kind, data)
    assert same(list(loader.batches(order, bounds)), plain_loop(data, data.train, order, bounds))
    loader.close()


def test_same_order_again_gives_the_same(kind: str) -> None:
    loader = make(kind, dataset())
    order, bounds = epoch_order(50, "shuffled", 0, 0), batch_bounds(50, 8, False, False)
    assert same(list(loader.batches(order, bounds)), list(loader.batches(order, bounds)))
    loader.close()


def test_an_epoch_can_be_continued_in_its_middle(kind: str) -> None:
    data = dataset()
    order, bounds = epoch_order(50, "shuffled", 0, 0), batch_bounds(50, 8, False, False)
    whole = plain_loop(data, data.train, order, bounds)
    loader = make(kind, data)
    assert same(list(loader.batches(order, bounds[3:])), whole[3:])
    loader.close()


def test_an_abandoned_epoch_does_not_change_the_next(kind: str) -> None:
    data = dataset()
    loader = make(kind, data)
    bounds = batch_bounds(50, 3, False, False)
    left = loader.batches(epoch_order(50, "shuffled", 0, 0), bounds)
    next(left)
    next(left)
    order = epoch_order(50, "shuffled", 0, 1)
    assert same(list(loader.batches(order, bounds)), plain_loop(data, data.train, order, bounds))
    loader.close()


def test_global_generator_is_left_alone(kind: str) -> None:
    # Dropout draws from it: it must not depend on how data are loaded.
    loader = make(kind, dataset())
    before = torch.get_rng_state()
    for epoch in range(2):
        list(loader.batches(epoch_order(50, "shuffled", 0, epoch), batch_bounds(50, 8, False, False)))
    assert torch.equal(torch.get_rng_state(), before)
    loader.close()


def test_batches_can_be_loaded_in_inference_mode(kind: str) -> None:
    data = dataset()
    loader = make(kind, data)
    order, bounds = torch.arange(50), batch_bounds(50, 20, False, False)
    expected = plain_loop(data, data.train, order, bounds)
    with torch.inference_mode():
        assert same(list(loader.batches(order, bounds)), expected)
    assert same(list(loader.batches(order, bounds)), expected)
    loader.close()


def test_closed_loader_can_be_used_again(kind: str) -> None:
    loader = make(kind, dataset())
    order, bounds = torch.arange(50), batch_bounds(50, 20, False, False)
    first = list(loader.batches(order, bounds))
    loader.close()
    assert same(list(loader.batches(order, bounds)), first)
    loader.close()


def test_batches_of_memory_mapped_pictures(kind: str, tmp_path: Path) -> None:
    data = dataset()
    np.save(tmp_path / "x.npy", data.train.images.permute(0, 2, 3, 1).numpy())
    mapped = Split.mapped(tmp_path / "x.npy", data.train.labels)
    order, bounds = epoch_order(50, "shuffled", 0, 0), batch_bounds(50, 8, False, False)
    loader = make(kind, data, mapped)
    assert same(list(loader.batches(order, bounds)), plain_loop(data, data.train, order, bounds))
    loader.close()


def test_resident_batches_share_no_memory_with_the_data() -> None:
    data = dataset()
    before = data.train.images.clone()
    for images, _ in ResidentLoader(data.train, data.mean, data.std, CPU).batches(torch.arange(50), [(0, 50)]):
        images.zero_()
    assert torch.equal(data.train.images, before)


def test_a_killed_worker_is_reported() -> None:
    data = dataset()
    loader = StreamedLoader(data.train, data.mean, data.std, CPU, workers=1)
    batches = loader.batches(torch.arange(50), [(i, i + 1) for i in range(50)])
    next(batches)
    assert loader._loader is not None
    (worker,) = loader._loader._iterator._workers  # type: ignore[union-attr]
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(RunFailed, match=r"data: a process that reads pictures ahead was killed.*data\.workers=0"):
        list(batches)


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs POSIX signals")
def test_workers_ignore_signals_meant_for_the_run() -> None:
    data = dataset()
    loader = StreamedLoader(data.train, data.mean, data.std, CPU, workers=1)
    order, bounds = torch.arange(50), [(i, i + 1) for i in range(50)]
    batches = loader.batches(order, bounds)
    received = [next(batches)]
    assert loader._loader is not None
    (worker,) = loader._loader._iterator._workers  # type: ignore[union-attr]
    os.kill(worker.pid, signal.SIGINT)
    os.kill(worker.pid, signal.SIGUSR1)
    assert os.getpgid(worker.pid) != os.getpgid(0)  # else a SIGTERM for the group would end it
    received += list(batches)
    assert same(received, plain_loop(data, data.train, order, bounds))
    loader.close()


def test_terminated_workers_end_although_the_run_only_notes_sigterm() -> None:
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        loader = StreamedLoader(dataset().train, torch.zeros(3), torch.ones(3), CPU, workers=1)
        next(loader.batches(torch.arange(50), [(i, i + 1) for i in range(50)]))
        assert loader._loader is not None
        (worker,) = loader._loader._iterator._workers  # type: ignore[union-attr]
        worker.terminate()
        worker.join(timeout=10)
        assert worker.exitcode == -signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere they notice it after some seconds")
def test_workers_end_at_once_when_their_parent_is_killed(tmp_path) -> None:
    """They share its open files, and would keep its run locked."""
    code = """
import os, signal, torch
from deepexp.data.streamed import StreamedLoader
from deepexp.data.source import Split
split = Split.of(torch.zeros(50, 3, 4, 4, dtype=torch.uint8), torch.zeros(50, dtype=torch.int64))
loader = StreamedLoader(split, torch.zeros(3), torch.ones(3), torch.device("cpu"), workers=1)
next(loader.batches(torch.arange(50), [(i, i + 1) for i in range(50)]))
print(loader._loader._iterator._workers[0].pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    process = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, timeout=60)
    assert ends_soon(int(process.stdout))


@pytest.mark.skipif(not hasattr(signal, "SIGCHLD"), reason="needs POSIX signals")
def test_handler_of_dying_children_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    # torch installs its own once in a process.
    monkeypatch.setattr(torch.utils.data._utils.signal_handling, "_SIGCHLD_handler_set", False)
    before = signal.getsignal(signal.SIGCHLD)
    loader = make("streamed-1", dataset())
    list(loader.batches(torch.arange(50), [(0, 50)]))
    assert torch.utils.data._utils.signal_handling._SIGCHLD_handler_set
    assert signal.getsignal(signal.SIGCHLD) is before
    loader.close()


ENDS = """
import torch
from deepexp.data.source import Split
from deepexp.data.streamed import StreamedLoader
split = Split.of(torch.zeros(50, 1, 4, 4, dtype=torch.uint8), torch.zeros(50, dtype=torch.int64))
loader = StreamedLoader(split, torch.zeros(1), torch.ones(1), torch.device("cpu"), workers=2)
next(loader.batches(torch.arange(50), [(i, i + 1) for i in range(50)]))
"""


def test_a_program_with_live_workers_ends_normally() -> None:
    result = subprocess.run([sys.executable, "-c", ENDS], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0 and not result.stderr


def test_memory_maps_are_not_sent_to_workers(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(100_000, dtype=np.uint8).reshape(100, 10, 10, 10))
    pictures = _Pictures(Split.mapped(tmp_path / "x.npy", torch.zeros(100, dtype=torch.int64)))
    sent = pickle.dumps(pictures)
    assert len(sent) < 1000
    samples = np.array([3, 99])
    assert torch.equal(pickle.loads(sent)[samples], pictures[samples])


def mapped_source(folder: Path) -> FixedSource:
    splits = []
    for name, samples in (("train", 40), ("test", 10)):
        np.save(folder / f"{name}.npy", np.zeros((samples, 10, 10, 3), np.uint8))
        splits.append(Split.mapped(folder / f"{name}.npy", torch.arange(samples) % 2))
    return FixedSource(*splits, ("a", "b"))


def test_auto_mode_is_resident_where_the_pictures_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    available = 0
    monkeypatch.setattr(loader_module, "available_bytes", lambda device: available)
    data = assemble(mapped_source(tmp_path), shape=(3, 10, 10), val_fraction=0.25, replicate=5)
    for available, expected in ((30_000, "resident"), (29_999, "streamed"), (None, "resident")):  # noqa: B007
        assert choose_mode(data, CPU, "auto") == expected  # 50 pictures of 300 bytes
    available = 0
    assert choose_mode(data, CPU, "resident") == "resident"
    assert choose_mode(dataset(), CPU, "auto") == "resident"  # in memory already
    assert choose_mode(dataset(), CPU, "streamed") == "streamed"
    assert choose_mode(dataset(), torch.device("meta"), "auto") == "streamed"  # another memory


@pytest.mark.parametrize("replicate", [1, 3])
def test_a_gatherer_gives_the_batches_of_the_loader(replicate: int) -> None:
    data = dataset(subset=20, replicate=replicate)
    order, bounds = epoch_order(20 * replicate, "shuffled", 0, 0), batch_bounds(20 * replicate, 8, False, False)
    loader = make_loader(data.train, data, CPU, "resident")
    gather = loader.gatherer(order, bounds)
    assert gather is not None and gather == loader.gatherer(order, bounds)
    assert same([gather(order[start:stop]) for start, stop in bounds], list(loader.batches(order, bounds)))
    assert make_loader(data.train, data, CPU, "streamed", 0).gatherer(order, bounds) is None


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["resident", "streamed-0", "streamed-2"])
def test_cuda_gives_the_same_batches(mode: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    data = dataset(subset=20, replicate=2)
    order, bounds = epoch_order(40, "shuffled", 0, 0), batch_bounds(40, 8, False, False)
    name, _, workers = mode.partition("-")
    loader = make_loader(data.train, data, torch.device("cuda"), name, int(workers or 0))  # type: ignore[arg-type]
    batches = list(loader.batches(order, bounds))
    assert all(images.is_cuda and labels.is_cuda for images, labels in batches)
    assert all(images.is_contiguous(memory_format=torch.channels_last) for images, _ in batches)
    assert same(
        [(images.cpu(), labels.cpu()) for images, labels in batches], plain_loop(data, data.train, order, bounds)
    )
    loader.close()

"""The loader that caches features, with functions whose bits do and do not depend on the batch size."""

import logging
import subprocess
import sys
import weakref

import pytest
import torch
from torch import Tensor

from deepexp.data.features import FeatureLoader
from deepexp.data.resident import ResidentLoader
from deepexp.data.source import Split

CPU = torch.device("cpu")
SAMPLES = 23
BOUNDS = [(0, 5), (5, 10), (10, 15), (15, 20), (20, 23)]


class Calls:
    """Twelve features of a picture as maps of 2×2, channels last; records the sizes of its batches."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        torch.manual_seed(0)
        self.weight = torch.randn(3 * 4 * 4, 12, dtype=torch.float64)

    def __call__(self, images: Tensor) -> Tensor:
        self.sizes.append(len(images))
        flat = (
            images.double().flatten(1) @ self.weight
        ).float()  # rounded to single precision, the same for any order of summation
        return flat.view(-1, 2, 2, 3).permute(0, 3, 1, 2)


def pictures() -> ResidentLoader:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (SAMPLES, 3, 4, 4), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 10, (SAMPLES,), generator=generator)
    return ResidentLoader(Split.of(images, labels), torch.zeros(3), torch.ones(3), CPU)


def loader() -> FeatureLoader:
    return FeatureLoader(pictures(), SAMPLES, (3, 4, 4), CPU, "training")


def order(seed: int) -> Tensor:
    return torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(seed))


def assert_right(features: FeatureLoader, seed: int, function=None, bounds=BOUNDS) -> None:
    """An epoch of features and labels equals what is computed from the pictures, bit for bit and in its strides."""
    wanted = list(pictures().batches(order(seed), bounds))
    given = list(features.batches(order(seed), bounds))
    assert len(given) == len(wanted)
    for (mine, labels), (images, its_labels) in zip(given, wanted, strict=True):
        right = (function or Calls())(images)
        assert torch.equal(mine, right) and mine.stride() == right.stride() and mine.dtype == right.dtype
        assert torch.equal(labels, its_labels)


def test_features_are_computed_once_compared_once_and_then_cached():
    features, calls = loader(), Calls()
    features.switch(calls)
    assert_right(features, 0)
    assert calls.sizes == [5, 5, 5, 5, 3]
    del calls.sizes[:]
    assert_right(features, 1)
    assert sorted(calls.sizes) == [3, 5, 5]  # to compare them
    del calls.sizes[:]
    for seed in (2, 3):
        assert_right(features, seed)
    assert calls.sizes == []


def test_batches_of_another_size_are_compared_before_the_cache_is_used():
    features, calls = loader(), Calls()
    features.switch(calls)
    for seed in (0, 1):
        assert_right(features, seed)
    del calls.sizes[:]
    larger = [(0, 10), (10, 20), (20, 23)]
    assert_right(features, 2, bounds=larger)
    assert calls.sizes == [10, 10]
    assert_right(features, 3, bounds=larger)
    assert calls.sizes == [10, 10]


def test_batches_with_a_sample_that_is_not_cached_are_computed_whole():
    features, calls = loader(), Calls()
    features.switch(calls)
    assert_right(features, 0, bounds=BOUNDS[:4])  # the last three are left out
    left_out = set(order(0)[20:].tolist())
    del calls.sizes[:]
    mixed = sum(bool(left_out & set(order(1)[start:stop].tolist())) for start, stop in BOUNDS[:4])
    assert 0 < mixed < 4
    assert_right(features, 1, bounds=BOUNDS[:4])
    assert len(calls.sizes) == mixed + min(2, 4 - mixed)


def test_the_batch_size_that_filled_the_cache_is_compared_too():
    """Otherwise its rows could get into batches of the other size, of which only some are compared."""
    features, calls = loader(), Calls()
    features.switch(calls)
    assert_right(features, 0, bounds=BOUNDS[1:])  # as after a run was resumed within an epoch
    missing = order(0)[:5]
    second = torch.cat([order(0)[5:], missing])  # the batch of three has samples that are not cached
    del calls.sizes[:]
    list(features.batches(second, BOUNDS))
    assert calls.sizes == [5, 5, 5, 5, 3]


class Inexact(Calls):
    """Gives other last bits in batches of three, as some kernels do."""

    def __call__(self, images: Tensor) -> Tensor:
        features = super().__call__(images)
        return features * (1 + 2**-22) if len(images) == 3 else features


def test_features_that_depend_on_the_batch_size_are_not_cached(caplog):
    features, calls = loader(), Inexact()
    features.switch(calls)
    with caplog.at_level(logging.WARNING):
        for seed in range(4):
            assert_right(features, seed, function=Inexact())
    (record,) = caplog.records
    assert "training samples" in record.message and "batches of 3" in record.message
    assert features._kept is None
    del calls.sizes[:]
    assert_right(features, 4, function=Inexact())
    assert calls.sizes == [5, 5, 5, 5, 3]


def test_features_in_another_memory_order_are_not_cached():
    class Turned(Calls):
        def __call__(self, images: Tensor) -> Tensor:
            features = super().__call__(images)
            return features.contiguous() if len(images) == 3 else features

    features = loader()
    features.switch(Turned())
    for seed in range(3):
        assert_right(features, seed, function=Turned())
    assert features._kept is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(12,), (3, 2, 2), (1, 12, 1), (2, 6)])
def test_features_of_any_shape_and_type_are_cached(dtype, shape):
    class Other(Calls):
        def __call__(self, images: Tensor) -> Tensor:
            return super().__call__(images).flatten(1).view(-1, *shape).to(dtype)

    features, calls = loader(), Other()
    features.switch(calls)
    for seed in range(3):
        assert_right(features, seed, function=Other())
    assert len(calls.sizes) == 8


def test_a_loader_that_is_switched_off_yields_pictures():
    features = loader()
    for _ in range(2):
        for (mine, labels), (images, its_labels) in zip(
            features.batches(order(0), BOUNDS), pictures().batches(order(0), BOUNDS), strict=True
        ):
            assert torch.equal(mine, images) and torch.equal(labels, its_labels)
        features.switch(Calls())
        list(features.batches(order(0), BOUNDS))
        features.switch(None)


def test_a_cache_filled_in_inference_mode_can_be_used_in_training():
    features = loader()
    features.switch(Calls())
    with torch.inference_mode():
        list(features.batches(order(0), BOUNDS[1:]))
    assert_right(features, 1)
    weight = torch.ones(3, requires_grad=True)
    batch, _ = next(features.batches(order(2), BOUNDS))
    (batch.sum((2, 3)) * weight).sum().backward()
    assert weight.grad is not None


@pytest.mark.parametrize("end", [lambda features: features.switch(None), lambda features: features.close()])
def test_the_cache_is_freed(end):
    features = loader()
    features.switch(Calls())
    list(features.batches(order(0), BOUNDS))
    assert features._kept is not None
    kept = weakref.ref(features._kept._features)
    end(features)
    assert kept() is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_freed_memory_goes_back_to_the_system():
    """Although a run has the allocator keep freed memory."""
    script = """
import torch
from deepexp import runtime
from deepexp.data.features import _memory_of_its_own
def resident():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1]) / 1024
runtime.tune_malloc()
before = resident()
memory = _memory_of_its_own(100, 2**18, torch.zeros(1)).fill_(1.0)
after_it = torch.ones(1000)
filled = resident()
del memory
print(filled - before, resident() - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    filled, freed = map(float, done.stdout.split())  # MiB
    assert filled > 95 and freed < 20


def test_features_are_gathered_once_all_are_cached() -> None:
    features = loader()
    assert features.gatherer(order(0), BOUNDS) is not None  # it gathers pictures
    features.switch(Calls())
    assert features.gatherer(order(0), BOUNDS) is None
    list(features.batches(order(0), BOUNDS[:-1]))
    assert features.gatherer(order(0), BOUNDS) is None
    list(features.batches(order(0), BOUNDS))
    gather = features.gatherer(order(1), BOUNDS)
    assert gather is not None and gather == features.gatherer(order(2), BOUNDS)
    for (start, stop), (images, labels) in zip(BOUNDS, pictures().batches(order(1), BOUNDS), strict=True):
        mine, its_labels = gather(order(1)[start:stop])
        right = Calls()(images)
        assert torch.equal(mine, right) and mine.stride() == right.stride() and torch.equal(labels, its_labels)
    features.switch(None)
    assert gather != features.gatherer(order(1), BOUNDS)

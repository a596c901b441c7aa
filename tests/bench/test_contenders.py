"""The plain loop and deepexp as contenders, in this process."""

import subprocess
import sys
import time

import pytest
import torch
from torch.nn import functional as F

from deepexp import build, cuda_graph, runtime
from deepexp.bench import contender, operations, ours, plain
from deepexp.optim import capturable
from deepexp.step import Update

from ..tape import Tape
from .setting import planned


@pytest.fixture
def updates(monkeypatch):
    """The times of SGD's updates, whichever contender makes them."""
    made = []
    step = torch.optim.SGD.step
    monkeypatch.setattr(torch.optim.SGD, "step", lambda *a, **k: made.append(time.perf_counter()) or step(*a, **k))
    return made


def test_plain_loop_equals_the_lectures_loop():
    """Weights after a few steps, bit for bit, against the same loop written out here."""
    config, plan = planned("batch_size=30", "optim.lr=0.2")
    data = build.dataset(config, plan)
    images = data.train.pictures(torch.arange(100)).float().sub_(data.mean.item()).div_(data.std.item())
    model = build.model(config, plan.shape, 10, "cpu")
    for parameter in model.parameters():
        parameter.data = plain.in_nchw(parameter.data)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    images = plain.in_nchw(images)
    with plain.opened(config, plan) as loop:
        loop.steps(6)
        for start in (0, 30, 60, 90, 0, 30):
            F.cross_entropy(model(images[start : start + 30]), data.train.labels[start : start + 30]).backward()
            optimizer.step()
            optimizer.zero_grad()
        for (name, mine), (_, its) in zip(model.named_parameters(), loop._model.named_parameters(), strict=True):
            assert torch.equal(mine, its), name


def test_plain_loop_is_in_nchw_with_one_channel_too():
    config, plan = planned()
    with plain.opened(config, plan) as loop:
        assert loop._train_images.stride() == (784, 784, 28, 1)
        assert loop._model.conv1.weight.stride() == (25, 25, 5, 1)
        assert loop._model.conv2.weight.stride() == (800, 25, 5, 1)


def test_plain_loop_counts_its_test_errors():
    config, plan = planned()
    with plain.opened(config, plan) as loop:
        result = loop.epoch()
        with torch.no_grad():
            predicted = loop._model(loop._test_images).argmax(1)
        assert result.test_error_rate == pytest.approx((predicted != loop._test_labels).double().mean().item())
        assert result.seconds > 0


@pytest.mark.parametrize("overrides", [[], ["accumulate=2"], ["optim=adam", "model.dropout=0.5"], ["batch_size=full"]])
@pytest.mark.parametrize("opened", [plain.opened, ours.opened])
def test_both_contenders_train(opened, overrides):
    """More steps than an epoch has, then whole epochs; the model improves."""
    config, plan = planned("data.subset=200", *overrides)
    with opened(config, plan) as one:
        began = time.perf_counter()
        seconds = one.steps(12)
        assert 0 < 12 * seconds <= time.perf_counter() - began
        results = [one.epoch() for _ in range(3)]
    assert min(result.test_error_rate for result in results) < 0.6


@pytest.mark.parametrize("opened", [plain.opened, ours.opened])
def test_step_time_includes_every_update(opened, updates, monkeypatch):
    """Every update is made to take 5 ms; the mean step must take at least that over any number of epochs."""
    step = torch.optim.SGD.step
    monkeypatch.setattr(torch.optim.SGD, "step", lambda *a, **k: time.sleep(0.005) or step(*a, **k))
    config, plan = planned("data=synthetic", "data.train_samples=100", "data.test_samples=20")
    with opened(config, plan) as one:
        for count in (1, 3, 7, 12):
            del updates[:]
            assert one.steps(count) >= 0.005
            assert count <= len(updates) <= count + 2 * (1 + count // 3)


def test_layers_frozen_at_first_stay_frozen_in_both_contenders():
    rule = "freeze=[{pattern:'conv1.*',share:0.5}]"
    config, plan = planned(rule)
    with ours.opened(config, plan) as one:
        before = one._parts.model.conv1.weight.clone()
        one.steps(20)
        one.epoch()
        assert torch.equal(before, one._parts.model.conv1.weight)
    with plain.opened(config, plan) as other:
        other.steps(5)
        assert torch.equal(before, other._model.conv1.weight)


def test_deepexp_caches_outputs_of_frozen_layers_between_turns():
    words = ["model=monster", "model.pretrained=false", "model.nb_residual_blocks=1", "model.nb_channels=4"]
    config, plan = planned(*words, "freeze=[{pattern: features.*, share: 0.5}]")
    calls = []
    with ours.opened(config, plan) as one:
        one._parts.model.features.register_forward_hook(lambda *_: calls.append(1))
        one.epoch()
        first = len(calls)
        one.epoch()
        compared = len(calls) - first
        one.epoch()
        one.steps(7)
    assert first == 5 + 1  # batches of training and test data
    assert compared == 2 + 1
    assert len(calls) == first + compared


def test_deepexp_records_its_cuda_graph_once_for_all_turns(monkeypatch):
    """Also with cached features, although no turn reaches the end of an epoch."""
    tape = Tape()
    monkeypatch.setattr(cuda_graph, "can_record", lambda device: True)
    monkeypatch.setattr(cuda_graph, "make_recorder", lambda device: tape)
    monkeypatch.setattr(capturable, "REPLAYED", {torch.optim.SGD: {"fused": True}})
    words = ["model=monster", "model.pretrained=false", "model.nb_residual_blocks=1", "model.nb_channels=4"]
    for more in ([], ["freeze=[{pattern: features.*, share: 0.5}]"]):
        config, plan = planned(*words, *more, "cuda_graph=true", "data.subset=200", "batch_size=20")
        tape.recorded.clear()
        with ours.opened(config, plan) as one:
            one.steps(3)
            tape.replayed.clear()
            one.steps(3)
            one.steps(3)
        assert (tape.recorded[Update], tape.replayed[Update]) == (1, 2 * (2 + 3)), more


def test_limits_in_the_config_do_not_shorten_a_measured_epoch(updates):
    config, plan = planned("max_steps=1", "max_minutes=0.0001", "evaluate_every=7")
    with ours.opened(config, plan) as one:
        one.epoch()
    assert len(updates) == 5


def test_both_contenders_use_the_same_number_of_threads():
    config, plan = planned("threads=auto")
    expected = runtime.default_threads()
    for opened in (ours.opened, plain.opened):
        with opened(config, plan):
            assert torch.get_num_threads() == expected


def test_pictures_that_do_not_fit_as_floats_are_refused(monkeypatch):
    config, plan = planned()
    monkeypatch.setattr(plain, "available_bytes", lambda device: 1000)
    with pytest.raises(plain.InputError, match=r"data: .*data\.subset=1000"), plain.opened(config, plan):
        pass


def test_peak_memory_is_in_bytes():
    before = contender.peak_memory_bytes()
    assert before is not None and before > 50e6
    block = torch.ones(50_000_000)
    after = contender.peak_memory_bytes()
    assert after >= before and after >= block.nbytes


@pytest.mark.parametrize(
    "intervals, length",
    [([], 0), ([(1, 3), (5, 6)], 3), ([(5, 6), (1, 3), (2, 4), (1, 2)], 4), ([(0, 10), (2, 3), (9, 11)], 11)],
)
def test_overlapping_kernels_count_once_in_busy_time(intervals, length):
    assert operations.covered(intervals) == length


def test_a_cpu_has_no_kernel_share():
    config, plan = planned()
    with ours.opened(config, plan) as one:
        assert one.kernel_share(3) is None


@pytest.mark.gpu
def test_a_gpu_has_a_kernel_share():
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    config, plan = planned("device=cuda")
    with ours.opened(config, plan) as one:
        one.steps(5)
        assert 0.01 < one.kernel_share(3) < 1
        found = one.breakdown(3)
        assert sum(operation.seconds for operation in found.operations) < found.seconds
        assert any("gemm" in operation.name or "conv" in operation.name for operation in found.operations)


def test_a_breakdown_counts_the_operations_of_whole_steps(updates, capfd):
    """Only whole updates are counted, however many were asked for: each of mnist_net has two convolutions."""
    config, plan = planned()
    with ours.opened(config, plan) as one:
        one.steps(3)
        updates.clear()
        found = one.breakdown(100)
        assert 1 <= len(updates) <= len(plan.updates)
    calls = {operation.name: operation.calls for operation in found.operations}
    assert calls["aten::convolution_backward"] == calls["aten::mkldnn_convolution"] == 2
    assert calls["aten::max_pool2d_with_indices_backward"] == 2 and calls["aten::index_select"] >= 1
    assert "aten::randperm" not in calls, "the order is drawn before"
    spent = [operation.seconds for operation in found.operations]
    assert spent == sorted(spent, reverse=True)
    assert 0 < sum(spent) <= found.seconds and found.outside == pytest.approx(found.seconds - sum(spent))
    assert capfd.readouterr() == ("", ""), "the profiler does not talk"


NEW_PAGES = """
import resource

import torch
from omegaconf import OmegaConf

from deepexp import check
from deepexp.bench import contender, ours
from deepexp.config.compose import compose

words = ["threads=1", "device=cpu", "data.subset=100", "batch_size=20"]
config, plan = check.typed_and_planned(OmegaConf.to_container(compose(words).config, resolve=True))
with ours.opened(config, plan) as one:
    one.steps(3)
    size = contender.peak_memory_bytes()
    one.breakdown(3)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    kept = [torch.zeros(2 << 20) for _ in range(size // 2 // (8 << 20))]
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults, sum(block.nbytes for block in kept) // resource.getpagesize())
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's heap")
def test_the_heap_keeps_spare_pages_during_a_breakdown():
    """Otherwise operations that write to a large new tensor would seem to take several times as long as they do.

    In a process of its own, as steps are timed: other tests leave a heap of any shape behind.
    """
    done = subprocess.run([sys.executable, "-c", NEW_PAGES], capture_output=True, text=True, check=True)
    faults, pages = map(int, done.stdout.split())
    assert pages > 10_000 and faults < 0.05 * pages

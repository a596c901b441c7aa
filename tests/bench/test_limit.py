"""The limit of the machine: its operations against counts by hand, and how it is timed."""

import dataclasses
import time

import pytest
import torch
from torch import nn

from deepexp.bench import limit
from deepexp.models import onednn
from deepexp.models.mnist_net import MnistNet

from .setting import planned


def counted(module, inputs):
    outputs = module(inputs)
    layer = limit.Layer("layer", module, tuple(inputs.shape), tuple(outputs.shape), True, True)
    return layer.forward_flops


@pytest.mark.parametrize(
    "options",
    [
        *({}, {"padding": 2}, {"padding": 1, "stride": 2}, {"padding": 3, "dilation": 2}, {"groups": 2}),
        *({"padding": "valid"}, {"padding": "same"}, {"padding": "same", "dilation": 2}),
    ],
)
def test_operations_of_a_convolution_are_counted(options):
    """With all weights and pixels one and no bias, each output is the number of its multiplications."""
    conv = nn.Conv2d(4, 6, 3, bias=False, **options)
    nn.init.ones_(conv.weight)
    pixels = torch.ones(2, 4, 9, 7)
    assert counted(conv, pixels) == 2 * conv(pixels).sum().item()


def test_operations_of_a_convolution_with_circular_padding():
    """torch pads the pixels itself before it calls the convolution, which then adds no zeros."""
    conv = nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular", bias=False)
    nn.init.ones_(conv.weight)
    pixels = torch.ones(2, 4, 9, 7)
    (layer,) = limit.layers_of(conv, pixels)
    assert layer(torch.ones(layer.input_shape)).shape == layer.output_shape == conv(pixels).shape
    assert layer.forward_flops == 2 * conv(pixels).sum().item()


def test_operations_of_a_linear_layer_are_counted():
    assert counted(nn.Linear(30, 7), torch.ones(5, 30)) == 2 * 5 * 30 * 7


def test_operations_of_the_lectures_net_are_counted():
    """7.1 million operations a sample with the backward pass, of which the first layer needs no input gradient."""
    layers = limit.layers_of(MnistNet(shape=(1, 28, 28), classes=10), torch.zeros(3, 1, 28, 28))
    assert [layer.name for layer in layers] == ["conv1", "conv2", "fc1", "fc2"]
    assert [layer.needs_input_gradient for layer in layers] == [False, True, True, True]
    forward = [2 * 24 * 24 * 32 * 25, 2 * 4 * 4 * 64 * 32 * 25, 2 * 256 * 200, 2 * 200 * 10]
    assert [layer.forward_flops for layer in layers] == [3 * count for count in forward]
    assert sum(layer.training_flops for layer in layers) == 3 * (2 * forward[0] + 3 * sum(forward[1:]))
    assert sum(layer.training_flops for layer in layers) / 3 == pytest.approx(7.1e6, rel=0.01)


def test_a_frozen_layer_needs_no_gradient_of_its_weights():
    net = MnistNet(shape=(1, 28, 28), classes=10)
    net.conv1.requires_grad_(False)
    first, second, *_ = limit.layers_of(net, torch.zeros(1, 1, 28, 28))
    assert first.training_flops == first.forward_flops and not second.needs_input_gradient


def test_layers_behind_the_first_are_timed_on_bfloat16_where_training_has_that():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        layers = limit.layers_of(MnistNet(shape=(1, 28, 28), classes=10), torch.zeros(2, 1, 28, 28))
    assert [layer.input_type for layer in layers] == [torch.float32, *[torch.bfloat16] * 3]
    assert {layer.output_type for layer in layers} == {torch.bfloat16}
    config, plan = planned("precision=bf16")
    with limit.opened(config, plan) as opened:
        inputs, gradient = opened._tensors(layers[1])
    assert inputs.dtype == gradient.dtype == torch.bfloat16
    assert all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in (inputs, gradient))


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
def test_layers_are_timed_in_the_memory_order_that_training_has_them_in(monkeypatch):
    monkeypatch.setattr(onednn, "pays", lambda x: True)
    config, plan = planned()
    with limit.opened(config, plan) as opened:
        layers = limit.layers_of(MnistNet(shape=(1, 28, 28), classes=10), torch.zeros(2, 1, 28, 28))
        tensors = [opened._tensors(layer) for layer in layers]
        assert opened._training(layers[1])()[0].is_mkldnn
    assert [layer.name for layer in layers] == ["conv1", "conv2", "fc1", "fc2"]
    assert [[tensor.is_mkldnn for tensor in pair] for pair in tensors] == [[True] * 2] * 2 + [[False] * 2] * 2


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("blocked", [False, True])
def test_the_limit_is_measured(precision, blocked, monkeypatch):
    monkeypatch.setattr(onednn, "pays", lambda x: blocked and torch.backends.mkldnn.is_available())
    monkeypatch.setattr(limit, "_SECONDS_A_LAYER", 0.01)
    config, plan = planned(f"precision={precision}")
    with limit.opened(config, plan) as opened:
        found = opened.measure()
    assert 0 < found["step_seconds"] < found["epoch_seconds"]
    assert found["step_flops"] == pytest.approx(20 * 7.1e6, rel=0.01)
    assert all(1e7 < layer["flops_per_second"] < 1e13 for layer in found["layers"])
    assert 1e8 < found["copy_bytes_per_second"] < 1e13


def test_a_slow_first_call_does_not_count(monkeypatch):
    """torch may import its compiler in the first call, which takes seconds."""
    monkeypatch.setattr(limit, "_SECONDS_A_LAYER", 0.01)
    naps = iter([0.2])
    with limit.opened(*planned()) as opened:
        assert opened._best(lambda: time.sleep(next(naps, 0.001))) < 0.1


def test_a_gpu_without_kernel_times_is_timed_by_the_wall_clock(monkeypatch):
    config, plan = planned()
    with limit.opened(config, plan) as opened:
        assert opened._clock == "wall"
        opened._plan, opened._clock = dataclasses.replace(plan, device=torch.device("cuda")), "kernels"
        monkeypatch.setattr(limit, "synchronise", lambda device: None)
        for kernels in (0.25, 0.0):
            monkeypatch.setattr(limit, "busy_seconds_of", lambda work, device, kernels=kernels: work() or kernels)
            seconds = opened._best(lambda: time.sleep(0.002))
            assert seconds == pytest.approx(kernels / limit._CALLS_A_LAYER) if kernels else 0.002 < seconds < 0.02
            assert opened._clock == ("kernels" if kernels else "wall")


@pytest.mark.gpu
def test_on_a_gpu_the_limit_is_the_time_of_the_kernels(monkeypatch):
    """Without the launches, which take some 10 µs for each of the few kernels of a layer."""
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    config, plan = planned("device=cuda")
    with limit.opened(config, plan) as opened:
        found = opened.measure()
        monkeypatch.setattr(limit, "busy_seconds_of", lambda work, device: 0.0)
        with_start = opened.measure()
    assert found["clock"] == "kernels" and with_start["clock"] == "wall"
    assert 0 < found["step_seconds"] < found["epoch_seconds"]
    assert found["step_seconds"] < 0.8 * with_start["step_seconds"]

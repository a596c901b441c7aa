"""The lecture's net in oneDNN's memory order computes what it computes in torch's order."""

import contextlib
import copy
import math

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from deepexp.models import onednn
from deepexp.models.mnist_net import MnistNet
from deepexp.models.modes import shortcuts_allowed
from deepexp.step import Precision

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")


@pytest.fixture
def used(monkeypatch):
    """Use the order for all batches, on every CPU."""
    monkeypatch.setattr(onednn, "pays", lambda x: x.dtype is torch.float32)


def net(shape=(1, 28, 28)):
    torch.manual_seed(0)
    return MnistNet(shape=shape, classes=10)


def loss_and_gradients(model, x, labels):
    loss = F.cross_entropy(model(x), labels)
    return [loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))]


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 28, 28), (2, 22, 31)], ids=str)
def test_losses_and_gradients_equal_those_in_float64(used, shape):
    model = net(shape)
    x, labels = torch.randn(5, *shape), torch.arange(5)
    ours = loss_and_gradients(model, x.contiguous(memory_format=torch.channels_last), labels)
    exact = loss_and_gradients(copy.deepcopy(model).double(), x.double(), labels)
    for mine, true in zip(ours, exact, strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine.double(), true, rtol=1e-4, atol=1e-6)


def test_equal_pixels_of_a_maximum_have_the_gradients_of_torchs_order(used, monkeypatch):
    """In empty parts of a picture all pixels are the maximum, and the first of them gets the gradient."""
    model, labels = net(), torch.arange(4)
    x = torch.zeros(4, 1, 28, 28)
    x[:, :, 10:15, 12:14] = torch.rand(4, 1, 5, 2)
    ours = loss_and_gradients(model, x, labels)
    monkeypatch.setattr(onednn, "pays", lambda x: False)
    for mine, theirs in zip(ours, loss_and_gradients(model, x, labels), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_bfloat16_is_as_exact_as_in_torchs_order(used, monkeypatch):
    model, labels = net(), torch.arange(50) % 10
    x = torch.randn(50, 1, 28, 28)
    exact = loss_and_gradients(copy.deepcopy(model).double(), x.double(), labels)

    def distances():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = loss_and_gradients(model, x, labels)
        return [(mine - true).norm() / true.norm() for mine, true in zip(found, exact, strict=True)]

    ours = distances()
    monkeypatch.setattr(onednn, "pays", lambda x: False)
    for mine, theirs in zip(ours, distances(), strict=True):
        assert mine < 1.5 * theirs + 1e-3


def test_losses_of_thirty_updates_equal_those_in_torchs_order_to_a_ten_thousandth(used, monkeypatch):
    digits = load_digits()
    pictures = F.interpolate(torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, size=28)
    labels = torch.tensor(digits.target)

    def losses():
        model, found = net(), []
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(30):
            batch = slice(50 * step, 50 * step + 50)
            loss = F.cross_entropy(model(pictures[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(loss.detach())
        return torch.stack(found)

    ours = losses()
    monkeypatch.setattr(onednn, "pays", lambda x: False)
    torch.testing.assert_close(ours, losses(), rtol=0, atol=1e-4)
    assert ours[-1] < ours[0] - 0.1


@pytest.mark.parametrize("layer", ["conv1", "conv2"])
@pytest.mark.parametrize("name", ["weight", "bias"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_weight_that_is_not_finite_shows_in_the_output(used, layer, name, value):
    model = net()
    with torch.no_grad():
        model.get_submodule(layer).get_parameter(name).view(-1)[-1] = value
        assert model(torch.rand(4, 1, 28, 28)).isnan().all()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_pixel_that_is_not_finite_shows_in_the_output_of_its_picture_alone(used, value):
    x = torch.rand(4, 1, 28, 28)
    x[2, 0, 14, 14] = value
    assert net()(x).isnan().all(1).tolist() == [False, False, True, False]


def test_maps_that_overflow_show_and_large_weights_that_do_not_are_no_nan(used):
    model, x = net(), torch.rand(4, 1, 28, 28)
    with torch.no_grad():
        model.conv2.weight.abs_().mul_(1e36)  # whose sum is infinite
        model.conv1.weight.mul_(1e-6)
        model.fc1.weight.mul_(1e-36)
        assert model(x).isfinite().all()
        model.conv1.weight.mul_(1e44)  # maps are infinite, and their sum, with both signs, NaN
        model.conv2.weight.copy_(net().conv2.weight)
        assert model(x).isnan().all()


def test_frozen_layers_get_no_gradient(used):
    model = net()
    model.conv1.requires_grad_(False)
    model(torch.rand(4, 1, 28, 28)).sum().backward()
    assert model.conv1.weight.grad is None and model.conv2.weight.grad is not None


def test_models_that_onednn_does_not_suit_keep_torchs_order(monkeypatch):
    def refuse(x):
        raise AssertionError("not to be blocked")

    monkeypatch.setattr(onednn, "pays", lambda x: True)
    monkeypatch.setattr(onednn, "blocked", refuse)
    for options in ({"batch_norm": True}, {"activation": "tanh"}):
        MnistNet(shape=(1, 28, 28), classes=10, **options)(torch.rand(4, 1, 28, 28))
    with pytest.raises(AssertionError, match="not to be blocked"):
        net()(torch.rand(4, 1, 28, 28))


@pytest.mark.parametrize(
    "change",
    [
        lambda model: setattr(model.conv1, "bias", None),
        lambda model: setattr(model.conv2, "padding", (1, 1)),
        lambda model: setattr(model, "bn1", nn.BatchNorm2d(32)),
        lambda model: setattr(model, "activation", nn.Tanh()),
        lambda model: model.conv1.register_forward_hook(lambda layer, inputs, output: -output),
    ],
)
def test_changes_of_the_layers_take_effect(used, monkeypatch, change):
    model, x = net((1, 40, 40)).eval(), torch.rand(4, 1, 40, 40)
    model.fc1, model.fc2 = nn.Flatten(), nn.Identity()
    with torch.no_grad():
        before = model(x)
        change(model)
        ours = model(x)
        monkeypatch.setattr(onednn, "pays", lambda x: False)
        assert torch.equal(ours, model(x))
    assert ours.shape != before.shape or not torch.allclose(ours, before)


@pytest.fixture
def avx512(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)


@pytest.mark.parametrize("has_amx", [False, True])
def test_with_matrix_units_bfloat16_stays_in_torchs_order(avx512, monkeypatch, has_amx):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_amx)
    x = torch.zeros(100, 1, 28, 28)
    with shortcuts_allowed():
        assert onednn.pays(x)
        with torch.autocast("cpu", torch.bfloat16):
            assert onednn.pays(x) != has_amx


@pytest.mark.parametrize("capability", ["AVX512", "AVX2"])
def test_it_pays_for_large_batches_with_avx512(monkeypatch, capability):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    x = torch.rand(100, 1, 28, 28)
    with shortcuts_allowed():
        assert onednn.pays(x) == (capability == "AVX512")
        assert not any(onednn.pays(other) for other in (x[:10], x.double(), x.to("meta")))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_may_use_the_order_and_tests_and_other_callers_may_not(avx512, precision):
    arithmetic = Precision(torch.device("cpu"), precision).arithmetic
    x = torch.rand(100, 1, 28, 28)
    assert not onednn.pays(x)
    with arithmetic():
        assert onednn.pays(x)
        with torch.inference_mode():
            assert not onednn.pays(x)
    with contextlib.suppress(KeyError), arithmetic():
        raise KeyError
    assert not onednn.pays(x)


def test_it_gives_way_to_torchs_own_switches(avx512):
    x = torch.rand(100, 1, 28, 28)
    with shortcuts_allowed(), torch.backends.mkldnn.flags(enabled=False):
        assert not onednn.pays(x)
    with shortcuts_allowed(), torch.autograd.set_detect_anomaly(True):
        assert not onednn.pays(x)
    with shortcuts_allowed():
        assert onednn.pays(x)


def test_a_users_own_calls_can_differentiate_twice(avx512):
    x = torch.rand(100, 1, 28, 28, requires_grad=True)
    (gradient,) = torch.autograd.grad(net()(x).sum(), x, create_graph=True)
    gradient.square().sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()


class Asks(nn.Module):
    def forward(self, x):
        return x + 1 if onednn.pays(x) else x


def test_compiled_models_keep_torchs_order(avx512):
    x = torch.rand(100, 1, 28, 28)
    with shortcuts_allowed():
        assert torch.equal(Asks()(x), x + 1)
        assert torch.equal(torch.compile(Asks(), backend="eager", fullgraph=True)(x), x)

"""Folded batch normalisation gives the same function; it is left where another operator uses its input."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from deepexp.models.fold import Folded, batch_norms, fold_batch_norm
from deepexp.models.mnist_net import MnistNet
from deepexp.models.monster import Monster
from deepexp.models.resnet import ResNet


def trained(model):
    """The model with random statistics, scales and shifts, as after training, in float64 and test mode."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            if module.track_running_stats:
                module.running_mean.normal_()
                module.running_var.uniform_(0.01, 4)
            if module.affine:
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
    return model.double().eval()


def folded(model, *shape):
    """(folded graph of a model, its count, largest difference from the model relative to the largest output)."""
    inputs = torch.randn(3, *shape, dtype=torch.float64)
    with torch.no_grad():
        graph = torch.export.export(model, (inputs,)).module(check_guards=False)
        count = fold_batch_norm(graph)
        expected = model(inputs)
        return graph, count, float((graph(inputs) - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize(
    ("layers", "shape"),
    [
        ([nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)], (3, 6, 7)),
        ([nn.Conv2d(3, 8, 3, stride=2, padding=2, dilation=2), nn.BatchNorm2d(8, eps=0.1)], (3, 9, 9)),
        ([nn.Conv2d(4, 8, 3, padding="same", groups=2), nn.BatchNorm2d(8)], (4, 6, 6)),
        ([nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=False)], (3, 6, 6)),
        ([nn.Conv1d(3, 8, 3), nn.BatchNorm1d(8)], (3, 9)),
        ([nn.Conv3d(2, 4, 3), nn.BatchNorm3d(4)], (2, 5, 5, 5)),
        ([nn.Linear(5, 4), nn.BatchNorm1d(4)], (5,)),
        ([nn.Linear(5, 4, bias=False), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)], (5,)),
    ],
)
def test_a_batch_norm_is_folded_into_the_layer_before(layers, shape):
    graph, count, difference = folded(trained(nn.Sequential(*layers)), *shape)
    assert count == Folded(1, 1) and batch_norms(graph) == []
    assert difference < 1e-12
    assert {name.rpartition("_")[2] for name, _ in graph.named_parameters() if "folded" in name} == {"weight", "bias"}
    assert list(graph.buffers()) == []  # the folded statistics are gone


@pytest.mark.parametrize(
    ("model", "shape", "count"),
    [
        (MnistNet(shape=(1, 28, 28), classes=10, batch_norm=True), (1, 28, 28), 3),
        (ResNet(shape=(3, 16, 16), classes=10, shortcut="conv"), (3, 16, 16), 21),
        (ResNet(shape=(3, 32, 32), classes=10, family="imagenet", depth=18), (3, 32, 32), 17),
        (Monster(shape=(3, 32, 32), classes=10, nb_residual_blocks=3), (3, 32, 32), 6),
    ],
)
def test_all_batch_norms_of_the_models_are_folded(model, shape, count):
    _, found, difference = folded(trained(model), *shape)
    assert found == Folded(count, count)
    assert difference < 1e-10


class UsedTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)

    def forward(self, x):
        maps = self.conv(x)
        return self.norm(maps) + maps


class FromAnInput(nn.Module):
    """A convolution whose weights are not constant."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(2)

    def forward(self, x):
        return self.norm(F.conv2d(x, x[:2, :, :2, :2]))


class WithComputedScale(nn.Module):
    """A normalisation whose scale is not constant."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)

    def forward(self, x):
        norm = self.norm
        return F.batch_norm(self.conv(x), norm.running_mean, norm.running_var, norm.weight.exp(), norm.bias)


class OfOnePicture(nn.Module):
    """A convolution of a picture without a batch, whose outputs are not the second dimension."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm1d(8)

    def forward(self, x):
        return self.norm(self.conv(x[0]))


class WithAVector(nn.Module):
    """A linear layer of one output, without a dimension for it."""

    def __init__(self):
        super().__init__()
        self.weight, self.norm = nn.Parameter(torch.ones(6)), nn.BatchNorm1d(6)

    def forward(self, x):
        return self.norm(F.linear(x, self.weight))


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (UsedTwice(), (3, 6, 6)),
        (FromAnInput(), (3, 6, 6)),
        (WithComputedScale(), (3, 6, 6)),
        (OfOnePicture(), (3, 8, 8)),
        (WithAVector(), (6, 6)),
        (nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3)), (3, 6, 6)),
        (nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.BatchNorm2d(8)), (3, 6, 6)),
        (nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, track_running_stats=False)), (3, 6, 6)),
        (nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(6)), (6, 5)),  # over the second of three dimensions
        (nn.Sequential(nn.ConvTranspose2d(3, 8, 3), nn.BatchNorm2d(8)), (3, 6, 6)),
    ],
)
def test_a_batch_norm_that_cannot_be_folded_is_left(model, shape):
    graph, count, difference = folded(trained(model), *shape)
    assert count == Folded(0, 1) and len(batch_norms(graph)) == 1
    assert difference < 1e-12


class OneConvolution(nn.Module):
    """Called twice, with a normalisation of its own each time."""

    def __init__(self):
        super().__init__()
        self.conv, self.norms = nn.Conv2d(3, 3, 3, padding=1), nn.ModuleList([nn.BatchNorm2d(3), nn.BatchNorm2d(3)])

    def forward(self, x):
        for norm in self.norms:
            x = norm(self.conv(x))
        return x


def test_a_layer_used_before_two_batch_norms_becomes_two_layers():
    _, count, difference = folded(trained(OneConvolution()), 3, 6, 6)
    assert count == Folded(2, 2) and difference < 1e-12

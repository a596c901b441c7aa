import math

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from deepexp.models.init import initialise


class Net(nn.Module):
    """Fans: 3·25 in and 40·25 out (conv); 300 in and 200 out (fc)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 40, 5)
        self.bn = nn.BatchNorm2d(40)
        self.fc = nn.Linear(300, 200)


def net() -> Net:
    torch.manual_seed(0)
    return Net()


FANS = {"conv": (3 * 25, 40 * 25), "fc": (300, 200)}


@pytest.mark.parametrize("layer", ["conv", "fc"])
def test_xavier_has_the_variance_of_glorot_and_bengio(layer: str):
    model = net()
    initialise(model, "xavier")
    weight = model.get_submodule(layer).weight.detach().double()
    fan_in, fan_out = FANS[layer]

    assert weight.var().item() == pytest.approx(2 / (fan_in + fan_out), rel=0.05)
    bound = math.sqrt(6 / (fan_in + fan_out))
    assert 0.98 * bound < weight.abs().max() <= bound
    assert abs(weight.mean()) < 4 * weight.std() / math.sqrt(weight.numel())


@pytest.mark.parametrize("layer", ["conv", "fc"])
def test_kaiming_has_the_variance_of_he_et_al(layer: str):
    model = net()
    initialise(model, "kaiming")
    weight = model.get_submodule(layer).weight.detach().double()

    assert weight.var().item() == pytest.approx(2 / FANS[layer][0], rel=0.06)
    kurtosis = ((weight - weight.mean()) ** 4).mean() / weight.var() ** 2
    assert kurtosis == pytest.approx(3, abs=0.3)  # normal; a uniform distribution has 1.8


@pytest.mark.parametrize("scheme", ["xavier", "kaiming"])
def test_biases_are_zero_and_normalisation_is_left_alone(scheme: str):
    model = net()
    nn.init.constant_(model.bn.weight, 0.25)
    initialise(model, scheme)

    assert model.conv.bias.count_nonzero() == model.fc.bias.count_nonzero() == 0
    assert (model.bn.weight == 0.25).all()


def test_default_leaves_pytorchs_own_weights():
    model = net()
    initialise(model, "default")

    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), net().parameters(), strict=True))


def test_pretrained_modules_are_left_alone_but_not_those_of_similar_name():
    model = nn.ModuleDict({"features": nn.Sequential(nn.Linear(4, 4)), "features2": nn.Linear(4, 4)})
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.pretrained_modules = ("features",)
    initialise(model, "xavier")

    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"features2.weight", "features2.bias"}


def test_an_unknown_scheme_is_refused():
    with pytest.raises(ValueError, match=r"^init: 'orthogonal' is not one of default, xavier, kaiming"):
        initialise(net(), "orthogonal")


def test_a_parametrized_weight_is_drawn_as_well():
    model = net()
    weight_norm(model.fc)
    initialise(model, "kaiming")

    assert model.fc.weight.detach().double().var().item() == pytest.approx(2 / 300, rel=0.06)

"""What holds for every model: it is built, gives logits and takes a step, for every input shape and flag."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from deepexp.models.init import initialise
from deepexp.models.mnist_net import MnistNet
from deepexp.models.monster import Monster
from deepexp.models.resnet import ResNet
from deepexp.models.torchvision_model import TorchvisionModel

MODELS = {
    "mnist_net": MnistNet,
    "resnet8": partial(ResNet, depth=8),
    "resnet8-conv": partial(ResNet, depth=8, shortcut="conv"),
    "plain8": partial(ResNet, depth=8, shortcut="none"),
    "resnet18": partial(ResNet, family="imagenet", depth=18, width=16),
    "monster": partial(Monster, nb_residual_blocks=2, nb_channels=16),
    "torchvision": partial(TorchvisionModel, name="mnasnet0_5"),
}
SHAPES = {"1x28x28": (1, 28, 28), "3x32x32": (3, 32, 32), "1x8x8": (1, 8, 8), "3x40x24": (3, 40, 24)}
FLAGS = [
    pytest.param({"dropout": dropout, "batch_norm": batch_norm}, id=f"dropout={dropout},batch_norm={batch_norm}")
    for dropout in (None, 0.3)
    for batch_norm in (None, True, False)
]
REFUSED = {("mnist_net", "1x8x8"), ("torchvision", "1x8x8"), ("torchvision", "1x28x28")}


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_built_and_takes_a_step(name: str, shape: str, flags: dict):
    arguments = {"shape": SHAPES[shape], "classes": 10, **flags}
    if (name, shape) in REFUSED or (name == "torchvision" and flags["batch_norm"] is not None):
        with pytest.raises(ValueError, match=r"^(shape|batch_norm): "):
            MODELS[name](**arguments)
        return
    with torch.device("meta"):
        expected = {key: value.shape for key, value in MODELS[name](**arguments).state_dict().items()}
    torch.manual_seed(0)
    model = MODELS[name](**arguments).to(memory_format=torch.channels_last)
    assert {key: value.shape for key, value in model.state_dict().items()} == expected
    x = torch.randn(6, *SHAPES[shape]).contiguous(memory_format=torch.channels_last)

    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    logits = model(x)
    F.cross_entropy(logits, torch.arange(6)).backward()
    torch.optim.Adam(model.parameters(), lr=1e-3).step()

    assert logits.shape == (6, 10)
    assert logits.isfinite().all()
    still = {key for key, value in model.named_parameters() if torch.equal(value, before[key])}
    assert not {key for key in still if key.endswith("weight")}  # a bias before batch normalisation has no effect
    assert any(isinstance(m, nn.Dropout) and m.p == 0.3 for m in model.modules()) == (flags["dropout"] == 0.3)


@pytest.mark.parametrize("scheme", ["default", "xavier", "kaiming"])
@pytest.mark.parametrize("name", MODELS)
def test_initial_weights_are_decided_by_the_seed(name: str, scheme: str):
    def build() -> nn.Module:
        torch.manual_seed(3)
        model = MODELS[name](shape=(3, 32, 32), classes=10)
        initialise(model, scheme)
        return model

    first, second = build(), build()

    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert first(torch.randn(4, 3, 32, 32)).isfinite().all()


@pytest.mark.parametrize("name", MODELS)
def test_logits_at_test_do_not_depend_on_the_batch(name: str):
    torch.manual_seed(0)
    model = MODELS[name](shape=(3, 32, 32), classes=10, dropout=0.3).eval()
    x = torch.randn(4, 3, 32, 32)

    torch.testing.assert_close(model(x)[:1], model(x[:1]))

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from deepexp.models.resnet import ResNet


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def imagenet(**arguments) -> ResNet:
    return ResNet(shape=(3, 64, 64), classes=1000, family="imagenet", **arguments)


@pytest.mark.parametrize(
    ("depth", "millions"), [(20, "0.27"), (32, "0.46"), (44, "0.66"), (56, "0.85"), (110, "1.7")]
)  # He et al. 2015, table 6
def test_cifar_nets_have_the_papers_parameters(depth: int, millions: str):
    counts = [
        parameters(ResNet(shape=(3, 32, 32), classes=10, depth=depth, shortcut=shortcut))
        for shortcut in ("pad", "none")
    ]

    decimals = len(millions.split(".")[1])
    assert f"{counts[0] / 1e6:.{decimals}f}" == millions
    assert counts[1] == counts[0]


@pytest.mark.parametrize("depth", [18, 34])
def test_imagenet_nets_have_torchvisions_parameters(depth: int):
    with torch.device("meta"):
        theirs = torchvision.models.get_model(f"resnet{depth}")
        projections = sum(parameters(m) for name, m in theirs.named_modules() if name.endswith("downsample"))
        counts = {
            shortcut: parameters(imagenet(depth=depth, shortcut=shortcut)) for shortcut in ("conv", "pad", "none")
        }

    assert counts["conv"] == parameters(theirs)
    assert counts["pad"] == counts["none"] == parameters(theirs) - projections


def test_the_imagenet_net_gives_the_logits_of_torchvisions():
    torch.manual_seed(0)
    ours, theirs = imagenet(depth=18, shortcut="conv").double(), torchvision.models.resnet18().double()
    theirs.load_state_dict({_torchvisions_name(name): value for name, value in ours.state_dict().items()})
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)

    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), rtol=1e-12, atol=1e-12)


def _torchvisions_name(name: str) -> str:
    if name.startswith("stages."):
        stage, rest = name.removeprefix("stages.").split(".", 1)
        return f"layer{int(stage) + 1}.{rest}".replace("shortcut", "downsample")
    return name.replace("stem.0", "conv1").replace("stem.1", "bn1")


@pytest.mark.parametrize("shortcut", ["pad", "conv", "none"])
def test_stages_halve_the_maps_and_double_the_channels(shortcut: str):
    shapes = []
    net = ResNet(shape=(1, 32, 20), classes=10, depth=8, width=4, shortcut=shortcut)
    for stage in net.stages:
        stage.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape[1:])))

    net(torch.randn(2, 1, 32, 20))

    assert shapes == [(4, 32, 20), (8, 16, 10), (16, 8, 5)]


def test_blocks_that_start_as_the_identity_leave_a_linear_classifier_of_the_stem():
    torch.manual_seed(0)
    net = ResNet(shape=(3, 32, 32), classes=10, depth=20, zero_init_residual=True)
    x = torch.randn(4, 3, 32, 32)

    grid = net.stem(x)[:, :, ::4, ::4].mean((2, 3))

    torch.testing.assert_close(net(x), net.fc(F.pad(grid, (0, 48))))


def test_without_batch_norm_the_convolutions_have_biases():
    net = ResNet(shape=(3, 32, 32), classes=10, depth=8, shortcut="conv", batch_norm=False)

    assert not any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    assert all(m.bias is not None for m in net.modules() if isinstance(m, nn.Conv2d))


def test_plain_and_residual_nets_differ_only_in_the_sum():
    torch.manual_seed(0)
    residual = ResNet(shape=(3, 32, 32), classes=10, depth=8)
    plain = ResNet(shape=(3, 32, 32), classes=10, depth=8, shortcut="none")
    plain.load_state_dict(residual.state_dict())
    x = torch.randn(4, 3, 32, 32)
    assert not torch.allclose(plain(x), residual(x))

    for stage in residual.stages:
        stage[0].shortcut = None

    torch.testing.assert_close(plain(x), residual(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 21}, r"^depth: 21 is not 6n \+ 2, .* 20 and 26"),
        ({"depth": 2}, r"^depth: 2 is not 6n \+ 2, .* 8 and 14"),
        ({"depth": 50, "family": "imagenet"}, r"^depth: 50 is not 18 or 34"),
        ({"depth": -4}, r"^depth: "),
        ({"family": "mnist"}, r"^family: 'mnist' is not one of cifar, imagenet"),
        ({"shortcut": "zero"}, r"^shortcut: 'zero' is not one of pad, conv, none"),
        ({"width": 0}, r"^width: 0 must be"),
        ({"dropout": 1.5}, r"^dropout: 1.5 must be"),
        ({"zero_init_residual": True, "shortcut": "none"}, r"^zero_init_residual: .*set it to false"),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        ResNet(shape=(3, 32, 32), classes=10, **arguments)

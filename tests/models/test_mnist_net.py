import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from deepexp.models.mnist_net import MnistNet
from deepexp.models.modes import shortcuts_allowed


class LectureNet(nn.Module):
    """What the lecture describes, in plain PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [nn.Conv2d(1, 32, 5), nn.Conv2d(32, 64, 5), nn.Linear(256, 200), nn.Linear(200, 10)]
        )

    def forward(self, x: Tensor) -> Tensor:
        first, second, hidden, last = self.layers
        x = F.relu(F.max_pool2d(first(x), kernel_size=3))
        x = F.relu(F.max_pool2d(second(x), kernel_size=2))
        return last(F.relu(hidden(x.view(-1, 256))))


def mnist_net(**arguments) -> MnistNet:
    torch.manual_seed(0)
    return MnistNet(shape=(1, 28, 28), classes=10, **arguments)


def gradients_of_both(x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Name → (ours, the lecture's) of the outputs and of every gradient, for the same weights and pictures."""
    ours = mnist_net().to(x.dtype)
    torch.manual_seed(0)
    theirs = LectureNet().to(x.dtype)
    outputs = ours(x), theirs(x)
    for output in outputs:
        F.cross_entropy(output, torch.arange(len(x)) % 10).backward()
    pairs = {"outputs": outputs}
    for (name, mine), reference in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, reference)
        pairs[name] = mine.grad, reference.grad
    return pairs


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("batch", [20, 100])
def test_outputs_and_gradients_equal_the_lectures_net_bit_for_bit(layout, batch):
    pairs = gradients_of_both(torch.randn(batch, 1, 28, 28).contiguous(memory_format=layout))
    for mine, reference in pairs.values():
        assert torch.equal(mine, reference)


def test_gradients_of_biases_that_are_summed_behind_the_pooling_equal_the_lectures_net():
    with shortcuts_allowed():
        pairs = gradients_of_both(torch.randn(100, 1, 28, 28, dtype=torch.float64))
    assert not torch.equal(*pairs["conv1.bias"])  # the sum has another order
    for name, (mine, reference) in pairs.items():
        torch.testing.assert_close(mine, reference, rtol=1e-12, atol=1e-14, msg=name)


def test_hooks_and_changes_of_a_convolution_take_effect_where_biases_are_summed_later():
    x = torch.randn(100, 1, 28, 28, dtype=torch.float64)
    changed = mnist_net().double()
    changed.conv1.padding, changed.conv1.padding_mode = (3, 3), "circular"  # 10×10 pixels behind the pooling
    changed.conv1._reversed_padding_repeated_twice = [3] * 4
    changed.conv2 = nn.Conv2d(32, 64, 7, dtype=torch.float64)
    hooked, seen = mnist_net().double(), []
    hooked.conv2.register_forward_hook(lambda layer, inputs, output: seen.append(output.shape))
    usual = changed(x)
    with shortcuts_allowed():
        assert torch.equal(changed(x), usual)
        hooked(x)
    assert seen == [(100, 64, 4, 4)]


def test_a_frozen_convolution_leaves_other_gradients_unchanged():
    net = mnist_net()
    net.conv1.requires_grad_(False)
    net.conv2.bias.requires_grad_(False)
    net(torch.randn(4, 1, 28, 28)).sum().backward()
    assert {name for name, p in net.named_parameters() if p.grad is None} == {
        "conv1.weight",
        "conv1.bias",
        "conv2.bias",
    }


def test_the_number_of_parameters_is_the_lectures():
    convolutions = (25 * 1 + 1) * 32 + (25 * 32 + 1) * 64
    linear = (256 + 1) * 200 + (200 + 1) * 10

    assert sum(p.numel() for p in mnist_net().parameters()) == convolutions + linear == 105_506


def test_batch_norm_does_not_change_the_initial_weights():
    plain, normalised = mnist_net().state_dict(), mnist_net(batch_norm=True).state_dict()

    assert all(torch.equal(value, normalised[name]) for name, value in plain.items())


def test_batch_norm_can_be_folded_into_the_layer_before():
    net = mnist_net(batch_norm=True).double()
    for layer in (net.bn1, net.bn2, net.bn3):
        nn.init.normal_(layer.weight)  # a negative scale does not commute with max-pooling or ReLU
    x = torch.randn(8, 1, 28, 28, dtype=torch.float64)
    net(x)  # updates the running statistics
    net.eval()
    expected = net(x)

    net.conv1, net.bn1 = fuse_conv_bn_eval(net.conv1, net.bn1), nn.Identity()
    net.conv2, net.bn2 = fuse_conv_bn_eval(net.conv2, net.bn2), nn.Identity()
    net.fc1, net.bn3 = fuse_linear_bn_eval(net.fc1, net.bn3), nn.Identity()

    torch.testing.assert_close(net(x), expected)


def test_dropout_acts_before_both_linear_layers():
    net = mnist_net(dropout=0.5)
    for parameter in net.parameters():
        nn.init.constant_(parameter, 0.01)  # so that only dropout makes features zero
    zeros = {}
    for layer in (net.fc1, net.fc2):
        layer.register_forward_pre_hook(lambda layer, x: zeros.update({layer: (x[0] == 0).double().mean().item()}))

    net(torch.ones(50, 1, 28, 28))
    assert zeros[net.fc1] == pytest.approx(0.5, abs=0.05)
    assert zeros[net.fc2] == pytest.approx(0.5, abs=0.05)

    net.eval()(torch.ones(50, 1, 28, 28))
    assert zeros[net.fc1] == zeros[net.fc2] == 0


@pytest.mark.parametrize(
    ("name", "activation"),
    [
        ("relu", F.relu),
        ("leaky_relu", F.leaky_relu),
        ("gelu", F.gelu),
        ("tanh", torch.tanh),
        ("sigmoid", torch.sigmoid),
    ],
)
def test_the_activation_can_be_chosen(name, activation):
    net, x = mnist_net(activation=name), torch.randn(4, 1, 28, 28)

    maps = activation(F.max_pool2d(net.conv2(activation(F.max_pool2d(net.conv1(x), 3))), 2))
    assert torch.equal(net(x), net.fc2(activation(net.fc1(maps.flatten(1)))))
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), mnist_net().parameters(), strict=True))


def test_an_unknown_activation_is_refused():
    with pytest.raises(ValueError, match=r"^activation: 'swish' is not one of relu, leaky_relu, gelu, tanh, sigmoid"):
        mnist_net(activation="swish")


def test_the_smallest_pictures_leave_one_feature_a_channel():
    assert MnistNet(shape=(3, 22, 24), classes=2).fc1.in_features == 64
    with pytest.raises(ValueError, match=r"^shape: pictures of 21x28 are too small .* at least 22x22"):
        MnistNet(shape=(3, 21, 28), classes=2)


@pytest.mark.parametrize("classes", [0, -1, 2.5])
def test_an_impossible_number_of_classes_is_refused(classes: object):
    with pytest.raises(ValueError, match=r"^classes: "):
        MnistNet(shape=(1, 28, 28), classes=classes)

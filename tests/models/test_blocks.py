import pytest
import torch
import torchvision
from torch import nn

from deepexp.models.blocks import PadShortcut, ResidualBlock, dropout_layer


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [8, 7])
def test_the_strided_identity_is_a_regular_grid_and_channels_of_zeros(memory_format: torch.memory_format, size: int):
    x = torch.randn(2, 3, size, size).contiguous(memory_format=memory_format)

    y = PadShortcut(3, 8, stride=2)(x)

    assert torch.equal(y[:, :3], x[:, :, ::2, ::2])
    assert torch.equal(y[:, 3:], torch.zeros(2, 5, 4, 4))
    if size % 2 == 0:
        assert y.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize(("channels", "stride"), [(4, 1), (8, 2)])
def test_a_residual_block_is_torchvisions_basic_block(channels: int, stride: int):
    torch.manual_seed(0)
    ours = ResidualBlock(4, channels, stride=stride, shortcut="conv").double()
    projection = nn.Sequential(nn.Conv2d(4, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels))
    theirs = torchvision.models.resnet.BasicBlock(4, channels, stride, projection if channels != 4 else None).double()
    theirs.load_state_dict({name.replace("shortcut", "downsample"): v for name, v in ours.state_dict().items()})
    x = torch.randn(3, 4, 9, 9, dtype=torch.float64)

    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), rtol=0, atol=0)


def test_a_plain_block_has_no_sum():
    block = ResidualBlock(4, 4, shortcut="none")
    nn.init.zeros_(block.bn2.weight)

    assert torch.equal(block(torch.randn(2, 4, 5, 5)), torch.zeros(2, 4, 5, 5))


@pytest.mark.parametrize("batch_norm", [True, False])
def test_a_block_can_start_as_the_identity_and_still_learn(batch_norm: bool):
    torch.manual_seed(0)
    block = ResidualBlock(4, 4, batch_norm=batch_norm)
    if not batch_norm:
        nn.init.zeros_(block.conv2.bias)
    block.start_as_identity()
    x = torch.randn(2, 4, 5, 5)

    y = block(x)
    (y * torch.randn_like(y)).sum().backward()

    assert torch.equal(y, x.relu())
    last = block.bn2.weight if batch_norm else block.conv2.weight
    assert last.grad is not None and last.grad.abs().max() > 0


def test_dropout_keeps_the_mean_in_training_and_does_nothing_at_test():
    torch.manual_seed(0)
    dropout = dropout_layer(0.3)
    x = torch.ones(100_000)

    y = dropout(x)

    torch.testing.assert_close(y.unique(), torch.tensor([0, 1 / 0.7]))
    assert (y == 0).double().mean() == pytest.approx(0.3, abs=0.01)
    assert y.double().mean() == pytest.approx(1, abs=0.01)
    assert torch.equal(dropout.eval()(x), x)


@pytest.mark.parametrize("probability", [-0.1, 1.0, 1.5, float("nan")])
def test_an_impossible_dropout_is_refused(probability: float):
    with pytest.raises(ValueError, match=r"^dropout: .* must be at least 0 and less than 1"):
        dropout_layer(probability)

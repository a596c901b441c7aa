"""The lecture's small convolutional network."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepexp.models import onednn
from deepexp.models.blocks import Shape, check_choice, check_picture, check_positive, dropout_layer, norm
from deepexp.models.modes import may_take_shortcuts

Activation = Literal["relu", "leaky_relu", "gelu", "tanh", "sigmoid"]
_ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "relu": partial(nn.ReLU, inplace=True),
    "leaky_relu": partial(nn.LeakyReLU, inplace=True),
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}
_SMALLEST = 22  # pixels: (22 - 4) // 3 - 4 = 2, of which the second pooling leaves one
_LARGE_BATCH = 50  # samples


class MnistNet(nn.Module):
    """Two convolutions with max-pooling and two linear layers; 256 features between them at 1×28×28.

    The layers are made in the order in which they are used and nothing else draws random numbers, so under one seed
    the default weights are those of the same four layers made by hand, with or without batch normalisation.

    `dropout` acts before each linear layer; none by default. `batch_norm` stands directly behind each convolution and
    the hidden linear layer; none by default. `activation` follows the poolings and the hidden linear layer.
    """

    def __init__(
        self,
        *,
        shape: Shape,
        classes: int,
        activation: Activation = "relu",
        dropout: float | None = None,
        batch_norm: bool | None = None,
    ) -> None:
        super().__init__()
        check_positive(classes=classes)
        check_choice("activation", activation, tuple(_ACTIVATIONS))
        check_picture(shape, _SMALLEST, "mnist_net")
        channels, height, width = shape
        normalised = bool(batch_norm)
        self.conv1 = nn.Conv2d(channels, 32, kernel_size=5)
        self.bn1 = norm(32, normalised)
        self.conv2 = nn.Conv2d(32, 64, kernel_size=5)
        self.bn2 = norm(64, normalised)
        self.fc1 = nn.Linear(64 * _pooled(height) * _pooled(width), 200)
        self.bn3 = nn.BatchNorm1d(200) if normalised else nn.Identity()
        self.fc2 = nn.Linear(200, classes)
        self.activation = _ACTIVATIONS[activation]()
        self.dropout = dropout_layer(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(self._features(x).flatten(1))  # (batch, 256) for pictures of 28×28
        x = self.activation(self.bn3(self.fc1(x)))  # (batch, 200)
        return self.fc2(self.dropout(x))

    def _features(self, x: Tensor) -> Tensor:
        # Sizes are those of pictures of 28×28: the convolutions give 24×24 and 4×4 pixels.
        if onednn.pays(x) and self._suits_onednn() and onednn.stays_finite(x, self._filters()):
            return self._features_of_blocked(onednn.blocked(x))
        x = self.activation(_convolved_and_pooled(x, self.conv1, self.bn1, size=3))  # (batch, 32, 8, 8)
        return self.activation(_convolved_and_pooled(x, self.conv2, self.bn2, size=2))  # (batch, 64, 2, 2)

    def _features_of_blocked(self, x: Tensor) -> Tensor:
        """`_features` of pictures in oneDNN's memory order, where `_suits_onednn`."""
        (weight1, bias1), (weight2, bias2) = self._filters()
        x = F.relu(onednn.max_pool2d(onednn.conv2d(x, weight1, bias1), size=3))
        x = onednn.max_pool2d(onednn.conv2d(x, weight2, bias2), size=2)
        return F.relu_(x.to_dense())

    def _suits_onednn(self) -> bool:
        """Whether it has ReLU, and its convolutions are plain and without batch normalisation."""
        return (
            _is_plain(self.conv1, self.bn1)
            and _is_plain(self.conv2, self.bn2)
            and _is_unchanged(self.activation, nn.ReLU)
        )

    def _filters(self) -> list[tuple[Tensor, Tensor]]:
        return [(conv.weight, conv.bias) for conv in (self.conv1, self.conv2) if conv.bias is not None]


def _is_plain(conv: nn.Conv2d, norm: nn.Module) -> bool:
    """Whether the convolution has a bias, and neither padding nor steps nor groups nor a normalisation behind it."""
    if not (_is_unchanged(conv, nn.Conv2d) and _is_unchanged(norm, nn.Identity)):
        return False
    settings = (conv.stride, conv.padding, conv.dilation, conv.groups)
    return conv.bias is not None and settings == ((1, 1), (0, 0), (1, 1), 1)


def _is_unchanged(layer: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a layer was neither given a hook nor replaced by one of another kind."""
    return type(layer) is kind and not layer._forward_pre_hooks and not layer._forward_hooks


def _convolved_and_pooled(x: Tensor, conv: nn.Conv2d, norm: nn.Module, size: int) -> Tensor:
    """max_pool2d(norm(conv(x)), size); where that is cheaper, the gradient of the bias is computed behind the pooling.

    It is a sum over all pixels, and max-pooling passes each of its gradients on to one pixel. So the sum behind the
    pooling is the same, over size² times fewer values.
    """
    if conv.bias is None or not (_summing_later_pays(x) and _is_plain(conv, norm)):
        return F.max_pool2d(norm(conv(x)), size)
    bias = conv.bias.detach()
    zeros = conv.bias - bias  # which have the bias's gradient
    return F.max_pool2d(F.conv2d(x, conv.weight, bias), size) + zeros[:, None, None]


def _summing_later_pays(x: Tensor) -> bool:
    """Measured on CPUs: in float32, a training step of 100 samples takes 7 % less; of ten, or in bfloat16, 3 % more."""
    return (
        may_take_shortcuts()
        and x.is_cpu
        and torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and len(x) >= _LARGE_BATCH  # last: an exported graph must not depend on it, and has no gradients
    )


def _pooled(pixels: int) -> int:
    """What is left of a side after both convolutions and poolings."""
    return ((pixels - 4) // 3 - 4) // 2

"""The lecture's small convolutional network."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from deepexp.models.blocks import Shape, check_choice, check_picture, check_positive, dropout_layer, norm

Activation = Literal["relu", "leaky_relu", "gelu", "tanh", "sigmoid"]
_ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "relu": partial(nn.ReLU, inplace=True),
    "leaky_relu": partial(nn.LeakyReLU, inplace=True),
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}
_SMALLEST = 22  # pixels: (22 - 4) // 3 - 4 = 2, of which the second pooling leaves one


class MnistNet(nn.Module):
    """Two convolutions with max-pooling and two linear layers; 256 features between them at 1×28×28.

    The layers are made in the order in which they are used and nothing else draws random numbers, so under one seed
    the default weights are those of the same four layers made by hand, with or without batch normalisation.

    `dropout` acts before each linear layer; none by habit. `batch_norm` stands directly behind each convolution and
    the hidden linear layer; none by habit. `activation` follows the poolings and the hidden linear layer.
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
        x = self.bn1(self.conv1(x))  # (batch, 32, 24, 24) for pictures of 28×28
        x = self.activation(F.max_pool2d(x, kernel_size=3))  # (batch, 32, 8, 8)
        x = self.bn2(self.conv2(x))  # (batch, 64, 4, 4)
        x = self.activation(F.max_pool2d(x, kernel_size=2))  # (batch, 64, 2, 2)
        x = self.dropout(x.flatten(1))  # (batch, 256)
        x = self.activation(self.bn3(self.fc1(x)))  # (batch, 200)
        return self.fc2(self.dropout(x))


def _pooled(pixels: int) -> int:
    """What is left of a side after both convolutions and poolings."""
    return ((pixels - 4) // 3 - 4) // 2

"""The lecture's small convolutional network."""

import torch.nn.functional as F
from torch import Tensor, nn

from deepexp.models.blocks import Shape, check_picture, check_positive, dropout_layer, norm

_SMALLEST = 22  # pixels: (22 - 4) // 3 - 4 = 2, of which the second pooling leaves one


class MnistNet(nn.Module):
    """Two convolutions with max-pooling and two linear layers; 256 features between them at 1×28×28.

    The layers are made in the order in which they are used and nothing else draws random numbers, so under one seed
    the default weights are those of the same four layers made by hand, with or without batch normalisation.

    `dropout` acts before each linear layer; none by habit. `batch_norm` stands directly behind each convolution and
    the hidden linear layer; none by habit.
    """

    def __init__(
        self, *, shape: Shape, classes: int, dropout: float | None = None, batch_norm: bool | None = None
    ) -> None:
        super().__init__()
        check_positive(classes=classes)
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
        self.dropout = dropout_layer(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x))  # (batch, 32, 24, 24) for pictures of 28×28
        x = F.relu(F.max_pool2d(x, kernel_size=3), inplace=True)  # (batch, 32, 8, 8)
        x = self.bn2(self.conv2(x))  # (batch, 64, 4, 4)
        x = F.relu(F.max_pool2d(x, kernel_size=2), inplace=True)  # (batch, 64, 2, 2)
        x = self.dropout(x.flatten(1))  # (batch, 256)
        x = F.relu(self.bn3(self.fc1(x)), inplace=True)  # (batch, 200)
        return self.fc2(self.dropout(x))


def _pooled(pixels: int) -> int:
    """What is left of a side after both convolutions and poolings."""
    return ((pixels - 4) // 3 - 4) // 2

"""What several models are made of: the residual block with its shortcuts, dropout, checks of arguments.

What only one model uses stays with that model.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Shape = tuple[int, int, int]
"""(channels, height, width) of one picture."""

Shortcut = Literal["pad", "conv", "none"]


class PadShortcut(nn.Module):
    """The identity across a change of size, without parameters: a regular grid of pixels, then channels of zeros.

    Option A of He et al. 2015, section 4.1.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.extra_channels = out_channels - in_channels

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]  # (batch, in_channels, ceil(height / stride), ceil(width / stride))
        return F.pad(x, (0, 0, 0, 0, 0, self.extra_channels))  # (batch, out_channels, …)


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut: relu(shortcut(x) + bn(conv(relu(bn(conv(x)))))).

    He et al. 2015, figure 2. With `shortcut="none"` the sum is left out: the same two layers of a plain network.
    Every convolution is directly followed by its batch normalisation, which has the bias; without batch
    normalisation the convolution has it. `momentum` is the share of each batch in the running statistics.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        shortcut: Shortcut = "pad",
        batch_norm: bool = True,
        momentum: float = 0.1,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=not batch_norm)
        self.bn1 = norm(out_channels, batch_norm, momentum)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=not batch_norm)
        self.bn2 = norm(out_channels, batch_norm, momentum)
        self.shortcut = _shortcut(in_channels, out_channels, stride, shortcut, batch_norm, momentum)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)  # (batch, out_channels, height / stride, width / stride)
        y = self.bn2(self.conv2(y))
        if self.shortcut is not None:
            y += self.shortcut(x)  # in place, as no gradient needs the old value
        return F.relu(y, inplace=True)

    def start_as_identity(self) -> None:
        """Let the residual branch give zeros at first, so the block passes on its input (Goyal et al. 2017, 5.1).

        The scale of the last normalisation becomes zero; without batch normalisation, the last convolution.
        """
        if isinstance(self.bn2, nn.BatchNorm2d):
            nn.init.zeros_(self.bn2.weight)
        else:
            nn.init.zeros_(self.conv2.weight)


def _shortcut(
    in_channels: int, out_channels: int, stride: int, kind: Shortcut, batch_norm: bool, momentum: float
) -> nn.Module | None:
    if kind == "none":
        return None
    if in_channels == out_channels and stride == 1:
        return nn.Identity()
    if kind == "pad":
        return PadShortcut(in_channels, out_channels, stride)
    return nn.Sequential(  # option B: a projection
        nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=not batch_norm),
        norm(out_channels, batch_norm, momentum),
    )


def norm(channels: int, batch_norm: bool, momentum: float = 0.1) -> nn.Module:
    """Batch normalisation of maps, or nothing in its place."""
    return nn.BatchNorm2d(channels, momentum=momentum) if batch_norm else nn.Identity()


def dropout_layer(probability: float | None) -> nn.Module:
    """Dropout that zeroes each value with this probability while training; the identity for None and 0.

    Raises `ValueError` for a probability outside [0, 1).
    """
    if not probability:
        return nn.Identity()
    check_dropout(probability)
    return nn.Dropout(probability)


def average_pool(x: Tensor) -> Tensor:
    """The mean of each map: (batch, channels, height, width) to (batch, channels)."""
    return torch.mean(x, dim=(2, 3))


def check_positive(**sizes: int) -> None:
    """`ValueError` for the first of the named numbers that is not a positive integer."""
    for name, size in sizes.items():
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"{name}: {size!r} must be a whole number of at least 1")


def check_dropout(dropout: float) -> None:
    """`ValueError` for a probability of zeroing a value that is not in [0, 1)."""
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout: {dropout} must be at least 0 and less than 1")


def check_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """`ValueError` unless the value of the argument is one of the allowed words."""
    if value not in allowed:
        raise ValueError(f"{name}: {value!r} is not one of {', '.join(allowed)}")


def check_picture(shape: Shape, smallest: int, model: str) -> None:
    """`ValueError` for pictures so small that the model's pooling would leave nothing; sizes in pixels."""
    _, height, width = shape
    if min(height, width) < smallest:
        raise ValueError(
            f"shape: pictures of {height}x{width} are too small for {model}, which needs at least {smallest}x{smallest}"
        )

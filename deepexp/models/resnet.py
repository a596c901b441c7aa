"""Residual networks of basic blocks, and the plain networks that they are compared with (He et al. 2015).

Deeper ones, of bottleneck blocks, come from torchvision.
"""

from typing import Literal

from torch import Tensor, nn

from deepexp.models.blocks import (
    ResidualBlock,
    Shape,
    Shortcut,
    average_pool,
    check_choice,
    check_positive,
    dropout_layer,
    norm,
)

Family = Literal["cifar", "imagenet"]
_IMAGENET_STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}  # blocks; He et al. 2015, table 1
_FIRST_WIDTH = {"cifar": 16, "imagenet": 64}


class ResNet(nn.Module):
    """A stem, stages of residual blocks, the mean of each map, one linear layer.

    Each stage after the first begins with a block of stride 2 that halves the maps and doubles the channels.

    `family`: `cifar` has a 3×3 stem and three stages of n blocks (`depth` 6n + 2; section 4.2 of the paper);
    `imagenet` a 7×7 stem with stride 2, a max-pooling, and four stages (`depth` 18 or 34; table 1).
    `width`: channels of the first stage; None is the paper's, 16 or 64.
    `shortcut`, where a block changes the size: `pad` has no parameters (option A), `conv` is a 1×1 convolution
    (option B); `none` leaves out every shortcut, which gives the plain network of the same depth.
    `zero_init_residual`: each block starts as the identity.
    `dropout` acts before the linear layer; none by default. `batch_norm` stands behind each convolution, by default.
    """

    def __init__(
        self,
        *,
        shape: Shape,
        classes: int,
        family: Family = "cifar",
        depth: int = 20,
        width: int | None = None,
        shortcut: Shortcut = "pad",
        zero_init_residual: bool = False,
        dropout: float | None = None,
        batch_norm: bool | None = None,
    ) -> None:
        super().__init__()
        check_choice("family", family, ("cifar", "imagenet"))
        check_choice("shortcut", shortcut, ("pad", "conv", "none"))
        check_positive(classes=classes, depth=depth)
        if zero_init_residual and shortcut == "none":
            raise ValueError("zero_init_residual: true lets nothing through with shortcut: none; set it to false")
        width = _FIRST_WIDTH[family] if width is None else width
        check_positive(width=width)
        normalised = batch_norm is not False

        self.stem = _stem(family, shape[0], width, normalised)
        self.stages = nn.Sequential()
        channels = width
        for index, blocks in enumerate(_blocks_per_stage(family, depth)):
            stride = 1 if index == 0 else 2
            self.stages.append(_stage(channels, channels * stride, blocks, stride, shortcut, normalised))
            channels *= stride
        self.dropout = dropout_layer(dropout)
        self.fc = nn.Linear(channels, classes)
        if zero_init_residual:
            for module in self.modules():
                if isinstance(module, ResidualBlock):
                    module.start_as_identity()

    def forward(self, x: Tensor) -> Tensor:
        # Sides of the maps as a part of the picture's: behind the stem 1 (cifar) or 1/4 (imagenet), then 1/4 or 1/32.
        x = self.stem(x)  # (batch, width, height, width of the maps)
        x = self.stages(x)  # (batch, channels, height, width of the maps)
        x = average_pool(x)  # (batch, channels)
        return self.fc(self.dropout(x))


def _blocks_per_stage(family: Family, depth: int) -> tuple[int, ...]:
    """How many blocks each stage has, of two layers each; `ValueError` for a depth that the family does not have."""
    if family == "imagenet":
        if depth not in _IMAGENET_STAGES:
            allowed = " or ".join(map(str, _IMAGENET_STAGES))
            raise ValueError(f"depth: {depth} is not {allowed}, the depths of basic blocks in family: imagenet")
        return _IMAGENET_STAGES[depth]
    blocks, rest = divmod(depth - 2, 6)
    if rest or blocks < 1:
        near = max(blocks, 1) * 6 + 2
        raise ValueError(f"depth: {depth} is not 6n + 2, as family: cifar needs; near it are {near} and {near + 6}")
    return (blocks,) * 3


def _stem(family: Family, in_channels: int, width: int, batch_norm: bool) -> nn.Sequential:
    if family == "cifar":
        conv = nn.Conv2d(in_channels, width, 3, padding=1, bias=not batch_norm)
        return nn.Sequential(conv, norm(width, batch_norm), nn.ReLU(inplace=True))
    conv = nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=not batch_norm)
    pool = nn.MaxPool2d(3, stride=2, padding=1)
    return nn.Sequential(conv, norm(width, batch_norm), nn.ReLU(inplace=True), pool)


def _stage(
    in_channels: int, out_channels: int, blocks: int, stride: int, shortcut: Shortcut, batch_norm: bool
) -> nn.Sequential:
    """Blocks with maps of one size, to which the first one changes."""
    first = ResidualBlock(in_channels, out_channels, stride=stride, shortcut=shortcut, batch_norm=batch_norm)
    others = (
        ResidualBlock(out_channels, out_channels, shortcut=shortcut, batch_norm=batch_norm) for _ in range(blocks - 1)
    )
    return nn.Sequential(first, *others)

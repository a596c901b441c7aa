"""The lecture's example of surgery: the first layer of a trained AlexNet in front of residual blocks."""

from typing import Any

from torch import Tensor, nn

from deepexp.models import pretrained as weights
from deepexp.models.blocks import ResidualBlock, Shape, average_pool, check_picture, check_positive, dropout_layer

_ALEXNET_CHANNELS = 64
_SMALLEST = 7  # pixels: with a padding of 2, the 11×11 filters of the first layer fit once
_MOMENTUM = 0.3


class Monster(nn.Module):
    """AlexNet's first layer, a 3×3 convolution to `nb_channels`, `nb_residual_blocks` blocks, mean of each map, linear.

    `pretrained`: True takes the first layer from torchvision's ImageNet weights, a path from there (see
    `pretrained.alexnet_first_layer`), False leaves it random; `auto` must be replaced by one of these
    (`pretrained.resolve`) before `load_pretrained`. A pretrained layer is frozen for half the epochs by default.
    `dropout` acts before the linear layer; none by default. `batch_norm` is in the residual blocks, by default.
    """

    stem_module = "features"

    def __init__(
        self,
        *,
        shape: Shape,
        classes: int,
        nb_residual_blocks: int = 16,
        nb_channels: int = 64,
        pretrained: weights.Choice = False,
        dropout: float | None = None,
        batch_norm: bool | None = None,
    ) -> None:
        super().__init__()
        check_positive(classes=classes, nb_residual_blocks=nb_residual_blocks, nb_channels=nb_channels)
        check_picture(shape, _SMALLEST, "monster")
        channels, normalised = shape[0], batch_norm is not False
        if pretrained is not False and channels != 3:
            raise ValueError(f"pretrained: {pretrained} is for pictures of 3 channels, and these have {channels}")
        self.pretrained = pretrained

        self.features = nn.Sequential(
            nn.Conv2d(channels, _ALEXNET_CHANNELS, kernel_size=11, stride=4, padding=2),
            nn.ReLU(inplace=True),
        )
        self.converter = nn.Sequential(
            nn.Conv2d(_ALEXNET_CHANNELS, nb_channels, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
        )
        self.blocks = nn.Sequential(
            *(
                ResidualBlock(nb_channels, nb_channels, batch_norm=normalised, momentum=_MOMENTUM)
                for _ in range(nb_residual_blocks)
            )
        )
        self.dropout = dropout_layer(dropout)
        self.fc = nn.Linear(nb_channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.behind_stem(self.features(x))

    def behind_stem(self, features: Tensor) -> Tensor:
        """The logits from the first layer's output, (batch, 64, 7, 7) for pictures of 32×32."""
        x = self.converter(features)  # (batch, nb_channels, 7, 7)
        x = self.blocks(x)  # (batch, nb_channels, 7, 7)
        x = average_pool(x)  # (batch, nb_channels)
        return self.fc(self.dropout(x))

    @property
    def pretrained_origin(self) -> str:
        """`imagenet`, `random`, or the path that the first layer comes from."""
        return weights.origin(self.pretrained)

    @property
    def pretrained_modules(self) -> tuple[str, ...]:
        """The modules whose weights come from elsewhere."""
        return () if self.pretrained is False else ("features",)

    @property
    def default_freeze(self) -> list[dict[str, Any]]:
        """As in the lecture; a random first layer learns from the beginning."""
        return [{"pattern": f"{module}.*", "share": 0.5} for module in self.pretrained_modules]

    @staticmethod
    def fetch_pretrained(*, pretrained: weights.Choice = False, **_: Any) -> None:
        """Make sure that what `load_pretrained` reads is here; `InputError` if it is not available or does not fit.

        Called with the arguments that a model will be made of.
        """
        weights.resolve(pretrained)

    def load_pretrained(self) -> None:
        """Load the weights of the first layer; `InputError` if they are not available or do not fit."""
        if self.pretrained == "auto":
            raise ValueError("pretrained: auto must be settled first, by pretrained.resolve")
        if self.pretrained is not False:
            self.features[0].load_state_dict(weights.alexnet_first_layer(self.pretrained))

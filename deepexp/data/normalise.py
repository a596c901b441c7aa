"""From gathered bytes to the batch that a model sees; one function for all loaders, so that they cannot differ."""

import torch
from torch import Tensor

from deepexp.data.source import Shape


class Normaliser:
    """Computes float(picture) − mean, divided by std, in this order, on the device of `mean` and `std`.

    Mean and std are repeated to a whole picture: subtracting flat rows is vectorised, broadcasting over three channels
    in the innermost dimension is not (a CPU takes several times as long).
    """

    def __init__(self, shape: Shape, mean: Tensor, std: Tensor) -> None:
        self._shape = shape
        _, height, width = shape
        self._mean = mean.repeat(height * width)  # (height * width * channels,)
        self._std = std.repeat(height * width)

    def __call__(self, pixels: Tensor) -> Tensor:
        """(batch, height * width * channels) uint8 → (batch, channels, height, width) float32, channels_last."""
        channels, height, width = self._shape
        values = pixels.to(torch.float32).sub_(self._mean).div_(self._std)
        return values.view(-1, height, width, channels).permute(0, 3, 1, 2)

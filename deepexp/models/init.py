"""How weights are initialised, where PyTorch's own rules are not wanted."""

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from deepexp.models.blocks import check_choice

Scheme = Literal["default", "xavier", "kaiming"]


def initialise(model: nn.Module, scheme: Scheme) -> None:
    """Draw the weights of every convolution and linear layer anew, in place, from torch's global generator.

    `default` leaves what PyTorch drew when the layers were made. `xavier` is uniform with variance
    2 / (fan_in + fan_out) (Glorot and Bengio 2010, equation 16); `kaiming` is normal with variance 2 / fan_in
    (He et al. 2015, "Delving deep into rectifiers", equation 10). Both set biases to zero, as the papers do.
    Normalisation layers keep their values, and so do the model's `pretrained_modules`.
    """
    check_choice("init", scheme, ("default", "xavier", "kaiming"))
    if scheme == "default":
        return
    pretrained: Iterable[str] = getattr(model, "pretrained_modules", ())
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and not _within(name, pretrained):
            if parametrize.is_parametrized(module, "weight"):
                # The weight is computed from other parameters each time it is read; setting it sets those.
                weight = torch.empty_like(module.weight)
                _draw(weight, scheme)
                module.weight = weight
            else:
                _draw(module.weight, scheme)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _draw(weight: Tensor, scheme: Scheme) -> None:
    if scheme == "xavier":
        nn.init.xavier_uniform_(weight)
    else:
        nn.init.kaiming_normal_(weight, mode="fan_in", nonlinearity="relu")


def _within(name: str, modules: Iterable[str]) -> bool:
    """Whether the module of this name is one of these, or a part of one."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)

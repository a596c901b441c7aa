"""How large a model is."""

from torch import nn


def parameter_count(module: nn.Module) -> int:
    """How many numbers a model, or a part of one, learns; what several layers share is counted once."""
    return sum(parameter.numel() for parameter in module.parameters())

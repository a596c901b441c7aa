"""How the weights of a model lie in memory."""

from itertools import chain

import torch
from torch import nn


def channels_last(model: nn.Module) -> nn.Module:
    """Lay each tensor of four dimensions out as (…, height, width, channels), in place, and return the model.

    `Module.to` would ask that of tensors of five dimensions too, as those of `Conv3d`, which have no such order.
    """
    for tensor in chain(model.parameters(), model.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.to(memory_format=torch.channels_last)
    return model

"""How the weights of a model lie in memory."""

from typing import Any

import torch
from torch import nn

_FEWEST_CHANNELS = 16
"""As many as a strided 1×1 convolution in channels_last order needs on any CPU: the float32 in its widest vectors."""


def channels_last(model: nn.Module) -> nn.Module:
    """Lay each tensor of four dimensions out as (…, height, width, channels), in place, and return the model.

    `Module.to` would fail for tensors of five dimensions, as those of `Conv3d`, which have no such order.

    Convolutions for which channels_last order is not safe stay in the plain order, and get their input in it.
    """
    for module in model.modules():
        if _is_unsafe(module):
            if _in_plain_order not in module._forward_pre_hooks.values():
                module.register_forward_pre_hook(_in_plain_order)
            continue
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            if tensor.dim() == 4:
                tensor.data = tensor.data.to(memory_format=torch.channels_last)
    return model


def unshared(model: nn.Module) -> nn.Module:
    """Give buffers made by `expand`, into which nothing can be loaded, memory for each of their numbers, in place."""
    for buffer in model.buffers():
        if _is_expanded(buffer):
            buffer.data = buffer.data.contiguous()
    return model


def _is_expanded(tensor: torch.Tensor) -> bool:
    """Whether several of its numbers lie in one place."""
    if tensor.layout != torch.strided or tensor.is_nested:
        return False
    return any(stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True))


def _is_unsafe(module: nn.Module) -> bool:
    """Whether oneDNN would write out of bounds when it computes the gradient of the weights in channels_last order.

    It does so for a 1×1 convolution with a stride and fewer channels than a vector holds (torch 2.11 to 2.15): the
    process crashes, or goes on with wrong numbers.
    """
    return (
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and module.stride != (1, 1)
        and module.in_channels // module.groups < _FEWEST_CHANNELS
        # Not `module.weight`: a spectral norm computes it when it is read, and counts that as a step.
        and any(tensor.device.type == "cpu" for tensor in (*module.parameters(), *module.buffers()))
    )


def _in_plain_order(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(given.contiguous() if isinstance(given, torch.Tensor) else given for given in inputs)

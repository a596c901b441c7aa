"""Convolution and max-pooling in the memory order that oneDNN prefers on CPUs: channels in blocks as wide as a vector.

In torch's own order, the gradient of a max-pooling is filled with zeros before the few other values are put in; oneDNN
writes it once. Convolutions are faster in its order, too. Tensors in it have a shape and a type, but no strides: torch
calls them "mkldnn", and only a few functions take them; their gradients have no gradients.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from deepexp.models.modes import may_take_shortcuts

CONVOLUTION = torch.ops.aten.mkldnn_convolution.default
"""`torch.nn.functional.conv2d` cannot compute gradients in this order in bfloat16."""

_LARGE_BATCH = 64  # samples
_LARGEST = 1e38  # a little less than float32 and bfloat16 have


def pays(x: Tensor) -> bool:
    """Whether training on this batch takes less time if it is `blocked` first, and the model may do so.

    Not in test: classes and probabilities do not depend on how many pictures are taken at a time.
    Measured for `mnist_net` on two Zen 4 cores: a training step of 100 samples takes 0.89 to 0.94 of its time, of 50
    0.95 to 1.0, of 16 1.01 to 1.03; on two Ice Lake cores, of 64 to 1,000, 0.98 to 1.02. Without AVX-512 it takes 1.5,
    since oneDNN's gradients are slow then. Not measured with AMX, Intel's matrix units for bfloat16, for which oneDNN
    has other convolutions.
    """
    return (
        not torch.compiler.is_compiling()
        and may_take_shortcuts()
        and torch.is_grad_enabled()
        and x.is_cpu
        and len(x) >= _LARGE_BATCH
        and x.dtype is torch.float32
        and torch.backends.mkldnn.is_available()
        and bool(torch.backends.mkldnn.enabled)
        and not torch.is_anomaly_enabled()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and not (torch.is_autocast_enabled("cpu") and torch.cpu._is_amx_tile_supported())
    )


def blocked(x: Tensor) -> Tensor:
    """The tensor in oneDNN's order, and in autocast's type where that is on."""
    return x.to_mkldnn(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None)


def conv2d(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`torch.nn.functional.conv2d` of a tensor in oneDNN's order; the weights are in torch's, and float32 always."""
    return CONVOLUTION(x, weight, bias, padding=(0, 0), stride=(1, 1), dilation=(1, 1), groups=1)


def max_pool2d(x: Tensor, size: int) -> Tensor:
    """`torch.nn.functional.max_pool2d` of a tensor in oneDNN's order."""
    return F.max_pool2d(x, size, stride=size)


def stays_finite(x: Tensor, weights_and_biases: Sequence[tuple[Tensor, Tensor]]) -> bool:
    """Whether no convolution by these, one behind the other with pooling and ReLU between, can give infinity or NaN.

    Such a value could go unnoticed: oneDNN's pooling and ReLU take NaN for the least of all numbers. An output is at
    most its inputs' norm times its weights', plus the bias; and of n inputs, the norm is at most √n times the largest.
    """
    tensors = [x, *(tensor for pair in weights_and_biases for tensor in pair)]
    with torch.no_grad():
        largest, *norms = torch.stack(torch._foreach_norm(tensors)).tolist()
    for (weight, _), weight_norm, bias_norm in zip(weights_and_biases, norms[::2], norms[1::2], strict=True):
        largest = math.sqrt(weight[0].numel()) * largest * weight_norm + bias_norm
    return largest < _LARGEST

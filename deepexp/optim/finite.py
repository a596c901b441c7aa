"""Which tensors hold finite numbers, and which never did: a mask of −∞, or a minimum that begins at +∞."""

from collections.abc import Mapping

import torch
from torch import Tensor


def is_finite(tensor: Tensor) -> Tensor:
    """Whether all values are finite: () bool, on the tensor's device."""
    number = tensor.float() if tensor.itemsize == 1 else tensor  # torch's isfinite lacks the types of eight bits
    return number.isfinite().all()


def finite_numbers(tensors: Mapping[str, object]) -> set[str]:
    """The names of tensors of floating-point or complex numbers that are all finite now.

    Objects of other types are left out: a module's extra state may be anything.
    """
    return {
        name
        for name, value in tensors.items()
        if isinstance(value, Tensor) and _is_number(value) and is_finite(value).item()
    }


def _is_number(tensor: Tensor) -> bool:
    """Whether it holds numbers that `isfinite` can check; it cannot check sparse tensors."""
    return tensor.layout == torch.strided and (tensor.is_floating_point() or tensor.is_complex())

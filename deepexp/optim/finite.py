"""Which tensors hold finite numbers, and which never did: a mask of −∞, or a minimum that begins at +∞."""

from collections.abc import Mapping

import torch
from torch import Tensor


def is_finite(tensor: Tensor) -> Tensor:
    """Whether all of it is; () bool, on its device."""
    number = tensor.float() if tensor.itemsize == 1 else tensor  # torch's isfinite lacks the types of eight bits
    return number.isfinite().all()


def finite_numbers(tensors: Mapping[str, object]) -> set[str]:
    """The names of those that are floating-point numbers, complex ones too, and all of them finite now.

    A module's own extra state, which may be anything, can be among them.
    """
    return {
        name
        for name, value in tensors.items()
        if isinstance(value, Tensor) and _is_number(value) and is_finite(value).item()
    }


def _is_number(tensor: Tensor) -> bool:
    """Whether there are numbers to look at; torch does not look at sparse ones."""
    return tensor.layout == torch.strided and (tensor.is_floating_point() or tensor.is_complex())

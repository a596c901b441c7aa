"""Which tensors hold finite numbers, and which never did: a mask of −∞, or a minimum that begins at +∞."""

from collections.abc import Mapping

from torch import Tensor


def is_finite(tensor: Tensor) -> Tensor:
    """Whether all of it is; () bool, on its device."""
    number = tensor.float() if tensor.itemsize == 1 else tensor  # of eight bits torch does not tell it
    return number.isfinite().all()


def finite_numbers(tensors: Mapping[str, object]) -> set[str]:
    """The names of those that are floating-point numbers, complex ones too, and all of them finite now.

    A module's own extra state, which may be anything, can be among them.
    """
    return {
        name
        for name, value in tensors.items()
        if isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex()) and is_finite(value).item()
    }

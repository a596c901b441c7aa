"""A model that begins with the weights of another, all but those of a last layer for other classes."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from deepexp.errors import InputError
from deepexp.models.pretrained import file_at, read_weights, some
from deepexp.text.units import first_few

log = logging.getLogger(__name__)

_KEY = "init_from"
_WRAPPERS = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before all names."""
_EXTRA = "_extra_state"  # ends the name that torch gives to what `get_extra_state` gave


def begin_with(model: nn.Module, place: Path, classes: int) -> None:
    """Put the weights of a run, or of a file, into a model; see `fitting`."""
    taken, left = fitting(model, place, classes)
    drawn = model.state_dict()
    taken.update((name, drawn[name]) for name in left)
    model.load_state_dict(taken)
    if left:
        log.warning("%s: %s not taken, being for another number of classes than %d", _KEY, ", ".join(left), classes)


def fitting(model: nn.Module, place: Path, classes: int) -> tuple[dict[str, Any], list[str]]:
    """What a model takes from a run directory, a checkpoint or a state dict, and the names of what it leaves.

    Everything has to be there in its own shape, but for tensors that have one row a class, and there another number of
    rows: those are left. Raises `InputError` if nothing is left to take, or if the weights cannot be had or do not fit.
    The model may be on the meta device. What is taken is the state dict as it was saved, with the versions of modules
    that torch notes in it, and with what `get_extra_state` gave, but for what wrappers put before its names.
    """
    path = file_at(place, _KEY)
    weights = read_weights(path, _KEY)
    own = model.state_dict(keep_vars=True)
    _unwrap(weights, own)
    lacks = [name for name in own if name not in weights]
    _refuse(path, "has no", lacks, f"of this model, and holds {some(weights)}")
    for name in [name for name in weights if name not in own and not isinstance(weights[name], Tensor)]:
        del weights[name]  # a file may hold an epoch, or the like
    _refuse(path, "has also", [str(name) for name in weights if name not in own], "which this model has not")
    extra = [name for name in own if name.endswith(_EXTRA) or not isinstance(own[name], Tensor)]
    there = {name: _tensor(weights[name], name, path) for name in own if name not in extra}
    left = [name for name in there if _is_for_other_classes(own[name], there[name], classes)]
    for name in left:
        del weights[name], there[name]
    for name, tensor in there.items():
        if tensor.shape != own[name].shape:
            raise InputError(
                f"{_KEY}: {path} does not fit: {name} is {tuple(tensor.shape)} there, "
                f"and {tuple(own[name].shape)} in this model"
            )
        if not tensor.isfinite().all() and not _may_be_infinite(own[name]):
            raise InputError(f"{_KEY}: {name} in {path} holds values that are not finite")
    if not there:
        raise InputError(f"{_KEY}: {path} does not fit: nothing is to be taken, as all of it is for other classes")
    return weights, left


def _unwrap(weights: dict[str, Any], own: Mapping[str, Any]) -> None:
    """Take off, in place, what stands before every name since the model was saved with something around it."""
    for prefix in _WRAPPERS:
        names = [str(name) for name, value in weights.items() if isinstance(value, Tensor)]
        is_around = bool(names) and all(name.startswith(prefix) for name in names)
        if is_around and not any(name.startswith(prefix) for name in own):
            consume_prefix_in_state_dict_if_present(weights, prefix)


def _tensor(value: Any, name: str, path: Path) -> Tensor:
    """A tensor with numbers in it: not of the meta device, nor sparse or quantized."""
    if not isinstance(value, Tensor):
        raise InputError(f"{_KEY}: {name} in {path} is a {type(value).__name__}; a tensor is needed")
    if value.is_meta or value.is_quantized or value.layout != torch.strided:
        raise InputError(f"{_KEY}: {name} in {path} is a sparse, quantized or meta tensor; a dense one is needed")
    return value


def _may_be_infinite(own: Tensor) -> bool:
    """Whether a buffer is not finite from the beginning, as a mask with -inf; on the meta device that is not known."""
    return not isinstance(own, nn.Parameter) and (own.is_meta or not bool(own.isfinite().all()))


def _is_for_other_classes(own: Tensor, other: Tensor, classes: int) -> bool:
    rows = own.dim() > 0 and own.dim() == other.dim() and own.shape[0] == classes != other.shape[0]
    return rows and own.shape[1:] == other.shape[1:]


def _refuse(path: Path, what: str, names: Sequence[str], why: str) -> None:
    if names:
        raise InputError(f"{_KEY}: {path} does not fit: it {what} {first_few(names)}, {why}")

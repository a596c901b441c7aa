"""A model that begins with the weights of another, all but those of a last layer for other classes."""

import logging
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from deepexp.errors import InputError
from deepexp.models.pretrained import file_at, read_weights

log = logging.getLogger(__name__)

_KEY = "init_from"
_TOLD = 3  # names in a message


def begin_with(model: nn.Module, place: Path, classes: int) -> None:
    """Put the weights of a run, or of a file, into a model; see `fitting`."""
    taken, left = fitting(model, place, classes)
    model.load_state_dict({**model.state_dict(), **taken})
    if left:
        log.warning("%s: %s not taken, being for another number of classes than %d", _KEY, ", ".join(left), classes)


def fitting(model: nn.Module, place: Path, classes: int) -> tuple[dict[str, Tensor], list[str]]:
    """What a model takes from a run directory, a checkpoint or a state dict, and the names of what it leaves.

    Everything has to be there in its own shape, but for tensors that have one row a class, and there another number of
    rows: those are left. Raises `InputError` if nothing is left to take, or if the weights cannot be had or do not fit.
    The model may be on the meta device.
    """
    path = file_at(place, _KEY)
    weights = {name: value for name, value in read_weights(path, _KEY).items() if isinstance(value, Tensor)}
    own = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    left = [name for name in own if name in weights and _is_for_other_classes(own[name], weights[name], classes)]
    _refuse(path, "has no", [name for name in own if name not in weights], "of this model")
    _refuse(path, "has also", [name for name in weights if name not in own], "which this model has not")
    taken = {name: weights[name] for name in own if name not in left}
    for name, tensor in taken.items():
        if tensor.shape != own[name].shape:
            raise InputError(
                f"{_KEY}: {path} does not fit: {name} is {tuple(tensor.shape)} there, "
                f"and {tuple(own[name].shape)} in this model"
            )
        if not tensor.isfinite().all():
            raise InputError(f"{_KEY}: {name} in {path} holds values that are not finite")
    if not taken:
        raise InputError(f"{_KEY}: {path} does not fit: nothing is to be taken, as all of it is for other classes")
    return taken, left


def _is_for_other_classes(own: Tensor, other: Tensor, classes: int) -> bool:
    rows = own.dim() > 0 and own.dim() == other.dim() and own.shape[0] == classes != other.shape[0]
    return rows and own.shape[1:] == other.shape[1:]


def _refuse(path: Path, what: str, names: Sequence[str], why: str) -> None:
    if names:
        more = f" and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
        raise InputError(f"{_KEY}: {path} does not fit: it {what} {', '.join(names[:_TOLD])}{more}, {why}")

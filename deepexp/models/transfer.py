"""Starting a model with the weights of another, except for a last layer for another number of classes."""

import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
_EXTRA = "_extra_state"  # the end of the names under which torch saves what `get_extra_state` gives


@dataclass(frozen=True)
class Fitting:
    """What a model takes from a file."""

    taken: dict[str, Any]
    """By the model's names: the state dict as it was saved, with torch's versions of modules and what
    `get_extra_state` gave."""
    left: list[str]
    """Tensors of the model that are for another number of classes there."""
    beside: list[str]
    """Tensors there that are no part of the model, since it was a part of something larger."""


def begin_with(model: nn.Module, place: Path, classes: int) -> None:
    """Load the weights of a run, or of a file, into a model; see `fitting`."""
    found = fitting(model, place, classes)
    drawn = model.state_dict()
    found.taken.update((name, drawn[name]) for name in found.left)
    model.load_state_dict(found.taken)
    if found.left:
        log.warning("%s: not taken, as they are not for %d classes: %s", _KEY, classes, ", ".join(found.left))
    if found.beside:
        log.warning("%s: not taken, as they are no part of this model: %s", _KEY, first_few(found.beside))


def fitting(model: nn.Module, place: Path, classes: int) -> Fitting:
    """What a model takes from a run directory, a checkpoint or a state dict. It may be on the meta device.

    The file must have each tensor of the model in the same shape, except for those with one row a class: they may have
    another number of rows there, and are left then. All names may differ by a prefix, as of a module around the model.
    Raises `InputError` if all are left, or if the weights are not available or do not fit.
    """
    path = file_at(place, _KEY)
    own = model.state_dict(keep_vars=True)
    weights, beside = _by_own_names(read_weights(path, _KEY), list(own), path)
    lacks = [name for name in own if name not in weights]
    _refuse(path, "has no", lacks, f"of this model, and holds {some(weights)}")
    for name in [name for name in weights if name not in own and not isinstance(weights[name], Tensor)]:
        del weights[name]  # a file may hold an epoch, or the like
    _refuse(path, "has also", [str(name) for name in weights if name not in own], "which this model has not")
    extra = [name for name in own if name.endswith(_EXTRA) or not isinstance(own[name], Tensor)]
    there = {name: dense(weights[name], name, path, _KEY) for name in own if name not in extra}
    left = [name for name in there if _is_for_other_classes(own[name], there[name], classes)]
    for name in left:
        del weights[name], there[name]
    for name, tensor in there.items():
        if tensor.shape != own[name].shape:
            raise InputError(
                f"{_KEY}: {path} does not fit: {name} is {tuple(tensor.shape)} there, "
                f"and {tuple(own[name].shape)} in this model"
            )
        check_finite(tensor, own[name], name, path, _KEY)
    if not there:
        raise InputError(f"{_KEY}: {path} does not fit: all of its tensors are for another number of classes")
    return Fitting(weights, left, beside)


def _by_own_names(weights: dict[str, Any], own: Sequence[str], path: Path) -> tuple[dict[str, Any], list[str]]:
    """`weights` with the names of the model where those differ by a prefix, and the names of tensors without it.

    Either side may have the prefix: `model.fc.weight` as part of a LightningModule, or `fc.weight` for a model that has
    `network.fc.weight`. Weights that do not fit either way are returned without the prefix of a wrapper, for a
    message that names only what is missing.
    """
    around = own[0].partition(".")[0] + "."
    for new in ("", around) if all(name.startswith(around) for name in own) else ("",):
        stems = [name.removeprefix(new) for name in own]
        prefixes = {str(name).removesuffix(stems[0]) for name in weights if str(name).endswith(stems[0])}
        wrappers = (old for old in prefixes if old == "" or old.endswith("."))
        fit = sorted(old for old in wrappers if all(old + stem in weights for stem in stems))
        if "" in fit or len(fit) == 1:
            return _renamed(weights, fit[0], new)
        if fit:
            raise InputError(
                f"{_KEY}: {path} holds weights for this model under {' and '.join(fit)}; choose one by its prefix with "
                f"surgery=[{{from: …, layers: '{fit[0]}*', to: '{new}*'}}]"
            )
    return unwrapped(weights, dict.fromkeys(own)), []


def _renamed(weights: dict[str, Any], old: str, new: str) -> tuple[dict[str, Any], list[str]]:
    """What has the prefix `old`, with `new` in its place, and the names of tensors that have another one."""
    if old == new:
        return weights, []
    inside = [name for name in weights if isinstance(name, str) and name.startswith(old)]
    renamed = OrderedDict((new + name.removeprefix(old), weights[name]) for name in inside)
    versions: Mapping[str, Any] = getattr(weights, "_metadata", {})  # torch's, by the names of modules
    paths = {f"{name}." if name else "": version for name, version in versions.items()}
    shifted = {(new + path.removeprefix(old)).removesuffix("."): paths[path] for path in paths if path.startswith(old)}
    renamed._metadata = shifted  # type: ignore[attr-defined]
    outside = weights.keys() - set(inside)
    return renamed, [str(name) for name in weights if name in outside and isinstance(weights[name], Tensor)]


def unwrapped(weights: dict[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """`weights`, from which the prefix that all names have, if the model was saved inside a wrapper, is removed."""
    for prefix in _WRAPPERS:
        names = [str(name) for name, value in weights.items() if isinstance(value, Tensor)]
        is_around = bool(names) and all(name.startswith(prefix) for name in names)
        if is_around and not any(name.startswith(prefix) for name in own):
            consume_prefix_in_state_dict_if_present(weights, prefix)
    return weights


def dense(value: Any, name: str, path: Path, key: str) -> Tensor:
    """`value`, if it is a dense tensor with values; `InputError`, which begins with the config key, if not."""
    if not isinstance(value, Tensor):
        raise InputError(f"{key}: {name} in {path} is a {type(value).__name__}; a tensor is needed")
    if value.is_meta or value.is_quantized or value.layout != torch.strided:
        raise InputError(f"{key}: {name} in {path} is a sparse, quantized or meta tensor; a dense one is needed")
    return value


def check_finite(value: Tensor, own: Tensor, name: str, path: Path, key: str) -> None:
    """`InputError` for infinity or NaN in a tensor that takes the place of the model's `own`."""
    if not value.isfinite().all() and not _may_be_infinite(own):
        raise InputError(f"{key}: {name} in {path} holds values that are not finite")


def _may_be_infinite(own: Tensor) -> bool:
    """Whether a buffer is not finite from the beginning, as a mask with -inf; on the meta device that is not known."""
    return not isinstance(own, nn.Parameter) and (own.is_meta or not bool(own.isfinite().all()))


def _is_for_other_classes(own: Tensor, other: Tensor, classes: int) -> bool:
    rows = own.dim() > 0 and own.dim() == other.dim() and own.shape[0] == classes != other.shape[0]
    return rows and own.shape[1:] == other.shape[1:]


def _refuse(path: Path, what: str, names: Sequence[str], why: str) -> None:
    if names:
        raise InputError(f"{_KEY}: {path} does not fit: it {what} {first_few(names)}, {why}")

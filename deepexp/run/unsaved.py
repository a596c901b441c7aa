"""Warnings of state in the user's own code that no checkpoint holds, and that a resumed run would not have.

A model is saved by its `state_dict`, an optimizer by its groups and `state`, an augmentation not at all, since all that
is random in it is drawn from a generator that it is given, and a loss not at all either.
"""

import contextlib
import hashlib
import logging
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from deepexp.parts import Parts
from deepexp.text.units import first_few
from deepexp.user_code import own_code

log = logging.getLogger(__name__)

_MOST_ELEMENTS = 1 << 20  # of a tensor that is looked at
_DEEPEST = 2  # lists within lists
_MADE_OF = ("_orig", "_v")
"""Endings of the parameters from which pruning and spectral norm (`_orig`) or weight norm (`_v`) compute a weight."""

_REMEDIES = {
    "model": "buffers (register_buffer) and get_extra_state are saved",
    "optim": "self.state and the groups are saved",
    "augment": "let results depend only on what draw is given and returns",
    "loss": "let losses depend only on the logits and labels",
}

Values = dict[tuple[str, str, object], object]
"""(part, attribute, shape) → a value that can be compared."""


@contextlib.contextmanager
def told(parts: Parts) -> Iterator[None]:
    """Train within the block; afterwards a warning is logged for each part whose unsaved state has changed.

    Values that appeared, vanished or changed their shape are not reported: they usually are computed when needed.
    """
    before = _values(parts)
    try:
        yield
    finally:
        changed: dict[str, list[str]] = {}
        for (part, name, shape), value in _values(parts).items():
            if before.get((part, name, shape), value) != value:
                changed.setdefault(part, []).append(name)
        for part, names in changed.items():
            log.warning(
                "%s: %s in training and %s not saved: if results depend on it, a resumed run ends differently; %s",
                part,
                f"{first_few(names)} {'changes' if len(names) == 1 else 'change'}",
                "is" if len(names) == 1 else "are",
                _REMEDIES[part],
            )


def _values(parts: Parts) -> Values:
    optimizer, saved = parts.optimizer, _saved_memory(parts.model)
    held: list[tuple[str, str, dict[str, Any]]] = []
    for name, module in parts.model.named_modules():
        if _is_own(module) and not _saves_itself(module):
            hidden = {key: module._buffers[key] for key in module._non_persistent_buffers_set}
            own = {key: it for key, it in _beyond(nn.Module(), module).items() if not _is_made_of_others(module, key)}
            held.append(("model", f"{name}.".lstrip("."), own | hidden))
    if _is_own(optimizer) and type(optimizer).state_dict is torch.optim.Optimizer.state_dict:
        own = _beyond(torch.optim.SGD([torch.zeros(1)], lr=0.0), optimizer)
        held.append(
            ("optim", "", {key: it for key, it in own.items() if getattr(it, "state", 0) is not optimizer.state})
        )
    if _is_own(parts.augment):
        held.append(("augment", "", vars(parts.augment)))
    if _is_own(parts.step.objective.loss):
        held.append(("loss", "", vars(parts.step.objective.loss)))
    return {
        (part, prefix + name, shape): value
        for part, prefix, attributes in held
        for name, shape, value in _comparable(attributes, saved)
    }


def _saved_memory(model: nn.Module) -> set[int]:
    """Addresses of the parameters and buffers that are saved, and filled in place when a run is resumed."""
    tensors: list[torch.Tensor] = list(model.parameters())
    for module in model.modules():
        tensors += [
            buffer
            for name, buffer in module._buffers.items()
            if buffer is not None and name not in module._non_persistent_buffers_set
        ]
    return {tensor.untyped_storage().data_ptr() for tensor in tensors if _has_numbers(tensor)}


def _is_made_of_others(module: nn.Module, name: str) -> bool:
    """Whether an attribute is a weight that `torch.nn.utils` computes from parameters before each pass."""
    return any(name + ending in module._parameters for ending in _MADE_OF)


def _saves_itself(module: nn.Module) -> bool:
    """Whether a module may save more than its parameters and buffers."""
    kind = type(module)
    overrides = kind.get_extra_state is not nn.Module.get_extra_state or kind.state_dict is not nn.Module.state_dict
    return overrides or bool(module._state_dict_hooks)


def _is_own(part: object) -> bool:
    return hasattr(part, "__dict__") and not own_code.is_of_deepexp_or_torch(type(part).__module__)


def _beyond(usual: object, part: object) -> dict[str, Any]:
    """The attributes of a part that a `usual` one of its kind lacks."""
    return {name: value for name, value in vars(part).items() if name not in vars(usual)}


def _comparable(held: dict[str, Any], saved: set[int], depth: int = 0) -> Iterator[tuple[str, object, object]]:
    """(name, shape, present value) of each attribute that may be compared, and of those within lists and mappings.

    Tensors in `saved` memory, such as views of parameters, are left out.
    """
    for name, value in held.items():
        if type(value) in (list, tuple, dict):
            if depth < _DEEPEST:
                items = value.items() if isinstance(value, dict) else enumerate(value)
                yield from _comparable({f"{name}[{key!r}]": item for key, item in items}, saved, depth + 1)
        elif type(value) is torch.Tensor:
            is_small = _has_numbers(value) and value.numel() <= _MOST_ELEMENTS
            if is_small and value.untyped_storage().data_ptr() not in saved:
                yield name, value.shape, _digest(value)
        elif (state := _state(value)) is not None:
            yield name, None, state


def _state(value: object) -> object:
    """What to compare of a number, a flag or a random generator; of an optimizer, how much it holds; else None."""
    if type(value) in (bool, int, float):
        return repr(value)  # as text: NaN is not equal to itself
    if isinstance(value, torch.Generator):
        return _digest(value.get_state())
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state)
    if isinstance(value, np.random.RandomState):
        return repr(value.get_state(legacy=False))
    if isinstance(value, random.Random):
        return value.getstate()
    return len(value.state) if isinstance(value, torch.optim.Optimizer) else None


def _has_numbers(tensor: torch.Tensor) -> bool:
    """Whether a tensor's numbers lie in memory that can be read."""
    return tensor.layout == torch.strided and not tensor.is_nested and not tensor.is_meta


def _digest(tensor: torch.Tensor) -> bytes:
    numbers = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().flatten().view(torch.uint8)
    return hashlib.sha256(numbers.numpy().tobytes()).digest()

"""Optimizers whose update the device can do again without the CPU: learning rates and counts lie on the device.

A recorded update (`cuda_graph/`) repeats every number that the CPU passed to it when it was recorded. torch's
optimizers can keep theirs in tensors if they are told so; the rules are the same, rounded to float32 at more places.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch

REPLAYED: Mapping[type[torch.optim.Optimizer], Mapping[str, bool]] = {
    torch.optim.SGD: {"fused": True},
    torch.optim.Adam: {"fused": True, "capturable": True},
    torch.optim.AdamW: {"fused": True, "capturable": True},
    torch.optim.NAdam: {"foreach": True, "capturable": True},
    torch.optim.RAdam: {"foreach": True, "capturable": True},
    torch.optim.Adamax: {"foreach": True, "capturable": True},
    torch.optim.RMSprop: {"foreach": True, "capturable": True},
    torch.optim.Adadelta: {"foreach": True, "capturable": True},
}
"""What each has to be called with."""

WAYS = ("fused", "foreach", "capturable", "differentiable")
"""torch's words for how a step is computed; what it comes to is the same."""


def capturable_arguments(
    optimizer: "functools.partial[torch.optim.Optimizer]", rules: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """What the optimizer has to be called with beside its own arguments; nothing where it cannot, or was told how.

    `rules`: of `optim.groups`, which have options of their own.
    """
    if set(WAYS) & optimizer.keywords.keys() or any(map(_is_dampened, [optimizer.keywords, *rules])):
        return {}
    return dict(REPLAYED.get(optimizer.func, {}))  # type: ignore[call-overload]


def is_capturable(optimizer: torch.optim.Optimizer) -> bool:
    """Whether its update can be done again by the device alone, once each parameter group's `lr` is a tensor there."""
    needed = REPLAYED.get(type(optimizer))
    if needed is None or any(map(_is_dampened, optimizer.param_groups)):
        return False
    return all(group.get(name) == value for group in optimizer.param_groups for name, value in needed.items())


def begin_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Give parameters that get their first gradient after others a momentum of zero, as torch's fused SGD asks for.

    The rule stays that of the loop, whose first momentum is the gradient: 0 · momentum + gradient. A dampened gradient
    would not be, so there nothing is done.
    """
    if not isinstance(optimizer, torch.optim.SGD):
        return
    for group in optimizer.param_groups:
        if group["momentum"] == 0 or not group["fused"] or _is_dampened(group):
            continue
        for parameter in group["params"]:
            if parameter.grad is not None and optimizer.state[parameter].get("momentum_buffer") is None:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def _is_dampened(options: Mapping[str, Any]) -> bool:
    """Whether SGD adds less than the gradient to the momentum; the first momentum is the whole gradient even so."""
    return bool(options.get("dampening", 0))

"""Optimizers whose update a CUDA graph can replay: their learning rates and step counts are on the device.

A recorded update (`cuda_graph/`) repeats every number that the CPU passed to it when it was recorded. torch's
optimizers can keep these numbers in tensors; the rules are the same, rounded to float32 at more places.
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
"""The arguments with which each can be replayed."""

WAYS = ("fused", "foreach", "capturable", "differentiable")
"""torch's options for how a step is computed; the rule is the same."""


def capturable_arguments(
    optimizer: "functools.partial[torch.optim.Optimizer]", rules: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Further arguments with which the optimizer can be replayed; none if it cannot, or was given one of `WAYS`.

    `rules`: those of `optim.groups`, which have options of their own.
    """
    if set(WAYS) & optimizer.keywords.keys() or any(map(_is_dampened, [optimizer.keywords, *rules])):
        return {}
    return dict(REPLAYED.get(optimizer.func, {}))  # type: ignore[call-overload]


def is_capturable(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a CUDA graph can replay its update, once each parameter group's `lr` is a tensor on the device."""
    needed = REPLAYED.get(type(optimizer))
    if needed is None or any(map(_is_dampened, optimizer.param_groups)):
        return False
    return all(group.get(name) == value for group in optimizer.param_groups for name, value in needed.items())


def begin_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Give parameters that get their first gradient after others a momentum of zero, which torch's fused SGD needs.

    The update stays that of the unfused loop, whose first momentum is the gradient: momentum · 0 + gradient. With
    dampening it would differ, so nothing is done then.
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
    """Whether SGD adds only a part of the gradient to the momentum, except the first time, when it adds all of it."""
    return bool(options.get("dampening", 0))

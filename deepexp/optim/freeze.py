"""Freezing: parameters, and the running statistics of their layers, that do not change in the first epochs."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from deepexp.optim.patterns import first_match


class FreezePlan:
    """Which parameters are frozen in which epochs.

    A rule is `{pattern, share}` or `{pattern, epochs}`: a glob on parameter names, and how long they
    are frozen, as a share of the run's epochs (rounded down; 1.0 is throughout) or as a number of
    them. First match wins; parameters that no rule matches are never touched.
    Raises `ValueError` for a rule without exactly one length, or whose pattern takes no parameter.

    A frozen parameter has no gradient at all, not even zeros: an optimizer then leaves it alone,
    whereas zeros would let old momentum move it and weight decay shrink it.
    """

    def __init__(self, model: nn.Module, rules: Sequence[Mapping[str, Any]], epochs: int) -> None:
        lengths = [_frozen_epochs(rule, index, epochs) for index, rule in enumerate(rules)]
        parameters = list(model.named_parameters())
        owners = first_match([name for name, _ in parameters], [rule["pattern"] for rule in rules], "freeze")
        self._parameters = [
            (parameter, lengths[owner])
            for (_, parameter), owner in zip(parameters, owners, strict=True)
            if owner is not None
        ]
        self._statistics = _statistics(model, dict(self._parameters))
        self._epoch = 0

    def apply(self, epoch: int) -> None:
        """Freeze and unfreeze for this epoch, counted from 0."""
        self._epoch = epoch
        for parameter, length in self._parameters:
            moves = epoch >= length
            parameter.requires_grad_(moves)
            if not moves:
                parameter.grad = None

    def frozen_epochs(self, parameters: Iterable[nn.Parameter]) -> int:
        """For how many epochs, from the first, all of these parameters are frozen."""
        lengths = {id(parameter): length for parameter, length in self._parameters}
        return min((lengths.get(id(parameter), 0) for parameter in parameters), default=0)

    def eval_frozen(self) -> None:
        """Freeze the running statistics of frozen layers; call it after each `model.train()`."""
        for module, length in self._statistics:
            if self._epoch < length:
                module.eval()


def _frozen_epochs(rule: Mapping[str, Any], index: int, epochs: int) -> int:
    share, length = rule.get("share"), rule.get("epochs")
    if share is not None and length is None:
        if not 0 <= share <= 1:
            raise ValueError(f"freeze[{index}].share: {share!r} is not allowed; between 0 and 1")
        # 0.29 of 100 epochs is 28.999999999999996 in floating point, and has to be 29.
        return math.floor(round(share * epochs, 6))
    if length is not None and share is None:
        if length < 0:
            raise ValueError(f"freeze[{index}].epochs: {length!r} is not allowed; a number ≥ 0")
        return int(length)
    raise ValueError(f"freeze[{index}]: needs either share or epochs beside its pattern")


def _statistics(model: nn.Module, lengths: Mapping[nn.Parameter, int]) -> list[tuple[nn.Module, int]]:
    """Modules with running statistics, and for how many epochs all their own parameters are frozen."""
    found = []
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if own and getattr(module, "running_mean", None) is not None:
            found.append((module, min(lengths.get(parameter, 0) for parameter in own)))
    return found

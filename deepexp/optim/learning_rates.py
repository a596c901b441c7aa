"""The learning rates of an optimizer's parameter groups, as numbers or as tensors that a recorded update reads."""

from itertools import chain, repeat
from typing import Any

import torch

from deepexp.optim.capturable import WAYS


class LearningRates:
    """Sets `lr` of each parameter group from its `initial_lr` and a schedule's factor.

    `device`: keep them there, in float32, one tensor for each group, whose address stays the same; None: as numbers.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, device: torch.device | None) -> None:
        self._optimizer = optimizer
        self._rates = [float(group["lr"]) for group in optimizer.param_groups]
        self._tensors = None if device is None else [torch.tensor(rate, device=device) for rate in self._rates]

    def set(self, factor: float) -> None:
        """Give each group its initial learning rate times `factor`."""
        groups = self._optimizer.param_groups
        before, self._rates = self._rates, [group["initial_lr"] * factor for group in groups]
        if self._tensors is None:
            for group, rate in zip(groups, self._rates, strict=True):
                group["lr"] = rate
            return
        for group, tensor, rate, old in zip(groups, self._tensors, self._rates, before, strict=True):
            if rate != old:
                tensor.fill_(rate)
            group["lr"] = tensor

    @property
    def first(self) -> float:
        """The present learning rate of the first group."""
        return self._rates[0]

    def optimizer_state(self) -> dict[str, Any]:
        """The optimizer's `state_dict` with its learning rates as numbers, to be loaded by any other of its kind."""
        state = self._optimizer.state_dict()
        for group, rate in zip(state["param_groups"], self._rates, strict=True):
            group["lr"] = rate
        return state

    def load_optimizer_state(self, state: dict[str, Any]) -> None:
        """Restore what `optimizer_state` gave.

        Except for `WAYS`, which stay as they are: some do not work on another device, or if updates are not recorded.
        """
        ways = ({way: own[way] for way in WAYS if way in own} for own in self._optimizer.param_groups)
        groups = [
            {**saved, **kept} for saved, kept in zip(state["param_groups"], chain(ways, repeat({})), strict=False)
        ]
        self._optimizer.load_state_dict({**state, "param_groups": groups})
        self._restore_types(state)
        self._rates = [float(group["lr"]) for group in self._optimizer.param_groups]
        for tensor, rate in zip(self._tensors or [], self._rates, strict=False):
            tensor.fill_(rate)

    def _restore_types(self, state: dict[str, Any]) -> None:
        """Give the state of each parameter its saved types again; torch has converted it to the parameter's type.

        Optimizers of the user's own may keep counts, masks, or momentum of more or fewer bits.
        """
        numbers, parameters = (
            chain.from_iterable(group["params"] for group in groups)
            for groups in (state["param_groups"], self._optimizer.param_groups)
        )
        saved, loaded = state.get("state", {}), self._optimizer.state  # the user's own may differ
        for number, parameter in zip(numbers, parameters, strict=False):
            if number in saved and parameter in loaded:
                loaded[parameter] = _typed_as(saved[number], loaded[parameter])


def _typed_as(saved: Any, loaded: Any) -> Any:
    """`loaded`, but with a copy of the saved tensor, on the same device, for each whose type differs from it."""
    if isinstance(saved, torch.Tensor) and isinstance(loaded, torch.Tensor):
        return loaded if loaded.dtype == saved.dtype else saved.to(loaded.device, copy=True)
    if type(saved) is type(loaded) is dict:
        return {key: _typed_as(saved[key], value) if key in saved else value for key, value in loaded.items()}
    if type(saved) is type(loaded) in (list, tuple) and len(saved) == len(loaded):
        return type(loaded)(map(_typed_as, saved, loaded))
    return loaded

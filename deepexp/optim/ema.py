"""Averages of the weights over the updates (Polyak and Juditsky 1992), exponentially weighted."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from deepexp.optim.finite import finite_numbers


class Ema:
    """An exponential moving average of a model's parameters and buffers.

    At update n, from 1: average ← d · average + (1 − d) · value, d = min(decay, (1 + n)/(10 + n)).
    The smaller d of the beginning, as in TensorFlow's ExponentialMovingAverage with `num_updates`,
    lets short runs forget their random initial weights. Copied instead is what is no floating-point
    number (batch normalisation's count of batches), has 8 bits, or is not finite at first (a mask of −∞).
    Make it once the model is on its device and in its memory format.
    """

    def __init__(self, model: nn.Module, decay: float, *, recorded: bool = False) -> None:
        """`recorded`: 1 − d is kept on the device, for updates that are replayed as a CUDA graph."""
        if not 0 < decay < 1:
            raise ValueError(f"decay: {decay!r} is not allowed; between 0 and 1")
        self._decay = decay
        self._updates = 0
        self._parameters = dict(model.named_parameters())
        self._places = _places_of_buffers(model)
        values = self._values()
        self._averages = {name: value.detach().clone() for name, value in values.items()}
        self._averaged = {name for name in finite_numbers(values) if values[name].itemsize > 1}
        device = next(iter(values.values())).device
        self._share = torch.zeros((), device=device) if recorded else None  # 1 − d

    def update(self) -> None:
        """Take in the weights as they are now; call it after each update of them."""
        self.count()
        self.take_in()

    def count(self) -> None:
        """The first part of an update: d follows from its number."""
        self._updates += 1
        if self._share is not None:
            self._share.fill_(1 - self._present_decay())

    @torch.no_grad()
    def take_in(self) -> None:
        """The second part, which the device does alone: move the averages."""
        averages, values = [], []
        present = self._values()
        for name, average in self._averages.items():
            if name in self._averaged:
                averages.append(average)
                values.append(present[name])
            else:
                average.copy_(present[name])
        if self._share is None:
            torch._foreach_lerp_(averages, values, 1 - self._present_decay())  # on a GPU one kernel for all of them
            return
        differences = torch._foreach_sub(values, averages)
        torch._foreach_mul_(differences, self._share)
        torch._foreach_add_(averages, differences)

    def _values(self) -> dict[str, Tensor]:
        """As `values_of`: buffers as they are now, since a model may bind another tensor to one in each pass."""
        return self._parameters | {name: held[key] for name, (held, key) in self._places.items()}

    def _present_decay(self) -> float:
        return min(self._decay, (1 + self._updates) / (10 + self._updates))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the model's own tensors hold the averages; afterwards they are back, with exactly what they held."""
        values = self._values()
        kept = {name: value.detach().clone() for name, value in values.items()}
        _fill(values, self._averages)
        try:
            yield
        finally:
            _fill(values, kept)
            for name, (held, key) in self._places.items():
                held[key] = values[name]

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors, which are not copied."""
        return {"updates": self._updates, "averages": dict(self._averages)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave for a model of the same shape."""
        self._updates = state["updates"]
        for name, average in self._averages.items():
            average.copy_(state["averages"][name])


def values_of(model: nn.Module) -> dict[str, Tensor]:
    """Each parameter and buffer once, by its first name; also buffers that are not in the state dict."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def fill(model: nn.Module, source: Mapping[str, Tensor]) -> None:
    """Copy averages of an `Ema`, or `values_of` such a model, into its tensors; `KeyError` if some are missing."""
    _fill(values_of(model), source)


def _places_of_buffers(model: nn.Module) -> dict[str, tuple[dict[str, Any], str]]:
    """Where the buffers that `values_of` names are held: the buffers of their module, and their name there."""
    places = {}
    for name, _ in model.named_buffers():
        module, _, key = name.rpartition(".")
        places[name] = model.get_submodule(module)._buffers, key
    return places


@torch.no_grad()
def _fill(values: Mapping[str, Tensor], source: Mapping[str, Tensor]) -> None:
    for name, value in values.items():
        value.copy_(source[name])

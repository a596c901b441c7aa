"""Forward and backward passes as torch compiles them (`torch.compile`) for the model, the device and one batch size.

Compiling takes from seconds to minutes at a run's first update, so it is for long runs, on GPUs above all. Evaluations,
and batches of another size than most, are not compiled.
"""

import logging
from collections.abc import Callable
from typing import Protocol, cast

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)


class Forward(Protocol):
    """Computes the logits of a training batch."""

    choice: str
    """Whether they are compiled, in words."""

    def __call__(self, model: nn.Module, images: Tensor) -> Tensor:
        """(batch, channels, height, width) → (batch, classes)."""
        ...


class AsWritten:
    """A `Forward` that calls the model."""

    choice = "no, compile=false"

    def __call__(self, model: nn.Module, images: Tensor) -> Tensor:
        """See `Forward`."""
        return cast(Tensor, model(images))


class Compiled:
    """A `Forward` that compiles the model, for batches of `batch_size` samples.

    If the model or the machine does not allow that, a warning says so once, and the model is called as written.
    """

    choice = "yes"

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._works = True
        self._model: nn.Module | None = None
        self._compiled: Callable[[Tensor], Tensor] | None = None
        self._parameters: list[nn.Parameter] = []
        self._moving: list[bool] = []  # which of them needed gradients when it was compiled

    def __call__(self, model: nn.Module, images: Tensor) -> Tensor:
        """See `Forward`. The model is compiled at its first call, and again when other parameters need gradients."""
        if not self._works or len(images) != self._batch_size:
            return cast(Tensor, model(images))
        if self._model is not model:
            self._model, self._parameters, self._compiled = model, list(model.parameters()), None
        moving = [parameter.requires_grad for parameter in self._parameters]
        if self._compiled is not None and moving != self._moving:
            torch.compiler.reset()  # torch 2.11 would reuse passes that leave thawed weights without gradients
            self._compiled = None
        if self._compiled is None:
            self._compiled, self._moving = compiled(model), moving
        try:
            return self._compiled(images)
        except torch._dynamo.exc.TorchDynamoException as error:
            log.warning("compile: the model cannot be compiled here, and is called as written: %s", _reason(error))
            self._works = False
        return cast(Tensor, model(images))


def compiled(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """The model as torch compiles it when it is called; random numbers are those of the model as written."""
    made: Callable[[Tensor], Tensor] = torch.compile(model, dynamic=False, options={"fallback_random": True})
    return made


def _reason(error: BaseException) -> str:
    """The first line that says what was wrong; torch's may begin with "backend='inductor' raised:"."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if not line.endswith(":")), type(error).__name__)

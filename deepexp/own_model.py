"""A model of the user's own may be anything: what is asked of it, and a line for what is not as it should be."""

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from deepexp import targets
from deepexp.errors import InputError

log = logging.getLogger(__name__)


def check(
    made: Any, target: str, shape: tuple[int, int, int], classes: int, make_real: Callable[[], Any] | None
) -> None:
    """Raise `InputError` if what a target has made on the meta device is no model, or gives something else than logits.

    Where it cannot be called there, with tensors that have no numbers, one that `make_real` gives on the CPU is called
    instead; None: then it is not judged what the model gives.
    """
    if target.startswith("deepexp."):
        return
    if not isinstance(made, nn.Module):
        raise InputError(f"model._target_: {target} gives {targets.kind(made)}, and a torch.nn.Module is needed")
    if not any(True for _ in made.parameters()):
        raise InputError(f"model._target_: {target} has no parameters, so there is nothing to train")
    lazy = next((name for name, tensor in made.named_parameters() if isinstance(tensor, UninitializedParameter)), None)
    if lazy is not None:
        raise InputError(
            f"model._target_: {target} has a lazy layer ({lazy}), whose size is open; "
            "set its size, or call the model once at the end of __init__"
        )
    try:
        output = _output(made, shape, training=False)
    except Exception as error:
        log.debug("%s cannot be tried on the meta device: %s", target, error)
        if make_real is None:
            return
        made = make_real()
        try:
            output = _output(made, shape, training=False)
        except Exception as real_error:
            size = "×".join(map(str, shape))
            raise InputError(f"model: {target} fails for two pictures of {size}: {targets.told(real_error)}") from None
    _check_output(output, target, classes, "")
    try:
        output = _output(made, shape, training=True)
    except Exception as error:  # batches may have to be larger to train
        log.debug("%s cannot be tried in training mode: %s", target, error)
        return
    _check_output(output, target, classes, " in training mode")


def _output(model: nn.Module, shape: tuple[int, int, int], *, training: bool) -> Any:
    """What a model gives for two pictures without content; it is in training mode afterwards."""
    device = next(model.parameters()).device
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            pictures = torch.zeros(2, *shape, device=device).to(memory_format=torch.channels_last)
            return model.train(training)(pictures)
    finally:
        model.train()


def _check_output(output: Any, target: str, classes: int, mode: str) -> None:
    if isinstance(output, Tensor) and output.shape == (2, classes) and output.is_floating_point():
        return
    found = f"{output.dtype} of shape {tuple(output.shape)}" if isinstance(output, Tensor) else targets.kind(output)
    raise InputError(
        f"model: {target} gives {found} for two pictures{mode}; a float tensor of shape (2, {classes}) is needed, "
        "a number for each class"
    )

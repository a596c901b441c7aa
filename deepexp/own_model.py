"""A model of the user's own may be anything: what is asked of it, and a line for what is not as it should be."""

import logging
from typing import Any

import torch
from torch import Tensor, nn

from deepexp.errors import InputError
from deepexp.targets import kind

log = logging.getLogger(__name__)


def check(made: Any, target: str, shape: tuple[int, int, int], classes: int) -> None:
    """Raise `InputError` if what a target has made on the meta device is no model, or gives something else than logits.

    Whether it gives them is not judged where it cannot be called there, with tensors that have no numbers.
    """
    if target.startswith("deepexp."):
        return
    if not isinstance(made, nn.Module):
        raise InputError(f"model._target_: {target} gives {kind(made)}, and a torch.nn.Module is needed")
    if not any(True for _ in made.parameters()):
        raise InputError(f"model._target_: {target} has no parameters, so there is nothing to train")
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            output = made.eval()(torch.empty(2, *shape, device="meta"))
        made.train()
    except Exception as error:
        log.debug("%s cannot be tried on the meta device: %s", target, error)
        return
    if not isinstance(output, Tensor):
        found = kind(output)
    elif output.shape == (2, classes) and output.is_floating_point():
        return
    else:
        found = f"{output.dtype} of shape {tuple(output.shape)}"
    raise InputError(
        f"model: {target} gives {found} for two pictures; a float tensor of shape (2, {classes}) is needed, "
        "a number for each class"
    )

"""Checks of a model of the user's own; what is wrong with it becomes an error of one line."""

import copy
import itertools
import json
import logging
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from deepexp import checkpoint
from deepexp.data.source import Shape
from deepexp.errors import InputError, RunFailed
from deepexp.schema import Component
from deepexp.text.units import one_line
from deepexp.user_code import own_code

log = logging.getLogger(__name__)


def check(
    made: Any,
    component: Component,
    found: Callable[..., Any],
    shape: Shape,
    classes: int,
    make_real: Callable[[], Any] | None,
) -> None:
    """Raise `InputError` if what a target has made on the meta device is no model, or does not give logits.

    Also if what it saves cannot be loaded into another one: then no run could be resumed, and no checkpoint tested.

    To find out, a real model from `make_real` is called on the CPU with two pictures. That takes as long as making a
    model does, so it is done once for each class or function that the target is `found` to be. Without `make_real`, the
    model on the meta device is called; if that fails, its output is not checked.
    """
    target = component.target
    if target.startswith("deepexp."):
        return
    if not isinstance(made, nn.Module):
        raise InputError(f"model._target_: {target} gives {own_code.kind(made)}, and a torch.nn.Module is needed")
    if not any(True for _ in made.parameters()):
        raise InputError(f"model._target_: {target} has no parameters, so there is nothing to train")
    named = itertools.chain(made.named_parameters(), made.named_buffers())
    lazy = next((name for name, tensor in named if is_lazy(tensor)), None)
    if lazy is not None:
        raise InputError(
            f"model._target_: {target} has a lazy layer ({lazy}), whose size is open; "
            "set its size, or call the model once at the end of __init__"
        )
    if make_real is None:
        another = _copy(made)
        _try(made, target, shape, classes, () if another is None else (lambda: another,))
        return
    what = json.dumps([target, component.arguments, shape, classes], sort_keys=True, default=repr)
    if _tried.get(what) is not found:
        _try(make_real(), target, shape, classes, (lambda: made, make_real))  # the second, if the meta device fails
        _tried[what] = found


_tried: dict[str, Callable[..., Any]] = {}
"""(target, arguments, …) as JSON → the class or function whose model passed; a reloaded module has another one."""


def warn_of_loose_layers(model: nn.Module, target: str) -> None:
    """Log a warning for layers that a model keeps where torch does not look for them."""
    if not target.startswith("deepexp."):
        for name in _loose_layers(model):
            log.warning(
                "model: %s keeps layers in a plain list or dict (%s), so they are neither trained nor saved; "
                "torch.nn.ModuleList and ModuleDict make them parts of the model",
                target,
                name,
            )


_OF_OTHER_LOOPS = ("training_step", "configure_optimizers")


def warn_of_uncalled_methods(model: nn.Module, target: str) -> None:
    """Log a warning for a loss or optimizers of a model's own, as a LightningModule has: a run uses deepexp's."""
    uncalled = [name for name in _OF_OTHER_LOOPS if callable(getattr(model, name, None))]
    if uncalled:
        log.warning(
            "model: no %s of %s is called: the loss is that of loss=…, the optimizer that of optim=…",
            " or ".join(uncalled),
            target,
        )


def warn_of_probabilities(make: Callable[[], nn.Module], target: str, shape: Shape) -> None:
    """Log a warning for a model of the user's own that ends in a softmax, which the cross entropy applies once more.

    `make` gives another model to call: a call may change the run's, even through a copy that shares a closure with it.
    """
    if target.startswith("deepexp."):
        return
    try:
        output = _output(make(), shape, training=False)
    except (Exception, SystemExit) as error:  # it may ask for more than two pictures, or for a GPU
        log.debug("%s cannot be tried for probabilities: %s", target, error)
        return
    if isinstance(output, Tensor) and output.ndim == 2 and output.shape[1] > 1 and _are_probabilities(output):
        log.warning(
            "model: %s gives probabilities, and the loss applies a softmax to them once more, so it learns slowly; "
            "leave out the model's own softmax",
            target,
        )


def _are_probabilities(output: Tensor) -> bool:
    """Whether each row holds non-negative numbers that add up to 1."""
    sums = output.double().sum(1)
    return bool((output >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-3)


def _loose_layers(model: nn.Module) -> list[str]:
    """The plain lists, tuples and dicts with parameters that are not among the model's own."""
    known = set(map(id, model.parameters()))
    found = []
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            held = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
            if not known.issuperset(id(parameter) for item in held for parameter in _parameters(item)):
                found.append(f"{name}.{attribute}".lstrip("."))
    return found


def _parameters(item: object) -> list[nn.Parameter]:
    if isinstance(item, nn.Module):
        return list(item.parameters())
    return [item] if isinstance(item, nn.Parameter) else []


def _copy(model: nn.Module) -> nn.Module | None:
    try:
        return copy.deepcopy(model)
    except Exception as error:  # a model may hold anything
        log.debug("%s cannot be copied: %s", type(model).__name__, error)
        return None


def _try(
    model: nn.Module,
    target: str,
    shape: Shape,
    classes: int,
    others: Sequence[Callable[[], nn.Module]],
) -> None:
    """Raise `InputError` if a model does not give logits, or fails although it is not on the meta device.

    `others`: functions that make another one; one of these must be able to load what this one saves.
    """
    try:
        output = _output(model, shape, training=False)
    except (Exception, SystemExit) as error:
        if next(model.parameters()).is_meta:
            log.debug("%s cannot be tried on the meta device: %s", target, error)
            return
        size = "×".join(map(str, shape))
        raise InputError(f"model: {target} fails for two pictures of {size}: {own_code.told(error)}") from None
    _check_output(output, target, classes, "")
    try:
        output = _output(model, shape, training=True)
    except (Exception, SystemExit) as error:  # training may need larger batches
        log.debug("%s cannot be tried in training mode: %s", target, error)
    else:
        _check_output(output, target, classes, " in training mode")
        if not output.requires_grad and any(parameter.requires_grad for parameter in model.parameters()):
            raise InputError(
                f"model: what {target} gives in training mode has no gradient, so it could not be trained; "
                "trainable layers must lead to it, without detach() and torch.no_grad()"
            )
        del output  # and with it what is kept for the backward pass
    if others:
        _check_saving(model, target, others)


def _check_saving(model: nn.Module, target: str, others: Sequence[Callable[[], nn.Module]]) -> None:
    """Raise `InputError` if no other model can load what this one, which has been called, would save."""
    reason: Exception | None = None
    for make in others:
        try:
            saved = model.state_dict()
            checkpoint.check_readable("model", saved)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about numbers that the meta device loses
                make().load_state_dict(saved)
            return
        except RunFailed as error:
            raise InputError(f"model: what {target} saves: {error}") from None
        except Exception as error:  # hooks of the user's own may raise anything
            reason = error
    raise InputError(
        f"model: no run of {target} could be resumed, since load_state_dict fails for what state_dict gives after a "
        f"training pass: {one_line(reason)}"
    )


def _output(model: nn.Module, shape: Shape, *, training: bool) -> Any:
    """What a model gives for two pictures of zeros, in training with gradients; it is in training mode afterwards."""
    device = next(model.parameters()).device
    try:
        with torch.set_grad_enabled(training):
            pictures = torch.zeros(2, *shape, device=device).to(memory_format=torch.channels_last)
            return model.train(training)(pictures)
    finally:
        model.train()


def _check_output(output: Any, target: str, classes: int, mode: str) -> None:
    if isinstance(output, Tensor) and output.shape == (2, classes) and output.is_floating_point():
        return
    found = f"{output.dtype} of shape {tuple(output.shape)}" if isinstance(output, Tensor) else own_code.kind(output)
    raise InputError(
        f"model: {target} gives {found} for two pictures{mode}; a float tensor of shape (2, {classes}) is needed, "
        "a number for each class"
    )

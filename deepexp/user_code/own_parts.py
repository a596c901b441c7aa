"""Checks of a schedule, augmentation or loss of the user's own; what is wrong with it becomes an error of one line."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from deepexp import runtime
from deepexp.data.augment import Mix
from deepexp.data.source import Shape
from deepexp.errors import DeepexpError, InputError, RunFailed
from deepexp.user_code import own_code

_METHODS = {
    "data": ("info", "load"),
    "schedule": ("__call__", "depends_on_horizon", "check"),
    "augment": ("draw", "apply"),
    "loss": ("__call__",),
}


def check_methods(group: str, made: Any, target: str) -> None:
    """Raise `InputError` if what a target of this group has made lacks a method that a run will call."""
    lacking = [name for name in _METHODS.get(group, ()) if not callable(getattr(made, name, None))]
    if lacking:
        methods = " and ".join(lacking)
        raise InputError(f"{group}._target_: {target} gives {own_code.kind(made)} without {methods}, which a run calls")


def check_schedule(schedule: Any, total_steps: int) -> None:
    """Raise `InputError` or `ValueError` if a schedule does not fit into the run, or gives no number at first."""
    try:
        schedule.check(total_steps)
        first = schedule(0, total_steps)
    except (DeepexpError, ValueError):
        raise
    except Exception as error:
        raise InputError(f"schedule: {type(schedule).__name__} fails: {own_code.told(error)}") from error
    if (complaint := _complaint(schedule, 0, first)) is not None:
        raise InputError(complaint)


def multiplier(schedule: Any, step: int, total_steps: int) -> float:
    """What a schedule gives for an update; `RunFailed` if that is no number ≥ 0, as the user's own may give."""
    given = schedule(step, total_steps)
    if (complaint := _complaint(schedule, step, given)) is not None:
        raise RunFailed(complaint)
    return float(given)


def _complaint(schedule: Any, step: int, given: Any) -> str | None:
    """What is wrong with what a schedule gives for an update, counted from 0."""
    if isinstance(given, int | float) and 0 <= given < math.inf:
        return None
    update = "the first update" if step == 0 else f"update {step + 1:,}"
    name = type(schedule).__name__
    return f"schedule: {name} gives {given!r} for {update}; a number ≥ 0 is needed, which multiplies optim.lr"


def check_augment(augmentation: Any, shape: Shape, device: torch.device, model: nn.Module | None) -> None:
    """Raise `InputError` if an augmentation fails for two pictures, or gives what cannot be trained on.

    Also if its pictures have another size, and the `model`, which is on the meta device, does not take that. `apply` is
    tried on the CPU, so not for runs on other devices.
    """
    kind = type(augmentation)
    if kind.__module__.startswith("deepexp."):
        return
    name = f"augment: {kind.__module__}.{kind.__qualname__}"
    with runtime.forked_random(torch.device("cpu")):
        try:
            draws, again = (augmentation.draw(2, shape, torch.Generator().manual_seed(0)) for _ in range(2))
            _check_draws(name, draws, again)
            if device.type != "cpu":
                return
            pictures = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
            given = augmentation.apply(pictures.to(memory_format=torch.channels_last), dict(draws))
        except DeepexpError:
            raise
        except (Exception, SystemExit) as error:
            size = "×".join(map(str, shape))
            raise InputError(f"{name} fails for two pictures of {size}: {own_code.told(error)}") from error
    _check_augmented(name, given, shape)
    if model is not None and given[0].shape[1:] != shape:
        _check_taken(name, given[0].shape, shape, model)


def check_loss(loss: Any, target: str, classes: int, device: torch.device) -> None:
    """Raise `InputError` if a loss fails for two pictures, does not give one number each, or would need training.

    It is tried on the CPU, so not for runs on other devices.
    """
    if target.startswith("deepexp."):
        return
    name = f"loss: {target}"
    if isinstance(loss, nn.Module) and any(True for _ in loss.parameters()):
        raise InputError(f"{name} has parameters, which nothing would train; let the model have them")
    if device.type != "cpu":
        return
    with runtime.forked_random(torch.device("cpu")):
        outputs = torch.randn(2, classes, generator=torch.Generator().manual_seed(0)).requires_grad_()
        logits, labels = outputs.clone(), torch.tensor([0, classes - 1])
        try:
            given = loss(logits, labels)
            _check_losses(name, given)
            if not torch.equal(logits, outputs) or labels.tolist() != [0, classes - 1]:
                raise InputError(f"{name} changes its logits or labels in place; errors are counted by them afterwards")
            if given.requires_grad:
                given.sum().backward()
        except DeepexpError:
            raise
        except (Exception, SystemExit) as error:
            raise InputError(
                f"{name} fails for logits (2, {classes}) float32 and labels (2,) int64: {own_code.told(error)}"
            ) from error
    if outputs.grad is None or not outputs.grad.isfinite().all():
        raise InputError(f"{name} has no finite gradient by the logits, so no model can be trained with it")


def _check_losses(name: str, given: Any) -> None:
    if not isinstance(given, Tensor) or not given.is_floating_point() or given.shape != (2,):
        found = f"{given.dtype} of shape {tuple(given.shape)}" if isinstance(given, Tensor) else own_code.kind(given)
        hint = '; torch\'s losses do so with reduction: "none"' if isinstance(given, Tensor) and not given.dim() else ""
        raise InputError(f"{name} gives {found} for two pictures; needed is the loss of each, float32 (2,){hint}")
    if not given.isfinite().all():
        raise InputError(f"{name} gives {given.tolist()} for two pictures; needed are finite numbers")


def _check_draws(name: str, draws: Any, again: Any) -> None:
    if not isinstance(draws, dict) or not all(isinstance(rows, Tensor) for rows in draws.values()):
        raise InputError(f"{name}.draw gives {_kinds(draws)}; needed is a dict of tensors, with a row for each sample")
    for key, rows in draws.items():
        if rows.shape[:1] != (2,):
            raise InputError(
                f"{name}.draw gives {key} of shape {tuple(rows.shape)} for 2 samples; needed is a row each"
            )
        if not torch.equal(rows, again[key]):
            raise InputError(
                f"{name}.draw gives another {key} each time, but a run that is resumed within an epoch draws again; "
                "take all random numbers from its generator"
            )


def _check_augmented(name: str, given: Any, shape: Shape) -> None:
    if not isinstance(given, (tuple, list)) or len(given) != 2 or not (given[1] is None or isinstance(given[1], Mix)):
        raise InputError(f"{name}.apply gives {_kinds(given)}; needed are the pictures, and None or a Mix of labels")
    pictures, _ = given
    if not isinstance(pictures, Tensor):
        raise InputError(f"{name}.apply gives {own_code.kind(pictures)} for the pictures; needed is a tensor")
    if pictures.dtype != torch.float32 or pictures.dim() != 4 or pictures.shape[:2] != (2, shape[0]):
        raise InputError(
            f"{name}.apply gives {pictures.dtype} of shape {tuple(pictures.shape)} for two pictures; "
            f"needed is float32 (2, {shape[0]}, height, width)"
        )
    if not pictures.isfinite().all():
        raise InputError(f"{name}.apply gives pixels that are not finite for pixels from 0 to 1")
    if given[1] is not None:
        _check_mix(name, given[1])


def _check_taken(name: str, given: torch.Size, shape: Shape, model: nn.Module) -> None:
    """Raise `InputError` if a model takes pictures of the data's size (`shape`), but not of the size `given`."""
    refusal = _refusal(model, given)
    if refusal is not None and _refusal(model, torch.Size((2, *shape))) is None:
        size, other = ("×".join(map(str, numbers)) for numbers in (shape, given[1:]))
        raise InputError(
            f"{name}.apply makes pictures of {other} out of {size}, for which the model fails: {own_code.told(refusal)}"
        )


def _refusal(model: nn.Module, size: torch.Size) -> Exception | None:
    """The error of a model on the meta device for pictures of this size; None if it takes them."""
    try:
        with torch.no_grad():
            model(torch.empty(size, device="meta"))
    except Exception as error:  # a model of the user's own may raise anything
        return error
    return None


def _check_mix(name: str, mix: Mix) -> None:
    """Raise `InputError` for a wrong `Mix`; whatever can be broadcast would give some loss, without an error."""
    for part, values in mix._asdict().items():
        dtypes, most = ((torch.int64,), "1") if part == "partner" else ((torch.float32, torch.float64), "1.0")
        if not isinstance(values, Tensor) or values.dtype not in dtypes or values.shape != (2,):
            found = (
                f"{values.dtype} of shape {tuple(values.shape)}"
                if isinstance(values, Tensor)
                else own_code.kind(values)
            )
            needed = f"{str(dtypes[0]).removeprefix('torch.')} (2,)"
            raise InputError(f"{name}.apply gives a Mix for two pictures whose {part} is {found}; needed is {needed}")
        if not ((values >= 0) & (values <= 1)).all():
            what = "the partner's number in the batch" if part == "partner" else "the weight of the sample's own label"
            raise InputError(
                f"{name}.apply gives a Mix for two pictures whose {part} is {values.tolist()}; "
                f"allowed is from 0 to {most}: it is {what}"
            )


def _kinds(given: Any) -> str:
    """`a Tensor`, `a tuple of Tensor and int`: what something is, and what is in it."""
    held = list(given.values()) if isinstance(given, dict) else list(given) if isinstance(given, (tuple, list)) else []
    return own_code.kind(given) + (f" of {' and '.join(type(item).__name__ for item in held[:4])}" if held else "")

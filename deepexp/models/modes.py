"""Training mode and test mode of a model, and when it may take shortcuts."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import torch
from torch import nn


@contextlib.contextmanager
def in_test_mode(model: nn.Module) -> Iterator[None]:
    """Test mode within the block; afterwards each module has the mode that it had before."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


_may_take_shortcuts = ContextVar("models may take shortcuts", default=False)


@contextlib.contextmanager
def shortcuts_allowed() -> Iterator[None]:
    """Within the block, models may compute their output faster than by calling one layer after the other.

    It is for plain forward and backward passes: hooks of layers may not be called, and torch.func, tracing and
    gradients of gradients may be impossible.
    """
    before = _may_take_shortcuts.set(True)
    try:
        yield
    finally:
        _may_take_shortcuts.reset(before)


def may_take_shortcuts() -> bool:
    """Whether the call comes from within `shortcuts_allowed`; true while torch compiles the model, which cannot ask."""
    return torch.compiler.is_compiling() or _may_take_shortcuts.get()

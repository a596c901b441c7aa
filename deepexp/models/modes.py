"""Training mode and test mode of a model."""

import contextlib
from collections.abc import Iterator

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

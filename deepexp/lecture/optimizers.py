"""Optimizers by the names of `conf/optim`, for the demonstrations: built as a run builds them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from deepexp import build, check
from deepexp.config import catalogue
from deepexp.config.compose import compose
from deepexp.errors import raise_any
from deepexp.schema import TrainConfig
from deepexp.text.suggest import did_you_mean

ABOUT_MUON = "What muon shows here is AdamW at a twentieth of its rate: its own rule is for matrices."
"""Of demonstrations whose weights are a single vector."""


class Point(nn.Module):
    """A model that is nothing but its weights."""

    def __init__(self, weights: Sequence[float] | Tensor) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.as_tensor(weights, dtype=torch.float64))


def check_names(names: Sequence[str]) -> None:
    """`InputError` with a line for each name that `conf/optim` does not have."""
    known = catalogue.names("optim")
    wrong = [name for name in names if name not in known]
    raise_any(
        [f"optim: {name!r} is not allowed{did_you_mean(name, known)}; one of {', '.join(known)}" for name in wrong]
    )


def config_of(name: str, overrides: Sequence[str]) -> TrainConfig:
    """The config of a run on the CPU with this optimizer and further overrides."""
    composed = compose(["device=cpu", f"optim={name}", *overrides])
    config, _ = check.typed_and_planned(composed.resolved())
    return config


def optimizer_for(name: str, model: nn.Module, lr: float | None) -> torch.optim.Optimizer:
    """The optimizer with the options of its YAML file, and `lr` in place of its own unless that is None."""
    overrides = [] if lr is None else [f"optim.lr={lr!r}"]
    return build.optimizer(config_of(name, overrides), model)

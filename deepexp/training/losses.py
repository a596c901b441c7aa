"""What training minimises: the loss of a single sample, by the outputs of the model for it and its label.

Means, sums and weights of classes are made of it in `reduced`; mixed pictures and updates of several batches in
`step.Objective`.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

Reduction = Literal["none", "sum", "mean"]


class Loss(Protocol):
    """What a run needs of a loss, which has no parameters of its own; those of torch fit with `reduction="none"`."""

    def __call__(self, logits: Tensor, labels: Tensor, /) -> Tensor:
        """The losses (batch,) for a model's outputs (batch, classes), float32, and labels (batch,), int64."""
        ...


@dataclass(frozen=True)
class CrossEntropy:
    """−log of the label's probability, under a softmax of the outputs."""

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, reduction="none")


USUAL = CrossEntropy()
"""The loss where nothing else is asked for."""


@dataclass(frozen=True)
class Focal:
    """−(1 − p)^γ log p for the label's probability p (Lin et al. 2017, equation 4); raises `ValueError` for γ < 0."""

    gamma: float

    def __post_init__(self) -> None:
        _check_at_least_0("gamma", self.gamma)

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        cross_entropy = F.cross_entropy(logits, labels, reduction="none")
        missing = -torch.expm1(-cross_entropy)  # 1 − p, exact also where p is almost 1
        # The power has no finite derivative at 0 for γ < 1; there the loss is 0 anyway.
        return missing.clamp_min(torch.finfo(missing.dtype).tiny) ** self.gamma * cross_entropy


@dataclass(frozen=True)
class SquaredError:
    """The mean over the classes of the squared difference between outputs and the one-hot label."""

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.mse_loss(logits, _one_hot(logits, labels), reduction="none").mean(1)


@dataclass(frozen=True)
class BinaryCrossEntropy:
    """The mean over the classes of a cross entropy each, under a sigmoid (Wightman et al. 2021, section 3.1)."""

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, _one_hot(logits, labels), reduction="none").mean(1)


@dataclass(frozen=True)
class Hinge:
    """Σ max(0, margin − label's output + other's output) over the others, divided by the number of classes.

    The margins of Weston and Watkins (1999); raises `ValueError` for a margin < 0.
    """

    margin: float

    def __post_init__(self) -> None:
        _check_at_least_0("margin", self.margin)

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        label = labels.unsqueeze(1)  # (batch, 1)
        return (self.margin - logits.gather(1, label) + logits).clamp_min(0).scatter(1, label, 0.0).mean(1)


def reduced(
    loss: Loss,
    logits: Tensor,
    labels: Tensor,
    reduction: Reduction,
    *,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """The losses (batch,) of a batch, or their sum, each times its class's weight out of (classes,); or their mean.

    `label_smoothing` is for `CrossEntropy` alone, which is computed in one kernel. Raises `ValueError` if a loss
    does not give one number for each sample.
    """
    assert class_weights is None or reduction != "mean"  # for torch, that is the mean over the weights
    if type(loss) is CrossEntropy:
        return F.cross_entropy(logits, labels, class_weights, reduction=reduction, label_smoothing=label_smoothing)
    losses = loss(logits, labels)
    if losses.shape != labels.shape:
        raise ValueError(f"the loss gives {tuple(losses.shape)} for {len(labels)} pictures; needed is the loss of each")
    if class_weights is not None:
        losses = class_weights[labels] * losses
    return losses if reduction == "none" else losses.sum() if reduction == "sum" else losses.mean()


def _one_hot(logits: Tensor, labels: Tensor) -> Tensor:
    return torch.zeros_like(logits).scatter_(1, labels.unsqueeze(1), 1.0)


def _check_at_least_0(name: str, value: float) -> None:
    if not value >= 0:
        raise ValueError(f"{name}: {value} is not allowed; a number ≥ 0")

"""How good a model is on a split: its loss and its number of errors. Nothing is logged or saved here."""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from deepexp.data.loader import Loader
from deepexp.data.order import Bounds, batch_bounds
from deepexp.models.modes import in_test_mode
from deepexp.step import Precision
from deepexp.training.losses import USUAL, Loss, reduced
from deepexp.training.memory import is_out_of_memory

log = logging.getLogger(__name__)

BATCH_SIZE = 500
"""Samples that are scored at once, where the memory is large enough."""


@dataclass(frozen=True)
class Evaluation:
    """Mean loss per sample, number of errors, and the class predicted for each sample in the split's own order."""

    loss: float
    errors: int
    samples: int
    predicted: Tensor  # (samples,) int64, on the CPU

    @property
    def error_rate(self) -> float:
        """Errors over samples."""
        return self.errors / self.samples


@dataclass(frozen=True)
class Scores:
    """The results of a batch, on the device: the sum of its losses, the classes predicted (batch,), its errors."""

    loss: Tensor
    predicted: Tensor
    errors: Tensor

    def copy(self) -> "Scores":
        """The same, in memory of its own."""
        return Scores(self.loss.clone(), self.predicted.clone(), self.errors.clone())


class Scorer(Protocol):
    """Scores the batches of a split; the caller sets test mode, inference mode and precision."""

    def __call__(self, model: nn.Module, loader: Loader, order: Tensor, bounds: Sequence[Bounds]) -> Iterator[Scores]:
        """The scores of the samples `order[start:stop]` for each bound, as `Loader.batches` has them."""
        ...


def score(
    model: nn.Module, loader: Loader, order: Tensor, bounds: Sequence[Bounds], *, loss: Loss = USUAL
) -> Iterator[Scores]:
    """The `Scorer` that calls the model each time."""
    for images, labels in loader.batches(order, bounds):
        yield scores_of(model, images, labels, loss)


def scores_of(model: nn.Module, images: Tensor, labels: Tensor, loss: Loss) -> Scores:
    """The model's scores for one batch."""
    return scores_of_logits(model(images).float(), labels, loss)


def scores_of_logits(logits: Tensor, labels: Tensor, loss: Loss) -> Scores:
    """The scores of logits (batch, classes) float32."""
    predicted = logits.argmax(1)
    return Scores(reduced(loss, logits, labels, "sum"), predicted, (predicted != labels).sum())


def evaluate(
    model: nn.Module,
    loader: Loader,
    samples: int,
    precision: Precision,
    batch_size: int = BATCH_SIZE,
    *,
    scorer: Scorer = score,
) -> Evaluation:
    """Evaluate in test mode on a whole split, in its own order, with smaller batches if memory runs out.

    Afterwards the model has the mode that it had before.
    """
    try:
        with in_test_mode(model):
            return _evaluate(model, loader, samples, precision, batch_size, scorer)
    except RuntimeError as error:
        if not is_out_of_memory(error) or batch_size == 1:
            raise
        log.warning("out of memory: evaluated with batches of %d samples", batch_size // 2)
    return evaluate(model, loader, samples, precision, batch_size // 2, scorer=scorer)


def _evaluate(
    model: nn.Module, loader: Loader, samples: int, precision: Precision, batch_size: int, scorer: Scorer
) -> Evaluation:
    order = torch.arange(samples)
    bounds = batch_bounds(samples, batch_size)
    with torch.inference_mode(), precision.arithmetic():
        batches = list(scorer(model, loader, order, bounds))
    return Evaluation(
        loss=math.fsum(torch.stack([batch.loss for batch in batches]).tolist()) / samples,
        errors=int(torch.stack([batch.errors for batch in batches]).sum().item()),
        samples=samples,
        predicted=torch.cat([batch.predicted for batch in batches]).cpu(),
    )

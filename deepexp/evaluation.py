"""How good a model is on a split: its loss and its number of errors. Nothing is logged or saved here."""

import logging
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepexp.data.loader import Loader
from deepexp.step import Precision, is_out_of_memory

log = logging.getLogger(__name__)


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


def evaluate(model: nn.Module, loader: Loader, samples: int, precision: Precision, batch_size: int = 500) -> Evaluation:
    """Test-mode pass over a whole split, in its own order; the mode that the model was in is put back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        return _evaluate(model, loader, samples, precision, batch_size)
    except RuntimeError as error:
        if not is_out_of_memory(error) or batch_size == 1:
            raise
        log.warning("out of memory: evaluated with batches of %d samples", batch_size // 2)
    finally:
        for module, training in modes:
            module.training = training
    return evaluate(model, loader, samples, precision, batch_size // 2)


def _evaluate(model: nn.Module, loader: Loader, samples: int, precision: Precision, batch_size: int) -> Evaluation:
    order = torch.arange(samples)
    bounds = [(start, min(start + batch_size, samples)) for start in range(0, samples, batch_size)]
    losses, predicted, wrong = [], [], []
    with torch.inference_mode(), precision.autocast():
        for images, labels in loader.batches(order, bounds):
            logits = model(images).float()  # (batch, classes)
            losses.append(F.cross_entropy(logits, labels, reduction="sum"))
            predicted.append(logits.argmax(1))
            wrong.append((predicted[-1] != labels).sum())
    return Evaluation(
        loss=math.fsum(torch.stack(losses).tolist()) / samples,
        errors=int(torch.stack(wrong).sum().item()),
        samples=samples,
        predicted=torch.cat(predicted).cpu(),
    )

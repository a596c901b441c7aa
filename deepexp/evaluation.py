"""How good a model is on a split: its loss and its number of errors. Nothing is logged or saved here."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepexp.data.loader import Loader
from deepexp.step import Precision


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
    order = torch.arange(samples)
    bounds = [(start, min(start + batch_size, samples)) for start in range(0, samples, batch_size)]
    modes = [(module, module.training) for module in model.modules()]
    losses, predicted, wrong = [], [], []
    model.eval()
    with torch.inference_mode(), precision.autocast():
        for images, labels in loader.batches(order, bounds):
            logits = model(images).float()  # (batch, classes)
            losses.append(F.cross_entropy(logits, labels, reduction="sum").double())
            predicted.append(logits.argmax(1))
            wrong.append((predicted[-1] != labels).sum())
    for module, training in modes:
        module.training = training
    return Evaluation(
        loss=torch.stack(losses).sum().item() / samples,
        errors=int(torch.stack(wrong).sum().item()),
        samples=samples,
        predicted=torch.cat(predicted).cpu(),
    )

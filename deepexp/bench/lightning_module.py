"""A net for Lightning as its users write it. Only Lightning and torch are imported."""

import lightning
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Module(lightning.LightningModule):  # type: ignore[misc]
    """A net with an optimizer that is made already; the loss is the mean cross-entropy."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        super().__init__()
        self.model = model
        self._optimizer = optimizer

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """The loss of a batch of pictures and labels."""
        images, labels = batch
        loss = F.cross_entropy(self.model(images), labels)
        self.log("train_loss", loss)
        return loss

    def test_step(self, batch: tuple[Tensor, Tensor]) -> None:
        """The test error rate of a batch."""
        images, labels = batch
        self.log("test_error_rate", (self.model(images).argmax(1) != labels).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimizer that was given."""
        return self._optimizer

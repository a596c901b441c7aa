"""Where a run stands: the numbers and the unread losses that, beside weights and generators, a checkpoint must hold."""

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from deepexp.step import Update
from deepexp.training.evaluation import Evaluation


@dataclass
class Progress:
    """Where a run stands: every number that, beside the tensors, is needed to go on with it."""

    epoch: int = 0  # epochs completed
    update: int = 0  # updates made in the present epoch
    step: int = 0  # updates made in all
    samples: int = 0  # seen in the present epoch, or in the last one until the next begins
    samples_seen: int = 0  # in all
    loss_sum: float = 0.0  # over `samples`
    errors: int = 0  # among `samples`
    epoch_seconds: float = 0.0  # of training, in the present epoch
    train_seconds: float = 0.0  # of training, in all
    elapsed_seconds: float = 0.0  # of the run, in all
    grad_norm: float | None = None
    best_val_error_rate: float | None = None  # of the best epoch, as is the loss
    best_val_loss: float | None = None
    best_epoch: int | None = None  # from 1
    val_epoch: int | None = None  # of the last evaluation on validation data, from 1

    @property
    def present_epoch(self) -> int:
        """The epoch, from 1, that is being trained; between two epochs, the one before."""
        return self.epoch if self.update == 0 else self.epoch + 1

    @property
    def samples_per_second(self) -> float:
        """The speed of training in the present epoch, or in the last one until the next begins."""
        return self.samples / max(self.epoch_seconds, 1e-9)

    def note_validation(self, val: Evaluation, monitor: Literal["error_rate", "loss"]) -> bool:
        """Record an evaluation on validation data; returns whether it is the best so far, by one of its figures."""
        self.val_epoch = self.present_epoch
        best = self.best_val_loss if monitor == "loss" else self.best_val_error_rate
        if best is not None and getattr(val, monitor) >= best:
            return False
        self.best_val_error_rate, self.best_val_loss, self.best_epoch = val.error_rate, val.loss, self.present_epoch
        return True

    def begin_epoch(self) -> None:
        """Count the present epoch's figures from zero."""
        self.samples, self.errors, self.loss_sum, self.epoch_seconds = 0, 0, 0.0, 0.0

    def train_until(self, now: float, *, since: float) -> float:
        """Add the time from `since` to `now`, in seconds, to the training time; returns `now`."""
        self.epoch_seconds += now - since
        self.train_seconds += now - since
        return now


@dataclass
class Readings:
    """Losses and errors of the latest updates, left on the device until they are read all at once."""

    losses: list[Tensor] = field(default_factory=list)
    errors: list[Tensor] = field(default_factory=list)
    samples: list[int] = field(default_factory=list)

    def add(self, update: Update, samples: int) -> None:
        self.losses.append(update.loss)
        self.errors.append(update.errors)
        self.samples.append(samples)

    def read(self) -> tuple[list[float], int]:
        """(losses, errors in all); the one place where a training loop waits for the device."""
        return torch.stack(self.losses).tolist(), int(torch.stack(self.errors).sum().item())

    def state_dict(self) -> dict[str, Any]:
        """What is still unread when a checkpoint is written within a logging interval."""
        return {
            "losses": [x.cpu() for x in self.losses],
            "errors": [x.cpu() for x in self.errors],
            "samples": self.samples,
        }

    @classmethod
    def of(cls, state: dict[str, Any], device: torch.device) -> "Readings":
        """The readings whose `state_dict` this is."""
        losses, errors = ([x.to(device) for x in state[name]] for name in ("losses", "errors"))
        return cls(losses, errors, list(state["samples"]))

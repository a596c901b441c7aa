"""One update of the weights: forward, backward, clip, step, in the precision asked for.

A `Step` knows the model and the optimizer, but nothing of epochs, schedules or logs. It never waits for the device:
what it returns are tensors there. Float16 is the exception: torch's loss scaling skips an update whose gradients
overflow, and has to ask the device, once an update, whether they do.
"""

import contextlib
import dataclasses
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deepexp import runtime
from deepexp.models.modes import shortcuts_allowed
from deepexp.optim.capturable import begin_momentum, is_capturable
from deepexp.optim.learning_rates import LearningRates
from deepexp.training.compiled import AsWritten, Forward
from deepexp.training.losses import USUAL, Loss, Reduction, reduced
from deepexp.training.memory import is_out_of_memory

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batch:
    """Normalised pictures (batch, channels, height, width) and labels (batch,); a partner's label for mixed ones."""

    images: Tensor
    labels: Tensor
    partner_labels: Tensor | None = None  # (batch,)
    share: Tensor | None = None  # (batch,), the weight of the sample's own label

    def __len__(self) -> int:
        return self.labels.shape[0]

    @property
    def main_labels(self) -> Tensor:
        """(batch,), of mixed pictures the label with the larger share."""
        if self.share is None or self.partner_labels is None:
            return self.labels
        return torch.where(self.share < 0.5, self.partner_labels, self.labels)

    def copy(self) -> "Batch":
        """The batch with pictures of its own, for a model that may change its input in place and is asked again."""
        return dataclasses.replace(self, images=self.images.clone())

    def pieces(self, size: int) -> Iterator["Batch"]:
        """The batch itself, or parts of at most `size` samples."""
        if len(self) <= size:
            yield self
            return
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            yield Batch(
                self.images[part],
                self.labels[part],
                None if self.partner_labels is None else self.partner_labels[part],
                None if self.share is None else self.share[part],
            )


@dataclass(frozen=True)
class Precision:
    """How the model's arithmetic is done; weights and optimizer state are float32 always."""

    device: torch.device
    name: str

    @contextlib.contextmanager
    def arithmetic(self) -> Iterator[None]:
        """For forward passes and the loss: the types to compute in, and models may take shortcuts."""
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.name)
        autocast = contextlib.nullcontext() if dtype is None else torch.autocast(self.device.type, dtype=dtype)
        with autocast, shortcuts_allowed():
            yield

    def scaler(self) -> torch.amp.GradScaler:
        """Loss scaling against underflow, which only float16 needs."""
        return torch.amp.GradScaler(self.device.type, enabled=self.name == "fp16")


@dataclass(frozen=True)
class Objective:
    """The loss, as the gradient sees it (`reduction`) and as it is reported (the mean per sample).

    `class_weights` (classes,), on the device, multiply each class's part of a target. The mean is over samples and not,
    as in `F.cross_entropy`, over their weights, so that batches add up to an update.
    """

    reduction: str = "mean"
    label_smoothing: float = 0.0
    class_weights: Tensor | None = None
    loss: Loss = USUAL

    def __call__(self, logits: Tensor, batch: Batch, samples: int) -> Tensor:
        """What to differentiate for this batch when an update takes `samples` in all, so that batches add up."""
        if batch.share is not None and batch.partner_labels is not None:
            own = self._losses(logits, batch.labels, "none")  # (batch,)
            partner = self._losses(logits, batch.partner_labels, "none")  # (batch,)
            total = (batch.share * own + (1 - batch.share) * partner).sum()
        elif self.reduction == "mean" and len(batch) == samples and self.class_weights is None:
            return self._losses(logits, batch.labels, "mean")
        else:
            total = self._losses(logits, batch.labels, "sum")
        return total / samples if self.reduction == "mean" else total

    def per_sample(self, objective: Tensor, samples: int) -> Tensor:
        """The mean loss per sample of an update out of its objective."""
        return objective if self.reduction == "mean" else objective / samples

    def _losses(self, logits: Tensor, labels: Tensor, reduction: Reduction) -> Tensor:
        weights, smoothing = self.class_weights, self.label_smoothing
        return reduced(self.loss, logits.float(), labels, reduction, class_weights=weights, label_smoothing=smoothing)


@dataclass(frozen=True)
class Update:
    """The result of one update, on the device: the mean loss before it, and how many training samples were wrong.

    A mixed picture is wrong if it is taken for another class than that with the larger share in it.
    """

    loss: Tensor
    errors: Tensor


@dataclass(frozen=True)
class Gradients:
    """Parameters with their gradients, and the norm of the whole gradient before clipping, if it is known."""

    held: list[tuple[nn.Parameter, Tensor]]
    norm: Tensor | None


class Step:
    """Callable that makes one update out of one or several batches.

    `split_on_oom`: when the device runs out of memory, do the update again with batches in halves (the gradient stays
    the same, since models with batch statistics are refused with it). `recorded`: updates are to be recorded as a CUDA
    graph, so what changes from one to the next lies on the device (`optim/capturable.py`). `forward`: how the model is
    called.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        objective: Objective,
        precision: Precision,
        clip_grad_norm: float | None = None,
        split_on_oom: bool = False,
        recorded: bool = False,
        forward: Forward | None = None,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.objective = objective
        self.precision = precision
        self.clip_grad_norm = clip_grad_norm
        self.split_on_oom = split_on_oom
        self.recorded = recorded
        self.forward = forward or AsWritten()
        self.scaler = precision.scaler()
        self.is_recordable = recorded and is_capturable(optimizer) and not self.scaler.is_enabled()
        self.learning_rates = LearningRates(optimizer, precision.device if self.is_recordable else None)
        self.needs_closure = isinstance(optimizer, torch.optim.LBFGS)
        self.piece_size = 2**31
        self._known_norm: Tensor | None = None

    def __call__(self, batches: Iterable[Batch], samples: int) -> Update:
        """Update the weights once from `batches`, which hold `samples` samples together."""
        if self.needs_closure:
            return self._update_by_closure(list(batches), samples)
        update = self.gradients(batches, samples)
        self.apply()
        return update

    def gradients(self, batches: Iterable[Batch], samples: int) -> Update:
        """The first half of an update: losses, errors, and the gradients, which the parameters then have."""
        if not self.split_on_oom:
            return self._accumulate(batches, samples)
        return self._split_until_it_fits(list(batches), samples)

    def apply(self) -> None:
        """The second half: clip the gradients and move the weights."""
        if self.recorded:
            begin_momentum(self.optimizer)
        if self.scaler.is_enabled():
            self.scaler.unscale_(self.optimizer)
        self._clip()
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def grad_norm(self) -> Tensor:
        """Norm of the whole gradient of the last update, before clipping."""
        if self._known_norm is not None:
            return self._known_norm
        return torch.nn.utils.get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])

    def restore_grad_norm(self, norm: Tensor) -> None:
        """Let `grad_norm` return this until the next update; a checkpoint holds it in place of the gradients."""
        self._known_norm = norm.to(self.precision.device)

    def _split_until_it_fits(self, batches: list[Batch], samples: int) -> Update:
        while True:
            try:
                return self._accumulate((batch.copy() for batch in batches), samples)
            except RuntimeError as error:
                largest = min(self.piece_size, max(len(batch) for batch in batches))
                if not is_out_of_memory(error) or largest == 1:
                    raise
                self.piece_size = (largest + 1) // 2
                log.warning("out of memory: batches are split into parts of %d samples from here on", self.piece_size)
            if self.precision.device.type == "cuda":
                torch.cuda.empty_cache()

    def own_gradients(self) -> Gradients:
        """The gradients that the parameters have now, and their norm if clipping has computed it."""
        held = [(p, p.grad) for p in self.model.parameters() if p.grad is not None]
        return Gradients(held, self._known_norm)

    def adopt(self, gradients: Gradients) -> None:
        """Let the parameters have these gradients, as after the update that made them."""
        for parameter, gradient in gradients.held:
            parameter.grad = gradient
        self._known_norm = gradients.norm

    def _accumulate(self, batches: Iterable[Batch], samples: int) -> Update:
        self.optimizer.zero_grad(set_to_none=True)
        self._known_norm = None
        losses, errors = [], []
        for batch in batches:
            for piece in batch.pieces(self.piece_size):
                with self.precision.arithmetic():
                    logits = self.forward(self.model, piece.images)  # (batch, classes)
                    objective = self.objective(logits, piece, samples)
                self.scaler.scale(objective).backward()
                losses.append(objective.detach())
                errors.append((logits.detach().argmax(1) != piece.main_labels).sum())
        loss = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
        error_count = errors[0] if len(errors) == 1 else torch.stack(errors).sum()
        return Update(self.objective.per_sample(loss, samples), error_count)

    def _update_by_closure(self, batches: list[Batch], samples: int) -> Update:
        """For optimizers that evaluate the loss several times an update (LBFGS).

        Each evaluation sees the same dropout masks: a line search needs one and the same function.
        """
        device = self.precision.device
        masks = runtime.random_state(device)
        updates: list[Update] = []

        def closure() -> Tensor:
            runtime.set_random_state(masks, device)
            updates.append(self.gradients((batch.copy() for batch in batches), samples))
            self._clip()
            return updates[-1].loss * (samples if self.objective.reduction == "sum" else 1)

        self.optimizer.step(closure)  # type: ignore[arg-type]
        return updates[0]

    def _clip(self) -> None:
        if self.clip_grad_norm is not None:
            self._known_norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_grad_norm)

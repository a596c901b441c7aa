"""The plain loop: what one writes with PyTorch and nothing else, as in a lecture.

All pictures are float tensors in memory, NCHW, taken slice by slice; the loss is fetched after every update, and the
learning rate is constant. The model's class, its initial weights, the batch size, the optimizer and what is frozen at
the beginning are those of the config; all else in the config (precision, augmentation, EMA, schedule …) is left out.
"""

import contextlib
import time
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from deepexp import build, runtime
from deepexp.bench.contender import EpochResult
from deepexp.check import Plan
from deepexp.data.dataset import Dataset
from deepexp.data.memory import available_bytes
from deepexp.data.order import Bounds
from deepexp.data.source import Split
from deepexp.errors import InputError
from deepexp.optim.freeze import FreezePlan
from deepexp.runtime import synchronise
from deepexp.schema import TrainConfig


@contextlib.contextmanager
def opened(config: TrainConfig, plan: Plan) -> Iterator["Plain"]:
    """The plain loop, ready to start, with as many threads as a run would have."""
    torch.set_num_threads(runtime.number_of_threads(config.threads))
    yield Plain(config, plan)


class Plain:
    """A `Contender`."""

    name = "plain loop"

    def __init__(self, config: TrainConfig, plan: Plan) -> None:
        data = build.dataset(config, plan)
        check_memory(data, plan.device)
        self._device = plan.device
        self._train_images, self._train_labels = floats(data.train, data, plan.device)
        self._test_images, self._test_labels = floats(data.test, data, plan.device)
        self._updates = plan.updates
        self._next = 0  # index of the next update in the epoch
        self._model = build.model(config, plan.shape, len(data.classes), plan.device)
        for parameter in self._model.parameters():
            parameter.data = in_nchw(parameter.data)
        self._freeze = FreezePlan(self._model, build.freeze_rules(config, self._model), config.epochs)
        self._freeze.apply(0)
        self._optimizer = build.optimizer(config, self._model)

    def steps(self, count: int) -> float:
        """See `Contender`."""
        self._begin_training()
        synchronise(self._device)
        began = time.perf_counter()
        for _ in range(count):
            self._update()
        synchronise(self._device)
        return (time.perf_counter() - began) / count

    def epoch(self) -> EpochResult:
        """See `Contender`."""
        began = time.perf_counter()
        self._begin_training()
        self._next = 0
        for _ in self._updates:
            self._update()
        errors = self._test_errors()
        return EpochResult(time.perf_counter() - began, errors / len(self._test_labels))

    def _begin_training(self) -> None:
        self._model.train()
        self._freeze.eval_frozen()

    def _update(self) -> float:
        batches = self._updates[self._next]
        self._next = (self._next + 1) % len(self._updates)
        if isinstance(self._optimizer, torch.optim.LBFGS):
            return float(self._optimizer.step(lambda: self._gradients(batches)).item())
        loss = self._gradients(batches)
        self._optimizer.step()
        return loss.item()

    def _gradients(self, batches: list[Bounds]) -> Tensor:
        """Make the gradients of an update, and return the loss: of its last batch, where several are accumulated."""
        self._optimizer.zero_grad()
        for start, stop in batches:
            output = self._model(self._train_images[start:stop])
            loss = F.cross_entropy(output, self._train_labels[start:stop])
            (loss if len(batches) == 1 else loss / len(batches)).backward()
        return loss

    def _test_errors(self) -> int:
        self._model.eval()
        size = self._updates[0][0][1] - self._updates[0][0][0]
        errors = 0
        with torch.no_grad():
            for start in range(0, len(self._test_labels), size):
                predicted = self._model(self._test_images[start : start + size]).argmax(1)
                errors += int((predicted != self._test_labels[start : start + size]).sum().item())
        return errors


def in_nchw(tensor: Tensor) -> Tensor:
    """A copy with the strides of NCHW. `contiguous()` would leave those of NHWC where there is one channel only."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device).copy_(tensor)


def floats(split: Split, data: Dataset, device: torch.device) -> tuple[Tensor, Tensor]:
    """(normalised pictures (samples, channels, height, width) float32, labels (samples,)) of a whole split."""
    images = torch.empty(len(split), *split.shape)
    for chunk in torch.arange(len(split)).split(1000):
        images[chunk] = split.pictures(chunk).float()
    images.sub_(data.mean.view(-1, 1, 1)).div_(data.std.view(-1, 1, 1))
    return images.to(device), split.labels.to(device)


def check_memory(data: Dataset, device: torch.device) -> None:
    """`InputError` if the pictures do not fit as float32."""
    channels, height, width = data.shape
    needed = 4 * channels * height * width * (len(data.train) + len(data.test))
    available = available_bytes(device)
    if available is not None and needed > 0.8 * available:
        raise InputError(
            f"data: the plain loop keeps every picture as float32, {needed / 1e9:.1f} GB, and {available / 1e9:.1f} GB "
            f"are free; use a part of them, for example data.subset=1000"
        )

"""The bare loop: a run's own arithmetic and nothing else, to measure what deepexp adds to it.

Pictures as bytes in memory, gathered in a new order each epoch, normalised, channels_last, in the config's precision;
threads and memory set up as for a run. Nothing is logged, checked, saved, counted, or fetched from the device.
"""

import contextlib
import time
from collections.abc import Iterator

import torch
from torch.nn import functional as F

from deepexp import build
from deepexp.bench.contender import EpochResult, Unsuited
from deepexp.check import Plan
from deepexp.data.augment import Nothing
from deepexp.data.loader import make_loader
from deepexp.data.order import Bounds, batch_bounds
from deepexp.optim.freeze import FreezePlan
from deepexp.runtime import synchronise
from deepexp.schema import CROSS_ENTROPY, TrainConfig
from deepexp.step import Precision
from deepexp.training.evaluation import BATCH_SIZE as EVALUATION_BATCH


@contextlib.contextmanager
def opened(config: TrainConfig, plan: Plan) -> Iterator["Bare"]:
    """The bare loop, ready to start. Raises `Unsuited` for a config whose arithmetic is more than a plain update."""
    missing = next(_more_than_plain(config, plan), None)
    if missing is not None:
        raise Unsuited(f"it has no {missing}")
    with build.session(config, plan):
        yield Bare(config, plan)


def _more_than_plain(config: TrainConfig, plan: Plan) -> Iterator[str]:
    if not isinstance(build.augment(config), Nothing):
        yield "augmentation"
    for name in ("clip_grad_norm", "ema"):
        if getattr(config, name) is not None:
            yield name
    if any(len(update) > 1 for update in plan.updates):
        yield "updates of several batches"
    if config.precision == "fp16":
        yield "loss scaling"
    is_plain = config.loss.component.target == CROSS_ENTROPY and not config.label_smoothing
    if not is_plain or config.loss_reduction != "mean" or config.class_weights is not None:
        yield "other loss than the mean cross-entropy"


class Bare:
    """A `Contender`."""

    name = "bare loop"

    def __init__(self, config: TrainConfig, plan: Plan) -> None:
        data = build.dataset(config, plan)
        self._device = plan.device
        self._precision = Precision(plan.device, config.precision)
        self._train, self._test = (
            make_loader(split, data, plan.device, "resident") for split in (data.train, data.test)
        )
        self._train_samples, self._test_samples = len(data.train), len(data.test)
        self._bounds = [update[0] for update in plan.updates]
        self._model = build.model(config, plan.shape, len(data.classes), plan.device)
        self._freeze = FreezePlan(self._model, build.freeze_rules(config, self._model), config.epochs)
        self._freeze.apply(0)
        self._optimizer = build.optimizer(config, self._model, fused=True)
        if isinstance(self._optimizer, torch.optim.LBFGS):
            raise Unsuited("it has no line search")

    def steps(self, count: int) -> float:
        """See `Contender`."""
        self._begin_training()
        left = count
        synchronise(self._device)
        began = time.perf_counter()
        while left:
            left -= self._train_some(self._bounds[:left])
        synchronise(self._device)
        return (time.perf_counter() - began) / count

    def epoch(self) -> EpochResult:
        """See `Contender`."""
        began = time.perf_counter()
        self._begin_training()
        self._train_some(self._bounds)
        errors = self._test_errors()
        return EpochResult(time.perf_counter() - began, errors / self._test_samples)

    def _begin_training(self) -> None:
        self._model.train()
        self._freeze.eval_frozen()

    def _train_some(self, bounds: list[Bounds]) -> int:
        """Make an update on each of these batches of a new order; returns their number."""
        order = torch.randperm(self._train_samples)
        for images, labels in self._train.batches(order, bounds):
            self._optimizer.zero_grad()
            with self._precision.arithmetic():
                logits = self._model(images)  # (batch, classes)
                loss = F.cross_entropy(logits.float(), labels)
            loss.backward()
            self._optimizer.step()
        return len(bounds)

    def _test_errors(self) -> int:
        self._model.eval()
        order = torch.arange(self._test_samples)
        bounds = batch_bounds(self._test_samples, EVALUATION_BATCH)
        errors = []
        with torch.inference_mode(), self._precision.arithmetic():
            for images, labels in self._test.batches(order, bounds):
                errors.append((self._model(images).argmax(1) != labels).sum())
        return int(torch.stack(errors).sum().item())

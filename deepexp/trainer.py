"""The loop over epochs, and what a checkpoint has to hold so that a run can be resumed exactly from any update.

`Trainer.fit` is the loop; one update is in `step.py`, how good the model is in `training/evaluation.py`, what is
written in `runlog.py` and `checkpoint.py`. Nothing here chooses anything: the objects come from `build.py`.
"""

import contextlib
import dataclasses
import logging
import math
import operator
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from deepexp import checkpoint, runtime
from deepexp.data.loader import Loader
from deepexp.data.order import Bounds, epoch_order
from deepexp.errors import InputError, Interrupted, Paused, RunFailed
from deepexp.metrics import EpochMetrics
from deepexp.optim.finite import finite_numbers, is_finite
from deepexp.parts import Parts
from deepexp.runlog import RunLog
from deepexp.schema import TrainConfig
from deepexp.step import Update
from deepexp.text.units import counted, one_line
from deepexp.training.evaluation import Evaluation, Scores, evaluate
from deepexp.training.interrupt import StopRequest
from deepexp.training.memory import is_out_of_memory, out_of_memory
from deepexp.training.progress import Progress, Readings
from deepexp.user_code.own_parts import multiplier

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """The results of a finished run, with its final weights."""

    progress: Progress
    test: Evaluation
    val: Evaluation | None
    early: str | None  # the setting that ended it before all of its epochs


class _Stopped(Exception):
    """A signal asked for the end of the run while a split was being evaluated."""


class Trainer:
    """Trains `parts.model` as the config says; `load` puts it where an earlier run had got to."""

    def __init__(
        self,
        config: TrainConfig,
        parts: Parts,
        total_steps: int,
        log: RunLog,
        checkpoints: Path,
        stop: StopRequest,
        until: int | None = None,
    ) -> None:
        """`stop`: looked at after each update and each batch of an evaluation. `until`: the epoch to pause after."""
        self.config = config
        self.parts = parts
        self.log = log
        self.checkpoints = checkpoints
        self.progress = Progress()
        self.total_steps = total_steps
        self._device = parts.step.precision.device
        self._readings = Readings()
        self._stop = stop
        self._until = until
        self._last: tuple[Evaluation, Evaluation | None] | None = None  # of the present weights
        self._were_finite = sorted(finite_numbers(parts.model.state_dict()))  # before anything was learnt
        self._resumed_seconds = 0.0
        self._started = self._saved = time.perf_counter()

    def fit(self) -> Outcome:
        """Train to the end of the run.

        Raises `RunFailed` when it diverges, `Interrupted` when it was told to stop, `Paused` where it is to pause.
        """
        self._started = self._saved = time.perf_counter()
        if self.progress.step == 0:
            runtime.seed_generators(runtime.derive_seed(self.config.seed, "dropout"))
        self._put_back_best()
        reason = None if self._is_at_end_of_epoch() else self._why_finished()
        while reason is None:
            self._pause_if_due()
            self._train_epoch()
            if self._is_at_end_of_epoch():
                self._end_epoch()
            reason = self._why_finished()
        test, val = self._last or self._final_look()
        self.progress.elapsed_seconds = self._elapsed()
        return Outcome(self.progress, test, val, None if self.progress.epoch >= self.config.epochs else reason)

    def _is_at_end_of_epoch(self) -> bool:
        """Whether all updates of an epoch are made and it is still to be evaluated; a run may be stopped there."""
        return self.progress.update == len(self.parts.updates)

    def _why_finished(self) -> str | None:
        config, progress = self.config, self.progress
        if progress.epoch >= config.epochs:
            return f"{config.epochs} epochs"
        if (spent := self._spent_budget()) is not None:
            return spent
        waited = 0 if progress.best_epoch is None else (progress.val_epoch or 0) - progress.best_epoch
        if config.early_stop is not None and waited >= config.early_stop:
            return f"early_stop={config.early_stop}"
        return None

    def _pause_if_due(self) -> None:
        """Raise `Paused` between two epochs once `until` of them are trained; each was saved when it ended."""
        if self._until is not None and self.progress.epoch >= self._until:
            epochs = math.ceil(self.total_steps / len(self.parts.updates))  # max_steps may end it before the others
            raise Paused(f"paused after {self.progress.epoch} of {counted(epochs, 'epoch')}")

    def _spent_budget(self) -> str | None:
        """The setting whose updates or minutes are used up, which ends the run within an epoch too."""
        if self.config.max_steps is not None and self.progress.step >= self.config.max_steps:
            return f"max_steps={self.config.max_steps}"
        if self.config.max_minutes is not None and self._elapsed() >= 60 * self.config.max_minutes:
            return f"max_minutes={self.config.max_minutes}"
        return None

    def _train_epoch(self) -> None:
        """The updates of one epoch, or what is left of it."""
        progress, parts = self.progress, self.parts
        if progress.update == 0:
            progress.begin_epoch()
        parts.freeze.apply(progress.epoch)
        parts.model.train()
        parts.freeze.eval_frozen()
        parts.frozen_features.begin_epoch(progress.epoch)
        self._last = None
        clock = time.perf_counter()
        for make, samples in self._updates():
            parts.step.learning_rates.set(multiplier(parts.schedule, progress.step, self.total_steps))
            self._readings.add(self._one_update(make), samples)
            progress.step += 1
            progress.update += 1
            self.log.tick(progress.step, samples)
            clock = progress.train_until(time.perf_counter(), since=clock)
            if progress.update % self.config.log_every == 0:
                self._read()
            if self._stop.signal_number is not None:
                self._interrupt()
            if self._save_is_due():
                self._save()
            if self._spent_budget() is not None:
                if progress.update < len(parts.updates):
                    self._save()  # a longer run goes on from here, within the epoch and the logging interval
                break
        self._read()
        progress.train_until(time.perf_counter(), since=clock)

    def _one_update(self, make: Callable[[], Update]) -> Update:
        try:
            return make()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise RunFailed(f"{out_of_memory(self.config)} ({self._device}, step {self.progress.step + 1})") from error

    def _updates(self) -> Iterator[tuple[Callable[[], Update], int]]:
        """For each update that is left in this epoch: what makes it, and how many samples it has."""
        parts, seed, epoch = self.parts, self.config.seed, self.progress.epoch
        order = epoch_order(parts.train_samples, self.config.order, seed, epoch)
        draws = parts.augment.draw(parts.train_samples, parts.shape, runtime.generator(seed, "augment", epoch))
        return parts.update_maker.of_epoch(order, draws, parts.updates[self.progress.update :])

    def _read(self) -> None:
        """Fetch the latest losses, stop the run at the first that is not finite, and hand them to the log."""
        readings, progress = self._readings, self.progress
        if not readings.losses:
            return
        losses, errors = readings.read()
        first = progress.step - len(losses) + 1
        for step, loss in enumerate(losses, start=first):
            if not math.isfinite(loss):
                raise RunFailed(self._divergence(f"the loss is {loss} in step {step}"))
        progress.loss_sum += math.fsum(loss * count for loss, count in zip(losses, readings.samples, strict=True))
        progress.errors += errors
        progress.samples += sum(readings.samples)
        progress.samples_seen += sum(readings.samples)
        progress.grad_norm = self.parts.step.grad_norm().item()
        self.log.steps(
            first_step=first,
            losses=losses,
            lr=self.parts.step.learning_rates.first,
            grad_norm=progress.grad_norm,
            samples_per_second=progress.samples_per_second,
        )
        self._readings = Readings()

    def _divergence(self, what: str) -> str:
        is_kept = (self.checkpoints / checkpoint.LAST).exists()
        kept = "the checkpoint before it is kept" if is_kept else "nothing was saved yet"
        rate = self.parts.step.learning_rates.first
        remedy = f"Try a lower optim.lr (it was {rate:g}) or clip_grad_norm"
        return f"diverged: {what} (epoch {self.progress.present_epoch}); {kept}. {remedy}"

    def _end_epoch(self) -> None:
        """Evaluate, log and save at the end of a whole epoch."""
        progress = self.progress
        progress.epoch, progress.update = progress.epoch + 1, 0
        improved = False
        if self._is_evaluated_at(progress):
            try:
                _, val = self._look(self.log.epoch)
            except _Stopped:  # go back to just before the epoch's end, so that the resumed run evaluates as a whole
                progress.epoch, progress.update = progress.epoch - 1, len(self.parts.updates)
                self._interrupt()
            improved = val is not None and progress.note_validation(val, self.config.monitor)
        else:
            is_last = self._why_finished() is not None  # `_final_look` then has the rest
            (self.log.trained if is_last else self.log.epoch)(self._metrics(None, None, test_seconds=0.0))
        self._save(is_best=improved)

    def _is_evaluated_at(self, progress: Progress) -> bool:
        """Whether every run is evaluated at this point, and not only one that ends here."""
        return progress.update == 0 and progress.epoch % self.config.evaluate_every == 0

    def _final_look(self) -> tuple[Evaluation, Evaluation | None]:
        """Evaluate the weights that the run ends with; logged, unless they were when the epoch ended.

        `last.pt` does not hold what is learnt here: a longer run would not have been evaluated at this point.
        """
        self._read()  # a run that was cut off after its last save has losses left to read
        is_logged = self._is_evaluated_at(self.progress)
        log_look = self.log.epoch if self.progress.update != 0 else self.log.evaluated
        try:
            test, val = self._evaluate() if is_logged else self._look(log_look)
        except _Stopped:
            self._interrupt(save=False)
        if not is_logged and val is not None and self.progress.note_validation(val, self.config.monitor):
            checkpoint.save(
                self.checkpoints / checkpoint.BEST,
                self._content(),
                keep_previous=self.checkpoints / checkpoint.EARLIER_BEST,
            )
        return test, val

    def _put_back_best(self) -> None:
        """Before a run goes on: undo the `best.pt` of an evaluation that was made only because the run ended there."""
        best = self.checkpoints / checkpoint.BEST
        if self.progress.step == 0 or not best.exists():
            return
        try:
            found = Progress(**checkpoint.load(best)["progress"])
        except InputError as error:
            log.warning("%s; kept as %s.damaged, and there is no other until an epoch is better", error, best.name)
            checkpoint.set_aside(best)
            return
        if not self._is_evaluated_at(found) and found.best_epoch != self.progress.best_epoch:
            checkpoint.put_back_best(self.checkpoints, aside=f"best.step{found.step}.pt")

    def _look(self, log: Callable[[EpochMetrics], None]) -> tuple[Evaluation, Evaluation | None]:
        """Evaluate the present weights, and log that beside the training figures of the present or last epoch."""
        began = time.perf_counter()
        self._last = test, val = self._evaluate()
        log(self._metrics(test, val, test_seconds=time.perf_counter() - began))
        return test, val

    def _evaluate(self) -> tuple[Evaluation, Evaluation | None]:
        """(test, validation) of the weights as they are, or of their average where there is one.

        Raises `RunFailed` if a loss is not finite: finite weights can be so large that what is computed overflows.
        """
        parts = self.parts
        with parts.ema.averaged() if parts.ema is not None else contextlib.nullcontext():
            test = self._evaluate_split(parts.test, parts.test_samples)
            val = None if parts.val is None else self._evaluate_split(parts.val, parts.val_samples)
        for name, found in (("test", test), ("validation", val)):
            if found is not None and not math.isfinite(found.loss):
                raise RunFailed(self._divergence(f"the {name} loss is {found.loss} after step {self.progress.step}"))
        return test, val

    def _evaluate_split(self, loader: Loader, samples: int) -> Evaluation:
        step = self.parts.step
        return evaluate(step.model, loader, samples, step.precision, scorer=self._score)

    def _score(self, model: nn.Module, loader: Loader, order: Tensor, bounds: Sequence[Bounds]) -> Iterator[Scores]:
        """A `Scorer` that a signal ends after the present batch, with `_Stopped`."""
        for scores in self.parts.scorer(model, loader, order, bounds):
            if self._stop.signal_number is not None:
                raise _Stopped
            yield scores

    def _metrics(self, test: Evaluation | None, val: Evaluation | None, test_seconds: float) -> EpochMetrics:
        progress = self.progress
        return EpochMetrics(
            epoch=progress.present_epoch,
            step=progress.step,
            train_loss=progress.loss_sum / max(progress.samples, 1),
            train_error_rate=progress.errors / max(progress.samples, 1),
            test_loss=None if test is None else test.loss,
            test_errors=None if test is None else test.errors,
            test_error_rate=None if test is None else test.error_rate,
            val_loss=None if val is None else val.loss,
            val_error_rate=None if val is None else val.error_rate,
            lr=self.parts.step.learning_rates.first,
            grad_norm=progress.grad_norm,
            samples_per_second=progress.samples_per_second,
            train_seconds=progress.epoch_seconds,
            test_seconds=test_seconds,
            elapsed_seconds=self._elapsed(),
        )

    def _elapsed(self) -> float:
        return self._resumed_seconds + time.perf_counter() - self._started

    def _save_is_due(self) -> bool:
        every = self.config.checkpoint.every_minutes
        return every is not None and time.perf_counter() - self._saved >= 60 * every

    def _interrupt(self, *, save: bool = True) -> NoReturn:
        if save:
            self._save()
        number = self._stop.signal_number
        assert number is not None
        raise Interrupted(number, f"stopped by a signal after step {self.progress.step}; the run was saved")

    def _save(self, *, is_best: bool = False) -> None:
        """Write `last.pt`, unless weights that were finite no longer are, which ends the run.

        `best.pt` is written first. A run that is cut off between the two files goes on from the older `last.pt` and
        writes `best.pt` once more; the other way round, `last.pt` would tell of a best epoch that was never saved.
        """
        state = self.parts.model.state_dict()
        if not torch.stack([is_finite(state[name]) for name in self._were_finite if name in state]).all().item():
            raise RunFailed(self._divergence(f"weights are not finite after step {self.progress.step}"))
        self.log.flush(sync=True)
        content = self._content()
        if is_best:
            checkpoint.save(self.checkpoints / checkpoint.BEST, content)
        checkpoint.save(
            self.checkpoints / checkpoint.LAST, content, keep_previous=self.checkpoints / checkpoint.PREVIOUS
        )
        self._saved = time.perf_counter()

    def _content(self) -> dict[str, Any]:
        parts = self.parts
        self.progress.elapsed_seconds = self._elapsed()
        return {
            "model": parts.model.state_dict(),
            "shape": list(parts.shape),
            "classes": len(parts.pictures.classes),
            "pictures": parts.pictures.state_dict(),
            "identity": parts.identity.state_dict(),
            "optimizer": parts.step.learning_rates.optimizer_state(),
            "scaler": parts.step.scaler.state_dict(),
            "ema": None if parts.ema is None else parts.ema.state_dict(),
            "random": runtime.random_state(self._device),
            "progress": dataclasses.asdict(self.progress),
            "piece_size": parts.step.piece_size,
            "readings": self._readings.state_dict(),
            "grad_norm": parts.step.grad_norm().cpu(),  # of the last update, whose gradients are not kept
            "logs": self.log.offsets(),
        }

    def load(self, content: dict[str, Any]) -> None:
        """Put everything where it was when `content` was saved; `InputError` if it is of another run."""
        try:
            self._load(content)
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            reason = one_line(f"{type(error).__name__}: {error}")
            raise InputError(f"{self.checkpoints}: the checkpoint does not fit the config ({reason})") from error
        self.log.cut_back(content["logs"])

    def _load(self, content: dict[str, Any]) -> None:
        parts = self.parts
        self.progress = Progress(**content["progress"])
        self._resumed_seconds = self.progress.elapsed_seconds
        parts.model.load_state_dict(content["model"])
        parts.step.learning_rates.load_optimizer_state(content["optimizer"])
        parts.step.scaler.load_state_dict(content["scaler"])
        parts.step.piece_size = operator.index(content["piece_size"])
        parts.step.restore_grad_norm(content["grad_norm"])
        self._readings = Readings.of(content["readings"], self._device)
        if parts.ema is not None:
            parts.ema.load_state_dict(content["ema"])
        runtime.set_random_state(content["random"], self._device)

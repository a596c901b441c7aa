"""Everything that a run writes while it trains; the trainer writes through this alone.

Figures go to `metrics.jsonl`, to TensorBoard and to the console; the result to
`summary.json` and `predictions.npz`; the log and all warnings, to `run.log`.
"""

import contextlib
import dataclasses
import io
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from deepexp.disk.json_file import FORMAT, plain
from deepexp.disk.storage import AppendFile, check_length, write_atomically
from deepexp.errors import RunFailed
from deepexp.metrics import EpochMetrics, Summary, confusion_matrix
from deepexp.run import event_format, pictures
from deepexp.run.events import EventFile, HParam, model_graph
from deepexp.run.rundir import RunDirectory, Status
from deepexp.text.console import Console, Header, Horizon

log = logging.getLogger(__name__)

_FILTERS_SHOWN = 256
_TRAINING = {"train/epoch_loss": "train_loss", "train/error_rate": "train_error_rate"}
"""Curve of TensorBoard → figure of an epoch; `_EVALUATION` likewise."""
_EVALUATION = {
    "test/loss": "test_loss",
    "test/error_rate": "test_error_rate",
    "test/errors": "test_errors",
    "val/loss": "val_loss",
    "val/error_rate": "val_error_rate",
}


@dataclass(frozen=True)
class Description:
    """What is written once at the beginning of a run, to be looked at in TensorBoard.

    `config`: composed YAML. `hparams`: the values to compare runs by, by their config keys.
    `example`: a batch as the model takes it, on its device (batch, channels, height, width).
    `images`: training samples as uint8 (samples, channels, height, width), with their `labels`
    (samples,) and the names of all `classes`.
    """

    config: str
    hparams: Mapping[str, HParam]
    model: nn.Module
    example: Tensor
    images: Tensor
    labels: Tensor
    classes: Sequence[str]
    epoch: int = 0
    """The epoch after which the model has these weights."""


def check_lengths(run: RunDirectory, offsets: Mapping[str, int]) -> None:
    """Raise `InputError` if a file is shorter than `RunLog.offsets` said when a checkpoint was written."""
    event_file = event_format.present(run.path) or run.path / "events.out.tfevents"
    for name, path in {"metrics.jsonl": run.path / "metrics.jsonl", "events": event_file}.items():
        check_length(path, path.stat().st_size if path.exists() else 0, offsets.get(name, 0))


class RunLog:
    """Writes into a run directory that this process holds the lock of.

    Once a disk refuses, the methods raise `RunFailed` naming file and space.
    """

    def __init__(self, run: RunDirectory, console: Console) -> None:
        self._run = run
        self._console = console
        self._logdir = run.path.parent.parent  # what to open in TensorBoard: all runs beside this one's experiment
        with contextlib.ExitStack() as opened:  # which closes what is open when another file fails
            self._metrics = AppendFile(run.path / "metrics.jsonl")
            opened.callback(self._metrics.close)
            self._events = EventFile(run.path)
            opened.callback(self._events.close)
            # Last, since it changes the loggers: if another file failed after it, they would not be restored.
            self._log_file = _LogFile(run.path / "run.log", console)
            opened.pop_all()

    def note(self, said: Sequence[logging.LogRecord]) -> None:
        """Write into `run.log` what was logged before it was open."""
        for record in said:
            self._log_file.handle(record)

    def start(self, header: Header, horizon: Horizon, *, has_validation: bool) -> None:
        """Show what is trained or resumed, and start the progress bar."""
        for name, value in header.rows().items():
            log.info("%s: %s", name, value)
        if horizon.step:
            log.info("going on after step %d", horizon.step)
        self._console.header(header)
        self._console.begin(horizon, has_validation=has_validation)

    def describe(self, description: Description) -> None:
        """Fill TensorBoard's pages of a new run, or of one that lost them: text, graph, images, hyper-parameters."""
        self._events.hparams(description.hparams)
        self._events.text("config", f"```yaml\n{description.config}\n```")
        grid = pictures.sample_grid(description.images, description.labels, description.classes)
        self._events.image("visuals/train_samples", grid, 0)
        self._draw_filters(description.model, description.epoch)
        try:
            self._events.graph(model_graph(description.model, description.example))
        except Exception as error:  # a model of the user's own may do what cannot be traced
            log.info("no graph of the model in TensorBoard: %s", error)
        self._events.flush()

    def tick(self, step: int, samples: int) -> None:
        """After each update, of `samples` samples: moves the progress bar, and is nearly free."""
        self._console.tick(step, samples)

    def steps(
        self,
        first_step: int,
        losses: Sequence[float],
        lr: float,
        grad_norm: float,
        samples_per_second: float,
    ) -> None:
        """The losses of consecutive updates, counted from 1, and how things stand at the last."""
        self._events.curve("train/loss", losses, first_step)
        rest = {
            "train/lr": lr,
            "train/grad_norm": grad_norm,
            "speed/samples_per_second": samples_per_second,
        }
        self._events.scalars(rest, first_step + len(losses) - 1)
        self._events.flush()
        self._console.reading(losses[-1], samples_per_second)

    def epoch(self, metrics: EpochMetrics) -> None:
        """An epoch has ended; it gets a line in `metrics.jsonl` if it was evaluated.

        In TensorBoard its figures stand above the epoch, not the update, so that runs with
        different batch sizes can be compared.
        """
        self.trained(metrics)
        self.evaluated(metrics)

    def trained(self, metrics: EpochMetrics) -> None:
        """Write the training figures of an epoch to TensorBoard; `evaluated` writes the rest."""
        self._events.scalars(_known(metrics, _TRAINING), metrics.epoch)

    def evaluated(self, metrics: EpochMetrics) -> None:
        """The rest of what `epoch` writes, and the epoch's line on the console."""
        if metrics.test_loss is not None:
            line = json.dumps(plain({"format": FORMAT, **dataclasses.asdict(metrics)}))
            self._metrics.write(line.encode() + b"\n")
            self._events.scalars(_known(metrics, _EVALUATION), metrics.epoch)
        self._events.flush()
        self._console.epoch(metrics)
        figures = ", ".join(f"{tag} {value:.6g}" for tag, value in _known(metrics, _TRAINING | _EVALUATION).items())
        log.info("epoch %d, step %d: %s", metrics.epoch, metrics.step, figures)

    def finish(
        self,
        summary: Summary,
        *,
        early: str | None,
        model: nn.Module,
        predicted: Tensor,
        target: Tensor,
        classes: Sequence[str],
    ) -> None:
        """The run is done: write its results, the summary last.

        `early`: the setting that ended it before all of its epochs. `predicted`, `target`: classes of the test samples
        (samples,), in the data set's order.
        """
        matrix = confusion_matrix(predicted.cpu().numpy(), target.cpu().numpy(), len(classes))
        picture = pictures.draw_confusion_matrix(torch.from_numpy(matrix), classes)
        self._events.image("visuals/test_confusion_matrix", picture, summary.epochs)
        self._draw_filters(model, summary.epochs)
        self._events.hparams_end(success=True)
        self._write_predictions(predicted, target, len(classes))
        self.flush(sync=True)
        self._run.write_json("summary.json", dataclasses.asdict(summary))
        self._run.set_status("done", early)
        self._console.finish(summary, early, self._run.path, self._logdir)
        ended = f", ended by {early}" if early else ""
        log.info("done: %d of %d test samples wrong%s", summary.test_errors, summary.test_samples, ended)

    def stopped(self, status: Status, reason: str) -> None:
        """The run has ended before its time, with `status` other than `done`."""
        can_go_on = any(self._run.checkpoints.glob("*.pt"))
        self._console.stopped(reason, self._run.path, can_go_on=can_go_on)
        try:
            self._run.set_status(status, reason)  # first, should there be room for one thing only
            log.info("%s: %s", status, reason)
            self._events.hparams_end(success=False)
            self._events.flush()
        except RunFailed as error:  # often the same full disk that ended the run
            self._console.warn(str(error))

    def flush(self, *, sync: bool = False) -> None:
        """Hand everything to the system; with `sync`, to the disk, as before a checkpoint."""
        self._events.flush(sync=sync)
        if sync:
            self._metrics.sync()

    def offsets(self) -> dict[str, int]:
        """How long the files are that a resumed run cuts back.

        `run.log` is not among them: what happened after the checkpoint, and why the run ended, is
        what one will want to read there.
        """
        return {"metrics.jsonl": self._metrics.offset(), "events": self._events.offset()}

    def cut_back(self, offsets: Mapping[str, int]) -> None:
        """Forget what was written after `offsets` was taken; a file not named is emptied."""
        self._metrics.cut_back(offsets.get("metrics.jsonl", 0))
        self._events.cut_back(offsets.get("events", 0))

    def close(self) -> None:
        """Close the files and restore the loggers; the run's lock is the caller's."""
        with contextlib.ExitStack() as stack:  # which closes all, even if one cannot be written
            stack.callback(self._log_file.close)
            stack.callback(self._metrics.close)
            stack.callback(self._events.close)

    def _draw_filters(self, model: nn.Module, epoch: int) -> None:
        filters = pictures.first_filters(model)
        if filters is not None:
            grid = pictures.filter_grid(filters[:_FILTERS_SHOWN])
            self._events.image("visuals/first_layer", grid, epoch)

    def _write_predictions(self, predicted: Tensor, target: Tensor, classes: int) -> None:
        small = np.min_scalar_type(classes - 1)  # uint8 for up to 256 classes
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            format=np.array(FORMAT),
            predicted=predicted.cpu().numpy().astype(small),
            target=target.cpu().numpy().astype(small),
        )
        write_atomically(self._run.path / "predictions.npz", buffer.getvalue())


def _known(metrics: EpochMetrics, figures: Mapping[str, str]) -> dict[str, float]:
    """Curve → value, for the figures that are known."""
    values = {tag: getattr(metrics, name) for tag, name in figures.items()}
    return {tag: value for tag, value in values.items() if value is not None}


@contextlib.contextmanager
def heard_early() -> Iterator[list[logging.LogRecord]]:
    """The log records of deepexp within the block, for a run whose log is not open yet."""
    heard = _Listener()
    deepexp = logging.getLogger("deepexp")
    deepexp.addHandler(heard)
    try:
        yield heard.records
    finally:
        deepexp.removeHandler(heard)


class _Listener(logging.Handler):
    """Keeps log records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


class _LogFile(logging.Handler):
    """`run.log`: what deepexp's loggers say while it is open, and Python's warnings."""

    _LOGGERS = ("deepexp", "py.warnings")

    def __init__(self, path: Path, console: Console) -> None:
        super().__init__(level=logging.INFO)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self._file = AppendFile(path)
        self._is_full = False
        self._console_handler = console.handler
        deepexp, python = map(logging.getLogger, self._LOGGERS)
        self._level_before = deepexp.level
        deepexp.setLevel(logging.INFO)
        deepexp.addHandler(self)
        python.addHandler(self)
        python.addHandler(console.handler)
        logging.captureWarnings(True)

    def emit(self, record: logging.LogRecord) -> None:
        """Append a line; the first failure to do so is raised, for it ends the run."""
        if self._is_full:
            return
        try:
            self._file.write(self.format(record).rstrip().encode(errors="backslashreplace") + b"\n")
        except Exception:
            self._is_full = True
            raise

    def close(self) -> None:
        """Put the loggers back as they were, and close the file."""
        deepexp, python = map(logging.getLogger, self._LOGGERS)
        logging.captureWarnings(False)
        python.removeHandler(self._console_handler)
        python.removeHandler(self)
        deepexp.removeHandler(self)
        deepexp.setLevel(self._level_before)
        self._file.close()
        super().close()

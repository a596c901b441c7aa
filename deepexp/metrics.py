"""The figures that a run is judged by: after each epoch, and at its end; and others, computed from its answers.

The fields of the dataclasses, in their order, are the keys in `metrics.jsonl` and `summary.json`. Rates are fractions,
losses are means over samples, times are in seconds.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class EpochMetrics:
    """The results of one epoch. Null: no validation set, or no evaluation after this epoch."""

    epoch: int  # from 1
    step: int  # updates made in all
    train_loss: float
    train_error_rate: float | None  # mixed pictures count as of the class with the larger share
    test_loss: float | None
    test_errors: int | None
    test_error_rate: float | None
    val_loss: float | None
    val_error_rate: float | None
    lr: float
    grad_norm: float | None
    samples_per_second: float
    train_seconds: float  # of this epoch
    test_seconds: float  # of this epoch
    elapsed_seconds: float  # of the run


@dataclass(frozen=True)
class Summary:
    """The results of a run, with its final weights."""

    status: str
    model: str
    data: str
    optim: str
    seed: int
    epochs: int
    steps: int
    test_errors: int
    test_samples: int
    test_error_rate: float
    test_loss: float
    val_error_rate: float | None
    best_epoch: int | None
    train_seconds: float
    total_seconds: float
    samples_per_second: float
    device: str
    precision: str
    pretrained: str | None  # `imagenet`, a path, `random`, or null
    parameters: int


_AS_IN_CONFIG = ("model", "data", "optim", "seed", "precision")
"""Fields of `Summary` that only repeat what was set."""


def titles(figures: Collection[str], settings: Collection[str]) -> dict[str, str]:
    """Figure → the title of its column in a table that has a column for each of `settings`.

    A figure with the name of a setting is called `epochs_done`, or has no column if it only repeats the setting.
    """
    beside = [name for name in figures if name not in settings or name not in _AS_IN_CONFIG]
    return {name: f"{name}_done" if name in settings else name for name in beside}


def confusion_matrix(predicted: "np.ndarray", target: "np.ndarray", classes: int) -> "np.ndarray":
    """How many samples of each class (row) were taken for which (column): (classes, classes) int64.

    `predicted`, `target`: (samples,) whole numbers of any type, below `classes`.
    """
    import numpy as np

    cells = target.astype(np.int64) * classes + predicted.astype(np.int64)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def balanced_error_rate(cells: "np.ndarray") -> float:
    """The mean of the error rates of the classes that occur, out of a `confusion_matrix`: 1 − balanced accuracy."""
    samples = cells.sum(1)
    occurs = samples > 0
    return float(1 - (cells.diagonal()[occurs] / samples[occurs]).mean())


def top_error_rate(probabilities: "np.ndarray", target: "np.ndarray", count: int) -> float:
    """The share of samples whose class is not among the `count` most probable ones; of equal ones the first count.

    `probabilities`: (samples, classes); `target`: (samples,) whole numbers.
    """
    import numpy as np

    ranked = np.argsort(-probabilities, axis=1, kind="stable")[:, :count]
    return float(1 - (ranked == target[:, None]).any(1).mean())


def calibration_error(probabilities: "np.ndarray", target: "np.ndarray", bins: int = 15) -> float:
    """How far the highest probabilities are from the rates at which they are right, averaged over the samples.

    The expected calibration error (Guo et al. 2017, equation 3): samples are put into `bins` of equal width, (0, 1/15],
    (1/15, 2/15] and so on, by the probability of the class that they are taken for.

    `probabilities`: (samples, classes); `target`: (samples,) whole numbers. NaN if one of the probabilities is.
    """
    import numpy as np

    surest = probabilities.max(1).astype(np.float64)
    if np.isnan(surest).any():
        return math.nan
    is_right = probabilities.argmax(1) == target
    place = np.clip(np.ceil(surest * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(place, surest - is_right, minlength=bins)  # of each bin: (confidence − accuracy) × samples
    return float(np.abs(gaps).sum() / len(target))

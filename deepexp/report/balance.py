"""How the errors of a run are spread over the classes of its test set, which may differ in size."""

from dataclasses import dataclass

import numpy as np

_VERY_DIFFERENT = 2  # times as many samples


@dataclass(frozen=True)
class Balance:
    """What is known of the classes; nothing, if the predictions cannot be had."""

    error_rate: float | None = None
    """The mean of the classes' error rates."""
    is_uneven: bool = False
    """Whether one class of the test set has more than twice the samples of another."""


def balance_of(predicted: np.ndarray, target: np.ndarray) -> Balance:
    """The balance of predictions and true classes, each (samples,) of any integers, as a file may be damaged."""
    if not len(target):
        return Balance()
    _, place = np.unique(target, return_inverse=True)  # (samples,), of each one's class among those that occur
    samples, errors = np.bincount(place), np.bincount(place, predicted != target)
    return Balance(float((errors / samples).mean()), bool(samples.max() > _VERY_DIFFERENT * samples.min()))

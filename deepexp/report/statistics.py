"""The intervals and tests that a report uses, of numbers alone; which numbers are compared is decided elsewhere.

SciPy's special functions give the distributions: `scipy.stats` has these tests too, but takes half a second to import.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

_CONFIDENCE = 0.95  # of every interval


def wilson_interval(errors: int, samples: int) -> tuple[float, float]:
    """The score interval of an error rate, as fractions (Wilson 1927, JASA 22: 209–212).

    Unlike the usual ± it has a width at zero errors, and stays within 0 and 1.
    """
    if not 0 <= errors <= samples or samples == 0:
        raise ValueError(f"errors: must be 0 to samples={samples}, and samples above 0, not {errors}")
    z = statistics.NormalDist().inv_cdf(0.5 + _CONFIDENCE / 2)
    rate = errors / samples
    shrink = 1 + z**2 / samples
    centre = (rate + z**2 / (2 * samples)) / shrink
    half = z / shrink * math.sqrt(rate * (1 - rate) / samples + z**2 / (4 * samples**2))
    # At the ends the limit is exact, and rounding must not leave it.
    return (0.0 if errors == 0 else centre - half), (1.0 if errors == samples else centre + half)


def mcnemar(only_first_wrong: int, only_second_wrong: int) -> float:
    """Two-sided p value of "two classifiers err equally often", from the samples on which just one of them is wrong.

    Exact: under this hypothesis each of these samples is a fair coin (McNemar 1947, Psychometrika 12: 153–157).
    """
    if min(only_first_wrong, only_second_wrong) < 0:
        raise ValueError(f"only_first_wrong, only_second_wrong: {only_first_wrong}, {only_second_wrong} are no counts")
    tosses = only_first_wrong + only_second_wrong
    return min(1.0, 2 * float(special.bdtr(min(only_first_wrong, only_second_wrong), tosses, 0.5)))


@dataclass(frozen=True)
class MeanDifference:
    """A mean difference (second minus first), its interval, and the p value of "it is zero"."""

    mean: float
    low: float
    high: float
    p: float


def paired_t(first: Sequence[float], second: Sequence[float]) -> MeanDifference | None:
    """The paired t test and interval (Student 1908, Biometrika 6: 1–25).

    None where it can say nothing: with fewer than two pairs, or where all differences are equal but not zero, so that
    they have no spread. Where all are zero, p is 1.
    """
    differences = [b - a for a, b in zip(first, second, strict=True)]
    pairs = len(differences)
    if pairs < 2:
        return None
    standard_error = statistics.stdev(differences) / math.sqrt(pairs)
    return _t_test(statistics.fmean(differences), standard_error, pairs - 1, [*first, *second])


def welch_t(first: Sequence[float], second: Sequence[float]) -> MeanDifference | None:
    """The t test and interval of two samples that are no pairs, of any variances (Welch 1947, Biometrika 34: 28–35).

    None where it can say nothing: with fewer than two values in one of them, or where neither has a spread and their
    values differ. Where all values are equal, p is 1.
    """
    if min(len(first), len(second)) < 2:
        return None
    parts = [statistics.variance(values) / len(values) for values in (first, second)]  # variances of the means
    weights = sum(part**2 / (len(values) - 1) for part, values in zip(parts, (first, second), strict=True))
    freedom = sum(parts) ** 2 / weights if weights > 0 else 1.0
    mean = statistics.fmean(second) - statistics.fmean(first)
    return _t_test(mean, math.sqrt(sum(parts)), freedom, [*first, *second])


def _t_test(mean: float, standard_error: float, freedom: float, values: Sequence[float]) -> MeanDifference | None:
    # Equal differences of rates come out unequal in their last digits, which would pass for a tiny spread.
    rounding = 1e-9 * max(map(abs, values))
    if standard_error <= rounding:
        return MeanDifference(0.0, 0.0, 0.0, 1.0) if abs(mean) <= rounding else None
    half = float(special.stdtrit(freedom, 0.5 + _CONFIDENCE / 2)) * standard_error
    p = 2 * float(special.stdtr(freedom, -abs(mean) / standard_error))
    return MeanDifference(mean, mean - half, mean + half, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p values for their number, in the order given (Holm 1979, Scand. J. Statist. 6: 65–70).

    Rejecting those below 0.05 makes a false claim in at most 5 % of reports, however the tests depend on each other.
    """
    values = np.asarray(p_values, dtype=float)
    order = np.argsort(values, kind="stable")
    factors = np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(values[order] * factors), 1.0)
    return [float(value) for value in adjusted]

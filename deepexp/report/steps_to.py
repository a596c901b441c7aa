"""How soon each group reaches the best accuracy of a baseline, as in figure 3 of Ioffe and Szegedy (2015).

Accuracies here are the best of all evaluations on the test set, as there: they compare speeds, and are no estimates of
the error on new pictures. Runs without a result are left out, as are those that have lost measurements: it is not known
when they first reached an accuracy.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deepexp.report.comparison import Predictions
from deepexp.report.runs import Run
from deepexp.report.variation import Group
from deepexp.text.text_table import Table
from deepexp.text.units import duration, percent

_ROUNDING = 1e-9
"""Less than one test sample of any set: a mean of equal accuracies can be higher than each, in its last digit."""


@dataclass(frozen=True)
class Reach:
    """What a group needs to reach the baseline's best test accuracy, and the best that it reaches itself."""

    label: str
    runs: int
    reached: int
    """Runs that get there at all; the three figures are medians over these, None where there are none."""
    steps: float | None
    epochs: float | None
    seconds: float | None
    best_accuracy: float
    """The mean over the runs of the best accuracy of each, a fraction."""
    spread: float | None
    """Its standard deviation; None for one run."""


@dataclass(frozen=True)
class StepsTo:
    """The table, for a baseline."""

    baseline: str
    accuracy: float
    """The baseline's best, the mean over its seeds; a run has to reach that of the baseline under the same seed."""
    rows: Sequence[Reach]
    left_out: Sequence[str] = ()
    """Why groups with results are not in the table, a sentence each."""
    seeds: int = 1
    """The number of seeds of the baseline's runs."""

    def aim(self) -> str:
        """What is to be reached, in words."""
        if self.seeds == 1:
            return f"the best test accuracy of {self.baseline} ({percent(self.accuracy)})"
        return (
            f"the best test accuracy of {self.baseline} under the same seed (the mean, {percent(self.accuracy)}, for a "
            "seed that it lacks)"
        )

    def table(self) -> Table:
        """As shown; `-` where the baseline's best is never reached."""
        columns = {
            "": [row.label for row in self.rows],
            "steps": [number(row.steps) for row in self.rows],
            "epochs": [number(row.epochs) for row in self.rows],
            "time": ["-" if row.seconds is None else duration(row.seconds) for row in self.rows],
            "runs that get there": [f"{row.reached} of {row.runs}" for row in self.rows],
            "best accuracy": [_accuracy(row) for row in self.rows],
        }
        caption = (
            f"Until {self.aim()} is first reached, seen at the evaluations; medians over the runs that get there, of "
            "those with a result. Best accuracy: of all evaluations, on the test set."
        )
        caption = " ".join([caption, *self.left_out])
        return Table.of_columns(columns, left={""}, caption=caption)


def steps_to(groups: Sequence[Group], baseline: Group, predictions: Predictions) -> StepsTo | None:
    """How soon each group reaches the best of `baseline`; None if that has no result, or was never evaluated."""
    bests: dict[object, list[float]] = {}
    for run in baseline.done:
        if (best := _best(run)) is not None:
            bests.setdefault(run.seed, []).append(best)
    if not bests:
        return None
    by_seed = {seed: statistics.fmean(values) for seed, values in bests.items()}
    aim = statistics.fmean(by_seed.values())
    rows: list[Reach] = []
    left_out: dict[str, list[str]] = {}
    for group in groups:
        if (row := _reach(group, by_seed, aim)) is None:
            if any(run.has_lost_metrics for run in group.done):
                left_out.setdefault("what they had measured at first is lost", []).append(group.label)
            continue
        why = None if group is baseline else predictions.why_not_comparable(baseline, group)
        if why is None:
            rows.append(row)
        else:
            left_out.setdefault(why, []).append(group.label)
    sentences = [f"Left out: {'; '.join(labels)}: {why}." for why, labels in left_out.items()]
    return StepsTo(baseline.label, aim, rows, sentences, len(by_seed))


def _reach(group: Group, by_seed: Mapping[object, float], aim: float) -> Reach | None:
    runs = [(run, best) for run in group.done if (best := _best(run)) is not None]
    if not runs:
        return None
    first = [line for run, _ in runs if (line := _first_at(run, by_seed.get(run.seed, aim))) is not None]
    bests = [best for _, best in runs]
    return Reach(
        label=group.label,
        runs=len(runs),
        reached=len(first),
        steps=_median([line["step"] for line in first]),
        epochs=_median([line["epoch"] for line in first]),
        seconds=_median([line["elapsed_seconds"] for line in first]),
        best_accuracy=statistics.fmean(bests),
        spread=statistics.stdev(bests) if len(bests) > 1 else None,
    )


def _best(run: Run) -> float | None:
    """The highest test accuracy of a run, a fraction; None if it was never evaluated, or has lost measurements."""
    if run.has_lost_metrics:
        return None
    return max((1 - line["test_error_rate"] for line in _evaluations(run)), default=None)


def _first_at(run: Run, accuracy: float) -> Mapping[str, Any] | None:
    aim = accuracy - _ROUNDING
    return next((line for line in _evaluations(run) if 1 - line["test_error_rate"] >= aim), None)


def _evaluations(run: Run) -> list[Mapping[str, Any]]:
    return [line for line in run.metrics if line["test_error_rate"] is not None]


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def number(value: float | None) -> str:
    """A median of whole numbers, as the table and the plot have it."""
    return "-" if value is None else f"{value:,.1f}".removesuffix(".0")


def _accuracy(row: Reach) -> str:
    return (
        percent(row.best_accuracy) if row.spread is None else f"{100 * row.best_accuracy:.2f} ± {100 * row.spread:.2f}%"
    )

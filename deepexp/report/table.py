"""The tables of a report: a row for each run, a row for each group of seeds, and the file with every figure."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

from deepexp.metrics import Summary, titles
from deepexp.report.comparison import best_by_validation, share_data
from deepexp.report.runs import AT_BEST, BALANCED, DONE, FAILED, PAUSED, Run
from deepexp.report.statistics import wilson_interval
from deepexp.report.variation import SEED, Group, text, value_of, varies
from deepexp.text.text_table import Table, as_csv
from deepexp.text.units import duration, mean_percent, percent

VALIDATION, TEST, INTERVAL = "val error", "test error", "95% interval"
BALANCED_TEST = "balanced error"
BEST_EPOCH, TEST_AT_BEST = "best epoch", "test at best"
_EXPENDABLE = (
    *("parameters", "precision", "device", "test loss", "steps", "samples/s", "epochs", "epochs done", "train time"),
    *(BEST_EPOCH, INTERVAL, "errors", TEST_AT_BEST),
)
_MOST_EQUALS = 4  # groups named beside the best one

_OVER_SEEDS = (
    *("val_error_rate", "test_error_rate", BALANCED, AT_BEST, "test_errors", "test_loss"),
    *("epochs", "steps", "train_seconds", "total_seconds", "samples_per_second"),
)
"""The figures whose means are in `groups.csv`."""

_FIGURES = [field.name for field in dataclasses.fields(Summary) if field.name not in ("status", "seed")]


def ordered(runs: Sequence[Run]) -> list[Run]:
    """By validation error where every run with a result has one; else as they come. Without a result: last.

    Never by test error: that of a setting which was chosen by it looks better than it is.
    """
    errors = [run.figure("val_error_rate") for run in runs if run.status == DONE]
    if None in errors:
        return sorted(runs, key=lambda run: run.status != DONE)
    return sorted(runs, key=lambda run: (run.status != DONE, run.figure("val_error_rate") or 0.0))


def ordered_groups(groups: Sequence[Group]) -> list[Group]:
    """As `ordered`, for groups, by their means."""
    if best_by_validation(groups) is None:
        return sorted(groups, key=lambda group: not group.done)
    return sorted(groups, key=lambda group: group.mean_or("val_error_rate", math.inf))


def expendable(keys: Sequence[str]) -> list[str]:
    """Columns of the tables to leave out on a narrow terminal, in this order; none of `keys`, which vary."""
    return [title for title in _EXPENDABLE if title not in keys]


def run_table(runs: Sequence[Run], keys: Sequence[str]) -> Table:
    """A row for each run; `keys` vary. What is the same for all runs (the device, the precision) has no column."""
    columns: dict[str, list[str]] = {key: [text(value_of(run, key)) for run in runs] for key in keys}
    left = {*keys, "status", "pretrained", "device", "precision"}
    if varies(runs, SEED):
        columns[SEED] = [text(run.seed) for run in runs]
    if not columns:
        columns["run"] = [run.name for run in runs]
        left.add("run")
    shown: dict[str, Callable[[Any], str]] = {
        VALIDATION: percent,
        TEST: percent,
        INTERVAL: str,
        "errors": str,
        BALANCED_TEST: percent,
        BEST_EPOCH: "{:,}".format,
        TEST_AT_BEST: percent,
        "test loss": "{:.4f}".format,
        "epochs": "{:,}".format,
        "steps": "{:,}".format,
        "train time": duration,
        "samples/s": "{:,.0f}".format,
        "parameters": "{:,}".format,
        "device": str,
        "precision": str,
        "pretrained": str,
    }
    for name, title in titles(shown, keys).items():
        values = [_shown(run, name) for run in runs]
        settings = [value_of(run, name) for run in runs] if name in keys else []
        if name in (BEST_EPOCH, TEST_AT_BEST) and not any(map(has_earlier_best, runs)):
            continue
        if name == BALANCED_TEST and not any(run.balance.is_uneven for run in runs):
            continue
        if _has_column(name, values, settings):
            columns[title.replace("_", " ")] = ["-" if value is None else shown[name](value) for value in values]
    columns["status"] = [run.status.upper() if run.status == FAILED else run.status for run in runs]
    return Table.of_columns(columns, left, caption="Runs")


def group_table(groups: Sequence[Group], keys: Sequence[str]) -> Table | None:
    """A row for each group: means ± standard deviations over its seeds; None where none has more than one run."""
    if all(len(group.runs) < 2 for group in groups):
        return None
    columns = {key: [text(group.values[key]) for group in groups] for key in keys}
    left = set(keys)
    if not columns:
        columns[""], left = [group.label for group in groups], {""}
    if any(group.by_seed("val_error_rate") for group in groups):
        columns[VALIDATION] = [_spread(group, "val_error_rate") for group in groups]
    columns[TEST] = [_spread(group, "test_error_rate") for group in groups]
    if any(run.balance.is_uneven for group in groups for run in group.runs):
        columns[BALANCED_TEST] = [_spread(group, BALANCED) for group in groups]
    if any(has_earlier_best(run) for group in groups for run in group.runs):
        columns[TEST_AT_BEST] = [_spread(group, AT_BEST) for group in groups]
    columns["seeds"] = [_seeds(group) for group in groups]
    columns["errors"] = [_mean_errors(group) for group in groups]
    columns["steps"] = [_mean(group, "steps", "{:,.0f}".format) for group in groups]
    columns["train time"] = [_mean(group, "train_seconds", duration) for group in groups]
    columns["samples/s"] = [_mean(group, "samples_per_second", "{:,.0f}".format) for group in groups]
    return Table.of_columns(columns, left, caption="Means ± standard deviations over seeds")


def best(groups: Sequence[Group]) -> str | None:
    """Which group is best, and by which figures; None where there is nothing to choose from."""
    done = [group for group in groups if group.done]
    if len(done) < 2 or not share_data(done):
        return None
    chosen = best_by_validation(done)
    if chosen is not None:
        validation, test = (_rate(chosen, name) for name in ("val_error_rate", "test_error_rate"))
        equals = _as_low(done, chosen, "val_error_rate")
        return f"Lowest validation error: {chosen.label} with {validation}{equals}; its test error is {test}."
    chosen = min(done, key=lambda group: group.mean_or("test_error_rate", math.inf))
    found = f"{_rate(chosen, 'test_error_rate')}{_as_low(done, chosen, 'test_error_rate')}"
    return (
        f"Lowest test error: {chosen.label} with {found}. This was chosen on the test figures themselves, so it looks "
        "better than it is on new pictures; val_fraction holds out some to choose by."
    )


def _as_low(groups: Sequence[Group], chosen: Group, figure: str) -> str:
    """Which other groups have the same mean as the chosen one, in words; empty if there are none."""
    lowest = chosen.mean_or(figure, math.inf)
    equals = [
        group.label
        for group in groups
        if group is not chosen and math.isclose(group.mean_or(figure, math.inf), lowest, abs_tol=1e-9)
    ]
    if len(equals) > _MOST_EQUALS:
        equals = [*equals[:_MOST_EQUALS], f"{len(equals) - _MOST_EQUALS:,} more"]
    return f" (as low: {'; '.join(equals)})" if equals else ""


def csv_text(runs: Sequence[Run], keys: Sequence[str]) -> str:
    """Every run with every figure in full; a missing one is an empty field."""
    named = titles(_FIGURES, keys)
    more = ["test_error_low", "test_error_high", BALANCED, AT_BEST]
    header = ["run", *keys, SEED, "status", *named.values(), *more, "directory", "reason"]
    rows = []
    for run in runs:
        figures = [run.figure(name) for name in named]
        values = [text(value_of(run, key)) for key in keys]
        interval = _interval(run) or (None, None)
        figures += [*interval, run.figure(BALANCED), run.figure(AT_BEST)]
        rows.append([run.name, *values, run.seed, run.status, *figures, run.path, run.reason])
    return as_csv(header, rows)


def groups_csv_text(groups: Sequence[Group], keys: Sequence[str]) -> str:
    """Every group with the mean of each figure and its standard deviation over seeds (n − 1), in full."""
    of_figures = [f"{name}_{what}" for name in _OVER_SEEDS for what in ("mean", "std")]
    rows = []
    for group in ordered_groups(groups):
        figures = [figure for name in _OVER_SEEDS for figure in (group.mean(name), group.deviation(name))]
        rows.append([*(text(group.values[key]) for key in keys), len(group.by_seed("test_error_rate")), *figures])
    return as_csv([*keys, "seeds", *of_figures], rows)


def has_earlier_best(run: Run) -> bool:
    """Whether an epoch before the last was best in validation, so that `AT_BEST` may be another test error."""
    return run.figure(AT_BEST) is not None and run.figure("best_epoch") != run.metrics[-1]["epoch"]


def failures(runs: Sequence[Run]) -> list[str]:
    """A line for each run without a result, with the reason if it is known; paused runs are no failures."""
    missing = [run for run in runs if run.status not in (DONE, PAUSED)]
    return [f"{run.name}: {run.status}" + (f": {run.reason}" if run.reason else "") for run in missing]


def _shown(run: Run, title: str) -> Any:
    """A run's value in a column of the table of runs, before it is formatted."""
    interval = _interval(run)
    errors = run.figure("test_errors")
    names = {
        VALIDATION: "val_error_rate",
        TEST: "test_error_rate",
        "train time": "train_seconds",
        "samples/s": "samples_per_second",
        BALANCED_TEST: BALANCED,
        TEST_AT_BEST: AT_BEST,
    }
    if title == INTERVAL:
        return f"{100 * interval[0]:.2f}–{percent(interval[1])}" if interval else None
    if title == "errors":
        return None if errors is None else f"{errors:,} of {run.figure('test_samples'):,}"
    return run.figure(names.get(title, title.replace(" ", "_")))


def _has_column(title: str, values: Sequence[Any], settings: Sequence[object]) -> bool:
    """Whether the values of a figure are worth a column; `settings`: those of the varied key of the same name."""
    known = [value for value in values if value is not None]
    if settings and all(value in (None, setting) for value, setting in zip(values, settings, strict=True)):
        return False
    if title in ("parameters", "device", "precision"):
        return len(set(known)) > 1
    return bool(known) or title == TEST


def _interval(run: Run) -> tuple[float, float] | None:
    return wilson_interval(run.summary["test_errors"], run.summary["test_samples"]) if run.summary else None


def _spread(group: Group, figure: str) -> str:
    rates = list(group.by_seed(figure).values())
    return mean_percent(rates) if rates else "-"


def _rate(group: Group, figure: str) -> str:
    seeds = _seeds(group)
    return _spread(group, figure) if seeds == "1" else f"{_spread(group, figure)} ({seeds} seeds)"


def _seeds(group: Group) -> str:
    """How many seeds have a result and, if not all have, of how many."""
    done, asked = len({str(run.seed) for run in group.done}), len({str(run.seed) for run in group.runs})
    return str(done) if done == asked else f"{done} of {asked}"


def _mean_errors(group: Group) -> str:
    samples = {run.summary["test_samples"] for run in group.done if run.summary}
    errors = group.mean("test_errors")
    if errors is None or len(samples) != 1:
        return "-"
    return f"{errors:,.1f}".removesuffix(".0") + f" of {samples.pop():,}"


def _mean(group: Group, figure: str, form: Callable[[float], str]) -> str:
    mean = group.mean(figure)
    return "-" if mean is None else form(mean)

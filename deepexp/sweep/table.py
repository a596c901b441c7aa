"""The table at the end of a sweep: on the console, with means over seeds, and as `table.csv`."""

import math
import shlex
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepexp.disk.storage import write_text
from deepexp.metrics import titles
from deepexp.sweep.ledger import State
from deepexp.sweep.shapes import REPEATED, but_for_seed
from deepexp.text.terminal import printable
from deepexp.text.text_table import Table, as_csv, left_out_note
from deepexp.text.units import counted, duration, mean_percent, percent

_FIGURES = (
    "test_errors",
    "test_samples",
    "test_error_rate",
    "test_loss",
    "val_error_rate",
    "best_epoch",
    "epochs",
    "steps",
    "train_seconds",
    "total_seconds",
    "pretrained",
    "parameters",
)

RATES = {"val_error_rate": "val error", "test_error_rate": "test error"}
"""The error rates of a summary, as tables name them."""

_EXPENDABLE = ("run time", "test loss", "errors", "pretrained")
"""Columns that a narrow terminal does without, in this order."""


@dataclass(frozen=True)
class Row:
    """One job and its result; `summary` is None unless it is done."""

    name: str
    varying: Mapping[str, str]
    state: State
    summary: Mapping[str, Any] | None
    reason: str | None
    log: str | None
    """A path below the sweep's directory, as `directory` is."""
    directory: str | None
    tries: int
    latest: Mapping[str, Any] | None = None
    """The latest evaluation of a job that was paused."""


def ordered(rows: Sequence[Row]) -> list[Row]:
    """By validation error where there is one; else as they come.

    Paused jobs follow, those that came furthest first, and jobs without a result are last. Never by test error: that of
    a setting which was chosen by it looks better than it is.
    """
    if not any(_figure(row, "val_error_rate") is not None for row in rows):
        return list(rows)
    return sorted(rows, key=_place)


def _place(row: Row) -> tuple[float, float, float]:
    """What to sort by: the kind of a row, how far it came, and how good it is."""
    error = _figure(row, "val_error_rate")
    if error is not None:
        return 0.0, 0.0, error
    if row.latest is not None:
        return 1.0, -row.latest["epoch"], row.latest["val_error_rate"] or 0.0
    return 2.0, 0.0, 0.0


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """All rows, in their order, with every figure; the field of a missing figure is empty."""
    keys = _keys(rows)
    named = titles(_FIGURES, keys)
    written: list[list[object]] = []
    for row in rows:
        values = [row.varying.get(key) for key in keys]
        figures = [_figure(row, name) for name in named]
        written.append([*values, row.state, *figures, row.tries, row.directory, row.reason])
    header = [*keys, "status", *named.values(), "tries", "directory", "reason"]
    write_text(path, as_csv(header, written))


def lines(rows: Sequence[Row], width: int | None = None) -> Iterator[str]:
    """The table, its titles first, without jobs that were not started, which may be hundreds.

    `width`: of the terminal, in characters; a narrow one gets fewer columns.
    """
    rows = [row for row in rows if row.state != "queued"]
    if not rows:
        return
    keys = _keys(rows)
    columns = {key: [row.varying.get(key, "") for row in rows] for key in keys}
    if any(_figure(row, "val_error_rate") is not None for row in rows):
        columns["val error"] = [_rate(row, "val_error_rate") for row in rows]
    columns["test error"] = [_rate(row, "test_error_rate") for row in rows]
    columns["errors"] = [_count(_figure(row, "test_errors")) for row in rows]
    columns["test loss"] = [_loss(_figure(row, "test_loss")) for row in rows]
    if any(_figure(row, "pretrained") is not None for row in rows):
        columns["pretrained"] = [str(_figure(row, "pretrained") or "-") for row in rows]
    columns["run time"] = [_time(_figure(row, "total_seconds")) for row in rows]
    columns["state"] = [_state(row) for row in rows]
    whole = Table.of_columns(columns, left={*keys, "pretrained", "state"})
    shown, left_out = whole.fitted(width, _EXPENDABLE)
    yield from shown.lines()
    if left_out:
        yield left_out_note(left_out, "table.csv")


def lines_over_seeds(rows: Sequence[Row]) -> list[str]:
    """Mean ± sample standard deviation over the seeds of each setting; no lines where the seed does not vary.

    By mean validation error where there is one; else as they come.
    """
    groups: dict[tuple[tuple[str, str], ...], list[Row]] = {}
    for row in rows:
        if REPEATED in row.varying:
            groups.setdefault(but_for_seed(row.varying), []).append(row)
    groups = {setting: group for setting, group in groups.items() if any(row.state != "queued" for row in group)}
    if not any(len(group) > 1 for group in groups.values()):
        return []
    groups = dict(sorted(groups.items(), key=lambda item: _mean_val_error(item[1])))
    keys = [key for key in _keys(rows) if key != REPEATED]
    settings = [dict(setting) for setting in groups]
    columns = {key: [setting.get(key, "") for setting in settings] for key in keys}
    if any(_figure(row, "val_error_rate") is not None for row in rows):
        columns["val error"] = [_spread(group, "val_error_rate") for group in groups.values()]
    columns["test error"] = [_spread(group, "test_error_rate") for group in groups.values()]
    columns["seeds"] = [f"{sum(row.summary is not None for row in group)} of {len(group)}" for group in groups.values()]
    return list(Table.of_columns(columns, left=set(keys)).lines())


def failures(rows: Sequence[Row], directory: str) -> list[str]:
    """Every job that has failed, why, and where to read more; `directory` is the sweep's."""
    failed = [row for row in rows if row.state in ("failed", "killed")]
    if not failed:
        return []
    lines = [f"{len(failed)} of {counted(len(rows), 'job')} failed:"]
    for row in failed:
        lines.append(f"  {printable(row.name)}: {_STATES[row.state].lower()}: {printable(str(row.reason))}")
        if row.log:
            lines.append(f"    log: {directory}/{printable(row.log)}")
    return lines


def unfinished(rows: Sequence[Row], left_behind: Collection[str]) -> str | None:
    """How many jobs have neither a result nor failed, and their states; without those left behind at a look."""
    rest = [row for row in rows if row.state not in ("done", "failed", "killed")]
    states = [_STATES[row.state] for row in rest if row.state != "paused" or row.name not in left_behind]
    if not states:
        return None
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    return f"{len(states)} of {counted(len(rows), 'job')} {'is' if len(states) == 1 else 'are'} not finished: {counts}"


def paused(rows: Sequence[Row], left_behind: Collection[str], directory: str) -> str | None:
    """How many jobs were left behind at a look, and the command that trains one of them to its end."""
    behind = [row for row in rows if row.state == "paused" and row.name in left_behind]
    if not behind:
        return None
    command = shlex.join(["deepexp", "train", f"resume={directory}/{behind[0].directory}"])
    return f"{len(behind)} of {counted(len(rows), 'job')} paused, as others were better; go on with one: {command}"


_STATES = {
    "paused": "paused",
    "queued": "not run",
    "running": "cut off",
    "interrupted": "interrupted",
    "done": "done",
    "failed": "FAILED",
    "killed": "KILLED",
}


def _keys(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row.varying))


def _figure(row: Row, name: str) -> Any:
    return None if row.summary is None else row.summary.get(name)


def _rate(row: Row, name: str) -> str:
    """The rate of a finished job, or in brackets the latest of a paused one."""
    if row.latest is not None and row.latest[name] is not None:
        return f"({percent(row.latest[name])})"
    value = _figure(row, name)
    return "-" if value is None else percent(value)


def _state(row: Row) -> str:
    return _STATES[row.state] if row.latest is None else f"{_STATES[row.state]} at epoch {row.latest['epoch']}"


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _loss(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _time(value: float | None) -> str:
    return "-" if value is None else duration(value)


def _spread(group: Sequence[Row], name: str) -> str:
    rates = _rates(group, name)
    return mean_percent(rates) if rates else "-"


def _mean_val_error(group: Sequence[Row]) -> float:
    rates = _rates(group, "val_error_rate")
    return statistics.fmean(rates) if rates else math.inf


def _rates(group: Sequence[Row], name: str) -> list[float]:
    return [rate for row in group if (rate := _figure(row, name)) is not None]

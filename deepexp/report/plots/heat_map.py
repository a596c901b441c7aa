"""The mean test error over two keys that vary: a cell for each pair of values."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deepexp.pages import plotting
from deepexp.report.plots.plot import Missing, Plot, literal, needs_log, numbers, shortened
from deepexp.report.variation import Group, text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_ANNOTATED = 120  # cells
_MOST_HIGH = 17  # rows up to which a cell has room for two lines


@dataclass(frozen=True)
class Cells:
    """Rows and columns of values, and what is in the cells."""

    keys: tuple[str, str]
    rows: list[object]
    columns: list[object]
    mean: np.ndarray
    """(rows, columns) float: mean test error in percent; NaN without a result."""
    spread: np.ndarray
    """(rows, columns) float: its standard deviation over seeds; NaN for one seed."""
    was_run: np.ndarray
    """(rows, columns) bool."""


def draw(groups: Sequence[Group], keys: Sequence[str]) -> Plot | Missing:
    """The heat map over exactly two keys."""
    if len(keys) != 2:
        return Missing(f"a heat map is over two keys, and {len(keys)} vary")
    cells = tabulate(groups, (keys[0], keys[1]))
    if min(cells.mean.shape) < 2:
        return Missing("one of the two keys has a single value")
    if np.isnan(cells.mean).all():
        return Missing("no run has a result")
    for along, key in enumerate(reversed(cells.keys)):
        if cells.was_run.sum(along).max() < 2:  # as of points drawn at random
            return Missing(f"each value of {key} was run with a single value of the other key")
    rows, columns = cells.mean.shape
    figure, axes = plotting.figure(min(10.0, 2.6 + 0.95 * columns), _height(rows))
    axis = axes[0, 0]
    _draw_cells(axis, cells)
    axis.set_xlabel(literal(keys[1]))
    axis.set_ylabel(literal(keys[0]))
    alt = f"Test error over {keys[0]} and {keys[1]} as a table of coloured cells."
    return Plot("heat_map", figure, _caption(groups, cells), alt)


def _caption(groups: Sequence[Group], cells: Cells) -> str:
    caption = "Mean test error in percent over the seeds, and the standard deviation (±)."
    if np.isnan(cells.spread).all():
        caption = "Test error in percent."
    if any(0 < len(group.done) < len(group.runs) for group in groups):
        caption += " Runs without a result are left out."
    if (~cells.was_run).any():
        caption += " Hatched: not run."
    if (cells.was_run & np.isnan(cells.mean)).any():
        caption += " ×: run, without a result."
    return caption


def _height(rows: int) -> float:
    """In inches: many rows are less high, but each has room for a line of text, as long as cells have texts."""
    return 1.6 + min(0.6 * rows, max(0.6 * _MOST_HIGH, 0.22 * min(rows, _MOST_ANNOTATED // 2)))


def tabulate(groups: Sequence[Group], keys: tuple[str, str]) -> Cells:
    """The cells; the values of numeric keys ascend, others are in the order of the grid."""
    rows, columns = (_in_order([group.values[key] for group in groups]) for key in keys)
    mean = np.full((len(rows), len(columns)), np.nan)
    spread, was_run = mean.copy(), np.zeros(mean.shape, dtype=bool)
    for group in groups:
        cell = rows.index(group.values[keys[0]]), columns.index(group.values[keys[1]])
        rates = [100 * rate for rate in group.by_seed("test_error_rate").values()]
        was_run[cell] = True
        if rates:
            mean[cell] = statistics.fmean(rates)
        if len(rates) > 1:
            spread[cell] = statistics.stdev(rates)
    return Cells(keys, rows, columns, mean, spread, was_run)


def _in_order(values: Sequence[object]) -> list[object]:
    distinct = [value for index, value in enumerate(values) if value not in values[:index]]
    known = numbers(distinct)
    return distinct if known is None else [value for _, value in sorted(zip(known, distinct, strict=True))]


def _draw_cells(axis: "Axes", cells: Cells) -> None:
    from matplotlib.colors import LogNorm, Normalize

    known = cells.mean[~np.isnan(cells.mean)]
    norm = (LogNorm if needs_log(known) else Normalize)(known.min(), known.max())
    edges = [np.arange(size + 1) - 0.5 for size in reversed(cells.mean.shape)]
    mesh = axis.pcolormesh(*edges, np.ma.masked_invalid(cells.mean), cmap=f"{plotting.SEQUENTIAL}_r", norm=norm)
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    axis.set_xticks(range(len(cells.columns)), [literal(shortened(text(value), 16)) for value in cells.columns])
    axis.set_yticks(range(len(cells.rows)), [literal(shortened(text(value), 16)) for value in cells.rows])
    axis.invert_yaxis()
    if max(len(text(value)) for value in cells.columns) > 8:
        plotting.slant(axis.get_xticklabels(), 30)
    assert axis.figure is not None
    axis.figure.colorbar(mesh, ax=axis, label="test error (%)" + (", log scale" if needs_log(known) else ""))
    for row, column in np.ndindex(cells.mean.shape):
        mean = cells.mean[row, column]
        _annotate(axis, cells, row, column, 0.0 if np.isnan(mean) else float(norm(mean)))


def _annotate(axis: "Axes", cells: Cells, row: int, column: int, shade: float) -> None:
    """Write into a cell what it holds; `shade` is its place in the colour map, which is dark from the middle on."""
    from matplotlib.patches import Rectangle

    mean, spread = cells.mean[row, column], cells.spread[row, column]
    if np.isnan(mean):
        hatch = "" if cells.was_run[row, column] else "////"
        corner = (column - 0.5, row - 0.5)
        axis.add_patch(Rectangle(corner, 1, 1, facecolor="#F2F2F2", edgecolor="#9A9A9A", linewidth=0, hatch=hatch))
    words = _in_words(mean, spread, in_one_line=len(cells.rows) > _MOST_HIGH)
    if np.isnan(mean) and cells.was_run[row, column]:
        words = "×"
    if cells.mean.size <= _MOST_ANNOTATED or words == "×":
        colour = "white" if not np.isnan(mean) and shade > 0.45 else "black"
        axis.text(column, row, words, ha="center", va="center", color=colour, fontsize=9, linespacing=1.1)


def _in_words(mean: float, spread: float, *, in_one_line: bool) -> str:
    if np.isnan(mean):
        return ""
    parts = [f"{mean:.2f}"] if np.isnan(spread) else [f"{mean:.2f}", f"±{spread:.2f}"]
    return (" " if in_one_line else "\n").join(parts)

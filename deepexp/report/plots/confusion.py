"""The confusion matrix of a run, and the confusions that are most frequent in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deepexp.errors import InputError
from deepexp.metrics import confusion_matrix
from deepexp.pages import plotting
from deepexp.report.plots.plot import Missing, Plot, literal, shortened
from deepexp.report.runs import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_ANNOTATED = 20
"""Up to so many classes, each cell has its number."""

_MOST_LISTED = 10  # confusions
_MUTED = "#E4E4E4"  # the diagonal, whose large numbers would hide the errors


@dataclass(frozen=True)
class Confusion:
    """How many samples of one class were predicted as another."""

    true: str
    predicted: str
    samples: int
    of: int
    """Test samples of the true class."""


def matrix(run: Run, classes: int | None = None) -> np.ndarray | None:
    """(classes, classes) int64: how many samples of each class (row) were predicted as each class (column).

    None if the run has no predictions; `InputError` if they are damaged.
    """
    found = run.predictions()
    if found is None or not len(found[0]):
        return None
    predicted, target = (array.astype(np.int64) for array in found)
    seen = int(max(np.max(predicted), np.max(target))) + 1
    if min(np.min(predicted), np.min(target)) < 0 or seen > 10_000:
        raise InputError(f"{run.path / 'predictions.npz'} is damaged: it holds impossible classes")
    return confusion_matrix(predicted, target, max(classes or 0, seen))


def frequent(cells: np.ndarray, names: Sequence[str] | None) -> list[Confusion]:
    """The confusions with the most samples; of equal ones, in the order of the classes."""
    errors = cells - np.diag(np.diag(cells))
    order = np.argsort(-errors, axis=None, kind="stable")[:_MOST_LISTED]
    places = [divmod(int(place), len(cells)) for place in order if errors.flat[place] > 0]
    shown = class_names(len(cells), names)
    return [Confusion(shown[i], shown[j], int(errors[i, j]), int(cells[i].sum())) for i, j in places]


def class_names(classes: int, names: Sequence[str] | None) -> list[str]:
    """The names of the classes, or their numbers where they are not known."""
    return list(names) if names is not None and len(names) >= classes else [str(index) for index in range(classes)]


def draw(run: Run, name: str, names: Sequence[str] | None = None) -> Plot | Missing:
    """The matrix of a run; `name` is that of the files, `names` are those of the classes."""
    try:
        cells = matrix(run, len(names) if names is not None else None)
    except InputError as error:
        return Missing(str(error))
    if cells is None:
        return Missing(f"{run.name} has no predictions.npz")
    return draw_matrix(cells, run.name, name, names)


def draw_matrix(cells: np.ndarray, run: str, name: str, names: Sequence[str] | None) -> Plot:
    """The matrix for `cells` that are counted already; `run` is the name of the run."""
    classes = len(cells)
    width = min(8.4, max(4.6, 1.9 + 0.42 * classes))
    figure, axes = plotting.figure(width, width - 0.9)
    axis = axes[0, 0]
    _draw_cells(axis, cells, class_names(classes, names))
    wrong, samples = int(cells.sum() - np.trace(cells)), int(cells.sum())
    axis.set_title(literal(shortened(run, 50)), loc="left", fontsize=10)
    caption = (
        f"{run}: {wrong:,} of {samples:,} test samples wrong. A cell counts the samples of its row's class that "
        f"were taken for its column's. The diagonal, which is right, is grey, so that the colours show errors alone."
    )
    return Plot(name, figure, caption, f"Confusion matrix of {run}: {wrong:,} of {samples:,} wrong.")


def _draw_cells(axis: "Axes", cells: np.ndarray, names: Sequence[str]) -> None:
    import matplotlib
    from matplotlib.ticker import MaxNLocator

    classes = len(cells)
    errors = np.ma.masked_array(cells, mask=np.eye(classes, dtype=bool))
    most = max(int(errors.max()) if classes > 1 else 0, 1)
    # Zero is white, so that only errors have a colour; from there on the lightness falls evenly.
    shades = matplotlib.colormaps["Blues"].with_extremes(bad=_MUTED)
    image = axis.imshow(errors, cmap=shades, vmin=0, vmax=most, interpolation="nearest")
    assert axis.figure is not None
    bar = axis.figure.colorbar(image, ax=axis, label="errors (samples)", shrink=0.8)
    bar.locator = MaxNLocator(integer=True, min_n_ticks=1)
    bar.update_ticks()
    axis.set_xlabel("predicted class")
    axis.set_ylabel("true class")
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    if classes > MOST_ANNOTATED:
        return
    shown = [literal(shortened(name, 14)) for name in names]
    axis.set_xticks(range(classes), shown)
    if max(map(len, shown)) > 3:
        plotting.slant(axis.get_xticklabels(), 45)
    axis.set_yticks(range(classes), shown)
    for row, column in np.ndindex(cells.shape):
        count = int(cells[row, column])
        if row == column or count:
            colour = "#6B6B6B" if row == column else ("white" if count > 0.6 * most else "black")
            axis.text(column, row, f"{count}", ha="center", va="center", fontsize=8, color=colour)

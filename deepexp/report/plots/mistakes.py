"""The worst mistakes of a run: the misclassified test samples for which its model gives the highest probabilities."""

import math
from typing import TYPE_CHECKING

from deepexp.errors import InputError
from deepexp.pages import plotting
from deepexp.report.plots.plot import Missing, Plot, literal, shortened
from deepexp.report.runs import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from deepexp.inference.retest import Retest

_SHOWN = 24
_COLUMNS = 6


def draw(run: Run) -> Plot | Missing:
    """A sheet of pictures, the worst first; the run's model and data are loaded for it, if they are here."""
    from deepexp.inference.retest import retest

    try:
        found = retest(run.path)
    except InputError as error:
        return Missing(f"the mistakes of {run.name}, since its model cannot be run again here: {error}".rstrip("."))
    return draw_sheet(found, run.name)


def draw_sheet(found: "Retest", run: str) -> Plot | Missing:
    """The sheet for predictions that are known already; `run` is the name of the run."""
    worst = worst_mistakes(found)
    if not worst:
        return Missing(f"the mistakes of {run}, which makes none on its {len(found.target):,} test samples")
    shown = worst[:_SHOWN]
    columns = min(_COLUMNS, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure, axes = plotting.figure(max(1.35 * columns, 3.0), 1.75 * rows, rows=rows, columns=columns)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, sample in zip(axes.flat, shown, strict=False):
        _draw_sample(axis, found, sample)
    caption = (
        f"{run}: the {len(shown)} of {len(worst):,} misclassified test samples of which the model is surest. "
        "Above each: its true class → the class that it is taken for, with what probability, and the sample's number."
    )
    return Plot("mistakes", figure, caption, f"A sheet of {len(shown)} misclassified pictures of {run}.")


def worst_mistakes(found: "Retest") -> list[int]:
    """The indices of the misclassified samples, those with the most probable wrong class first."""
    probability, predicted = found.probabilities.max(1)
    wrong = (predicted != found.target).nonzero().flatten()
    order = probability[wrong].argsort(descending=True, stable=True)
    numbers: list[int] = wrong[order].tolist()
    return numbers


def _draw_sample(axis: "Axes", found: "Retest", sample: int) -> None:
    picture = found.images[sample].permute(1, 2, 0).numpy()  # (height, width, channels)
    axis.imshow(picture if picture.shape[2] == 3 else picture[..., 0], cmap="gray", vmin=0, vmax=255)
    predicted = int(found.probabilities[sample].argmax())
    true, taken = (shortened(found.classes[index], 9) for index in (int(found.target[sample]), predicted))
    share = 100 * float(found.probabilities[sample, predicted])
    axis.set_title(literal(f"{true} → {taken}\n{share:.1f}%  #{sample}"), fontsize=7.5, loc="center", pad=3)

"""Training loss against updates, for runs of few epochs, whose curves by epochs have hardly a point."""

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from deepexp.errors import InputError
from deepexp.pages import plotting
from deepexp.report.plots import curves
from deepexp.report.plots.plot import LOG_FROM, Missing, Plot, log_numbers, loss_axis
from deepexp.report.plots.series import Styles, styles
from deepexp.report.runs import Run
from deepexp.report.variation import Group
from deepexp.text.units import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEW_EPOCHS = 5
"""Up to so many epochs, a run's losses are worth a look update by update."""

_MOST_RUNS = 200  # whose event files are read
_WINDOWS = 20  # in a curve, each of which is averaged
_MOST_POINTS = 500  # of a drawn curve


@dataclass(frozen=True)
class Smoothed:
    """The losses of a group's runs at the updates that all of them have, each the mean over the last `window`."""

    steps: np.ndarray
    """(updates,)"""
    losses: np.ndarray
    """(runs, updates)"""
    window: int


def are_worth_it(groups: Sequence[Group]) -> bool:
    """Whether a run is so short that its epochs tell too little."""
    return any(len(run.metrics) <= FEW_EPOCHS for group in groups for run in curves.shown_runs(group))


def draw(groups: Sequence[Group]) -> Plot | Missing:
    """The training loss after each update, a colour for each group."""
    number = sum(len(curves.shown_runs(group)) for group in groups)
    if number > _MOST_RUNS:
        return Missing(f"losses against updates are drawn of {_MOST_RUNS} runs or fewer, and these are {number:,}")
    try:
        found = [(group, smoothed(curves.shown_runs(group))) for group in groups]
    except InputError as error:
        return Missing(str(error))
    shown = [(group, losses) for group, losses in found if losses is not None]
    if not shown:
        return Missing("no run has the losses of its updates in its event file")
    scores = [group.mean_or("test_error_rate", math.nan) for group, _ in shown]
    look = styles([group.label for group, _ in shown], [group.values for group, _ in shown], scores)
    marked = [len(losses.steps) == 1 for _, losses in shown]  # a point alone, which a line would not show
    markers = [(style["marker"] or ".") if is_dot else "" for style, is_dot in zip(look.each, marked, strict=True)]
    look = replace(look, each=[{**style, "marker": m} for style, m in zip(look.each, markers, strict=True)])
    figure, axes = plotting.figure(6.0, 4.0 + 0.1 * min(len(shown), 10))
    axis = axes[0, 0]
    drawn = [
        loss
        for (_, losses), style in zip(shown, look.each, strict=True)
        for loss in _draw_group(axis, losses, style, crowded=look.are_many)
    ]
    beyond = loss_axis(axis, drawn, "training loss")
    ends = [int(losses.steps[-1]) for _, losses in shown]
    if max(ends) > LOG_FROM * min(ends):
        log_numbers(axis)
        axis.set_xlabel("steps (updates of the weights), log scale")
    else:
        axis.set_xlim(left=0)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.set_xlabel("steps (updates of the weights)")
    look.add_legend(figure, axes=axes)
    caption = " ".join([*_sentences([losses for _, losses in shown], look, len(groups) - len(shown)), beyond]).rstrip()
    return Plot("losses", figure, caption, f"Training loss of {len(shown)} groups of runs against updates.")


def smoothed(runs: Sequence[Run]) -> Smoothed | None:
    """The losses of a group up to where one is no number, or a run ends; None if its runs have none in common."""
    each = [_finite(*run.update_losses()) for run in runs]
    steps = functools.reduce(np.intersect1d, [steps for steps, _ in each])
    if not len(steps):
        return None
    window = max(1, len(steps) // _WINDOWS)
    losses = [_trailing_means(values[np.isin(of_run, steps)], window) for of_run, values in each]
    return Smoothed(steps, np.stack(losses), window)


def _finite(steps: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    wrong = np.flatnonzero(~np.isfinite(losses))
    end = wrong[0] if len(wrong) else len(losses)
    return steps[:end], losses[:end]


def _trailing_means(losses: np.ndarray, window: int) -> np.ndarray:
    """The mean over each update and those before it, `window` at most: (updates,) → (updates,)."""
    sums = np.concatenate([[0.0], np.cumsum(losses)])
    ends = np.arange(1, len(losses) + 1)
    begins = np.maximum(ends - window, 0)
    return (sums[ends] - sums[begins]) / (ends - begins)


def _draw_group(axis: "Axes", group: Smoothed, style: Mapping[str, Any], *, crowded: bool) -> list[float]:
    """Draw the curve of a group, with a band over its runs, and return the losses that they show."""
    thinned = np.unique(np.linspace(0, len(group.steps) - 1, _MOST_POINTS).round().astype(int))
    steps, losses = group.steps[thinned], group.losses[:, thinned]
    mean, low, high = losses.mean(0), losses.min(0), losses.max(0)
    axis.plot(steps, mean, **style, linewidth=1.0 if crowded else 1.5)
    if crowded or len(losses) == 1:
        return list(mean)
    axis.fill_between(steps, low, high, color=style["color"], alpha=0.18, linewidth=0)
    return [*low, *high]


def _sentences(shown: Sequence[Smoothed], look: Styles, without: int) -> Iterator[str]:
    windows = sorted({losses.window for losses in shown})
    if windows[-1] > 1:
        number = f"{windows[0]}" if len(windows) == 1 else f"{windows[0]} to {windows[-1]}"
        yield f"Each point is the mean loss of the last {number} batches, each before its update."
    else:
        yield "The loss of each batch, before its update."
    runs = sorted({len(losses.losses) for losses in shown})
    if runs[-1] > 1:
        number = f"{runs[0]}" if len(runs) == 1 else f"{runs[0]} to {runs[-1]}"
        band = "" if look.are_many else "; the band reaches from the lowest to the highest"
        yield f"Lines are means over {number} runs{band}."
    if look.sentence:
        yield look.sentence
    if without:
        yield f"Left out: {counted(without, 'group')} without a finite loss of an update that all of its runs have."

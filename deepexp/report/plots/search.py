"""What a search has found: the error of each setting, and the lowest so far."""

import statistics
from collections.abc import Sequence
from itertools import accumulate

from deepexp.pages import plotting
from deepexp.report.plots.plot import Missing, Plot, mark_missing, value_axis
from deepexp.report.runs import CUT_OFF, FAILED, PAUSED
from deepexp.report.searched import Searched
from deepexp.report.variation import Group
from deepexp.text.units import counted

_NAMES = {"val_error_rate": "validation error", "test_error_rate": "test error"}


def draw(groups: Sequence[Group], search: Searched) -> Plot | Missing:
    """A point for each setting, in the order in which they were chosen, and a line through the lowest so far."""
    ordered = sorted(groups, key=lambda group: min(search.places.get(run.path, len(groups)) for run in group.runs))
    paused = {
        number: error
        for number, group in enumerate(ordered, 1)
        if (error := _paused_at(group, search.objective)) is not None
    }
    errors = {number: _error(group, search.objective) for number, group in enumerate(ordered, 1)}
    errors |= dict.fromkeys(paused)  # they have none, even if some of their seeds came to the end
    known = [(number, error) for number, error in errors.items() if error is not None]
    if not known:
        return Missing("no setting of the search has a result")
    numbers, values = zip(*known, strict=True)
    least = list(accumulate(values, min))
    figure, axes = plotting.figure(6.0, 3.6)
    axis = axes[0, 0]
    axis.plot(numbers, values, "o", color=plotting.COLOURS[0], zorder=3, markersize=5)
    axis.step([*numbers, len(errors)], [*least, least[-1]], where="post", color=plotting.COLOURS[1], linewidth=2.0)
    failed = [number for number, error in errors.items() if error is None and number not in paused]
    mark_missing(axis, failed, plotting.COLOURS[0])
    if paused:
        axis.plot(*zip(*paused.items(), strict=True), "o", color=plotting.COLOURS[0], fillstyle="none", zorder=2)
    name = _NAMES[search.objective]
    value_axis(axis, [*values, *paused.values()], f"{name} (%)")
    axis.set_xlim(0, len(errors) + 1)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_xlabel(f"settings, in the order in which {search.method} chose them")
    caption = (
        f"The {name} of each setting, the mean over its seeds, in which a run without a result counts as wrong in "
        "every picture; the line is the lowest so far."
    )
    if paused:
        caption += f" Empty: {counted(len(paused), 'setting')} paused, since others were better, as last evaluated."
    if failed:
        caption += f" × at the top edge: {counted(len(failed), 'setting')} without a result."
    alt = f"The {name} of {counted(len(errors), 'setting')} in the order in which they were tried."
    return Plot("search", figure, caption, alt)


def _paused_at(group: Group, objective: str) -> float | None:
    """The mean error of a paused setting over its seeds, at their last evaluation; None for any other setting."""
    if not any(run.status == PAUSED for run in group.runs):
        return None
    lines = [[line for line in run.metrics if line[objective] is not None][-1:] for run in group.runs]
    return 100 * statistics.fmean(line[0][objective] if line else 1.0 for line in lines)


def _error(group: Group, objective: str) -> float | None:
    """The mean over the seeds, as the search computes it: a run that failed counts as wrong in every picture."""
    rates = group.by_seed(objective)
    lost = {run.seed for run in group.runs if run.status in (FAILED, CUT_OFF)} - rates.keys()
    return 100 * statistics.fmean([*rates.values(), *[1.0] * len(lost)]) if rates else None

"""What a search has found, setting by setting: the error of each, and the least so far."""

import statistics
from collections.abc import Sequence
from itertools import accumulate

from deepexp.pages import plotting
from deepexp.report.plots.plot import Missing, Plot, value_axis
from deepexp.report.runs import CUT_OFF, FAILED, PAUSED
from deepexp.report.searched import Searched
from deepexp.report.variation import Group
from deepexp.text.units import counted

_NAMES = {"val_error_rate": "validation error", "test_error_rate": "test error"}
_TOP = 1.03  # of the axes' height: where settings without a result are marked


def draw(groups: Sequence[Group], search: Searched) -> Plot | Missing:
    """A point for each setting, in the order in which they were chosen, and a line through the least so far."""
    ordered = sorted(groups, key=lambda group: min(search.places.get(run.path, len(groups)) for run in group.runs))
    on_the_way = {
        number: error
        for number, group in enumerate(ordered, 1)
        if (error := _paused_at(group, search.objective)) is not None
    }
    errors = {number: _error(group, search.objective) for number, group in enumerate(ordered, 1)}
    errors |= dict.fromkeys(on_the_way)  # also where some of their seeds came to the end
    known = [(number, error) for number, error in errors.items() if error is not None]
    if not known:
        return Missing("no setting of the search has a result")
    numbers, values = zip(*known, strict=True)
    least = list(accumulate(values, min))
    figure, axes = plotting.figure(6.0, 3.6)
    axis = axes[0, 0]
    axis.plot(numbers, values, "o", color=plotting.COLOURS[0], zorder=3, markersize=5)
    axis.step([*numbers, len(errors)], [*least, least[-1]], where="post", color=plotting.COLOURS[1], linewidth=2.0)
    failed = [number for number, error in errors.items() if error is None and number not in on_the_way]
    axis.plot(
        failed,
        [_TOP] * len(failed),
        "x",
        color=plotting.COLOURS[0],
        transform=axis.get_xaxis_transform(),
        clip_on=False,
        markeredgewidth=2,
    )
    if on_the_way:
        axis.plot(*zip(*on_the_way.items(), strict=True), "o", color=plotting.COLOURS[0], fillstyle="none", zorder=2)
    name = _NAMES[search.objective]
    value_axis(axis, [*values, *on_the_way.values()], f"{name} (%)")
    axis.set_xlim(0, len(errors) + 1)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_xlabel(f"settings, in the order in which {search.method} chose them")
    caption = (
        f"The {name} of each setting, of several seeds the mean, in which a run that came to nothing counts as wrong "
        "in every picture; the line is the least so far."
    )
    if on_the_way:
        caption += f" Empty: {counted(len(on_the_way), 'setting')} that others were better than, as seen on the way."
    if failed:
        caption += f" × at the top edge: {counted(len(failed), 'setting')} without a result."
    alt = f"The {name} of {counted(len(errors), 'setting')} in the order in which they were tried."
    return Plot("search", figure, caption, alt)


def _paused_at(group: Group, objective: str) -> float | None:
    """The mean over the seeds at their last evaluation, of a setting that did not go on; None of any other."""
    if not any(run.status == PAUSED for run in group.runs):
        return None
    lines = [[line for line in run.metrics if line[objective] is not None][-1:] for run in group.runs]
    return 100 * statistics.fmean(line[0][objective] if line else 1.0 for line in lines)


def _error(group: Group, objective: str) -> float | None:
    """The mean over the seeds, as the search has it: a run that came to nothing is wrong in every picture."""
    rates = group.by_seed(objective)
    lost = {run.seed for run in group.runs if run.status in (FAILED, CUT_OFF)} - rates.keys()
    return 100 * statistics.fmean([*rates.values(), *[1.0] * len(lost)]) if rates else None

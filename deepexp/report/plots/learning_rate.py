"""The test error against the learning rate: a series for each of the other values, a point for each seed."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from deepexp.pages import plotting
from deepexp.report.plots.plot import Missing, Plot, log_numbers, mark_missing, numbers, value_axis
from deepexp.report.plots.series import styles
from deepexp.report.runs import CUT_OFF, FAILED, Run
from deepexp.report.variation import Group, label
from deepexp.text.units import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KEY = "optim.lr"


def draw(groups: Sequence[Group], keys: Sequence[str]) -> Plot | Missing:
    """Lines through the means; runs that failed are marked at the top edge and not left out."""
    if KEY not in keys:
        return Missing("the learning rate does not vary, or only because the optimizer does")
    rates = numbers(group.values[KEY] for group in groups)
    if rates is None or min(rates) <= 0:
        return Missing("a learning rate is no positive number, and so has no place on a logarithmic axis")
    if not any(group.done for group in groups):
        return Missing("no run has a result")
    shown = [group for group in groups if group.done or _failed(group.runs)]  # none that was only paused
    rates = list(map(_rate, shown))
    others = [key for key in keys if key != KEY]
    series: dict[str, list[Group]] = {}
    for group in shown:
        name = label(group.runs[0], others) if others else "test error"
        series.setdefault(name, []).append(group)
    values = [{key: members[0].values[key] for key in others} for members in series.values()]
    look = styles(list(series), values, [min(map(_mean, members)) for members in series.values()])
    figure, axes = plotting.figure(6.0, 4.2)
    drawn: list[float] = []
    for members, style in zip(series.values(), look.each, strict=True):
        drawn += _draw_series(axes[0, 0], members, style, crowded=look.are_many)
    value_axis(axes[0, 0], drawn, "test error (%)")
    if max(rates) >= 4 * min(rates):
        log_numbers(axes[0, 0])
    axes[0, 0].set_xlabel("learning rate (optim.lr)")
    if others:
        look.add_legend(figure, axes=axes)
    return Plot("learning_rate", figure, _caption(groups, look.sentence), "Test error against the learning rate.")


def _draw_series(axis: "Axes", members: Sequence[Group], style: Mapping[str, Any], *, crowded: bool) -> list[float]:
    """Draw one series and return the errors that it shows."""
    ordered = sorted(members, key=_rate)
    done = [group for group in ordered if group.done]
    axis.plot(
        list(map(_rate, done)),
        list(map(_mean, done)),
        **{**style, "marker": ""},
        linewidth=1.0 if crowded and style.get("zorder", 0) < 3 else 2.0,
    )
    drawn = []
    for group in ordered:
        rate = _rate(group)
        errors = [100 * run.summary["test_error_rate"] for run in group.done if run.summary]
        look = {"color": style["color"], "marker": style["marker"] or ".", "linestyle": "", "alpha": 0.75}
        axis.plot([rate] * len(errors), errors, **look, markersize=3 if crowded else 5)
        drawn += errors
        if _failed(group.runs):
            mark_missing(axis, [rate], style["color"])
    return drawn


def _rate(group: Group) -> float:
    return float(str(group.values[KEY]))


def _failed(runs: Sequence[Run]) -> int:
    return sum(run.status in (FAILED, CUT_OFF) for run in runs)


def _mean(group: Group) -> float:
    return 100 * group.mean_or("test_error_rate", math.inf)


def _caption(groups: Sequence[Group], sentence: str) -> str:
    runs = [run for group in groups for run in group.runs]
    failed = _failed(runs)
    caption = "Final test error; a point for each run, lines through the means over seeds."
    if failed:
        caption += f" × at the top edge: {failed:,} of {counted(len(runs), 'run')} failed there, without a result."
    return f"{caption} {sentence}".strip()

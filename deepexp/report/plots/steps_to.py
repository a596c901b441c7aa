"""Steps until a baseline's best accuracy is reached, and the best of each: figure 3 of Ioffe and Szegedy (2015)."""

from typing import TYPE_CHECKING

from deepexp.pages import plotting
from deepexp.report.plots.plot import Missing, Plot, literal, needs_log, shortened_labels
from deepexp.report.steps_to import Reach, StepsTo, number
from deepexp.text.units import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_ROWS = 30


def draw(found: StepsTo, place: int = 1) -> Plot | Missing:
    """Bars of steps on the left, dots of accuracies on the right, a row for each group; `place` is in its name."""
    rows = list(found.rows[:_MOST_ROWS])
    if not any(row.steps is not None for row in rows):
        return Missing(f"no run reaches the best accuracy of {found.baseline}")
    figure, axes = plotting.figure(9.0, 1.5 + 0.42 * len(rows), columns=2)
    _draw_steps(axes[0, 0], rows, found.baseline)
    _draw_accuracies(axes[0, 1], rows, found)
    for axis in axes[0]:
        axis.set_ylim(len(rows) - 0.4, -0.6)
        axis.grid(visible=False, axis="y")
        axis.tick_params(axis="y", length=0)
    names = [literal(label) for label in shortened_labels([row.label for row in rows], 34)]
    axes[0, 0].set_yticks(range(len(rows)), names)
    axes[0, 1].set_yticks(range(len(rows)), [""] * len(rows))
    caption = (
        f"Left: updates until {found.aim()} is first seen at an evaluation, the median over the runs that get there. "
        "Right: the best test accuracy of all evaluations; bars are ± one standard deviation over runs, the dashed "
        "line is the baseline's."
    )
    if len(found.rows) > len(rows):
        caption += f" The first {len(rows)} of {len(found.rows):,} groups."
    name = "steps_to_baseline" if place == 1 else f"steps_to_baseline_{place}"
    return Plot(name, figure, caption, "Steps to the baseline's best accuracy, and the best accuracies.")


def _draw_steps(axis: "Axes", rows: list[Reach], baseline: str) -> None:
    known = [row.steps for row in rows if row.steps is not None]
    is_log = needs_log(known)
    if is_log:
        axis.set_xscale("log")
    else:
        axis.set_xlim(0, 1.28 * max(known))
    axis.set_xlabel("steps to the baseline's best" + (", log scale" if is_log else ""))
    for place, row in enumerate(rows):
        edge = axis.get_yaxis_transform()
        if row.steps is None:
            axis.text(0.02, place, "never reached", transform=edge, va="center", fontsize=9, style="italic")
            continue
        colour = plotting.GREY if row.label == baseline else plotting.COLOURS[0]
        if is_log:
            axis.plot([row.steps], [place], "o", color=colour)
        else:
            axis.barh(place, row.steps, height=0.55, color=colour)
        some = "" if row.reached == row.runs else f" ({row.reached} of {counted(row.runs, 'run')})"
        axis.annotate(
            f"{number(row.steps)}{some}",
            (row.steps, place),
            (5, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )


def _draw_accuracies(axis: "Axes", rows: list[Reach], found: StepsTo) -> None:
    axis.axvline(100 * found.accuracy, color=plotting.GREY, linestyle=(0, (4, 2)), linewidth=1)
    for place, row in enumerate(rows):
        colour = plotting.GREY if row.label == found.baseline else plotting.COLOURS[0]
        spread = None if row.spread is None else 100 * row.spread
        axis.errorbar(100 * row.best_accuracy, place, xerr=spread, fmt="o", color=colour, capsize=3)
        axis.annotate(
            f"{100 * row.best_accuracy:.2f}",
            (100 * row.best_accuracy, place),
            (0, 7),
            ha="center",
            textcoords="offset points",
            fontsize=8,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )
    axis.margins(x=0.12)
    axis.set_xlabel("best test accuracy (%), not from zero")

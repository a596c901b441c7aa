"""Loss and error against epochs, updates and seconds: training thin, test bold, a band over seeds."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from deepexp.pages import plotting
from deepexp.report.plots.plot import Missing, Plot, error_axis, loss_axis
from deepexp.report.plots.series import Styles, styles
from deepexp.report.runs import DONE, Run
from deepexp.report.variation import Group
from deepexp.text.units import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Against = Literal["epochs", "steps", "seconds"]

_X_KEYS = {"epochs": "epoch", "steps": "step", "seconds": "elapsed_seconds"}
_X_NAMES = {
    "epochs": "epochs",
    "steps": "steps (updates of the weights)",
    "seconds": "seconds since the start, evaluations included",
}
_ROWS = (("loss", 1.0, "loss"), ("error_rate", 100.0, "error (%)"))  # key, factor, name of the axis
_MIXING = frozenset(
    f"deepexp.data.augment.{prefix}{name}" for prefix in ("", "CropFlip") for name in ("Mixup", "CutMix")
)
_MOST_MARKED = 15  # points of a curve that get a marker
_TRAIN_WIDTH, _TEST_WIDTH, _CROWDED_WIDTH = 0.9, 2.2, 1.0


@dataclass(frozen=True)
class Curve:
    """One figure of a group over the epochs: its mean, smallest and largest value over the seeds."""

    x: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]


def draw(groups: Sequence[Group], against: Against = "epochs") -> Plot | Missing:
    """Loss above, error below, one colour for each group."""
    shown = [group for group in groups if any(run.metrics for run in shown_runs(group))]
    if not shown:
        return Missing("no run has come to the end of an epoch")
    scores = [group.mean_or("test_error_rate", math.nan) for group in shown]
    look = styles([group.label for group in shown], [group.values for group in shown], scores)
    figure, axes = plotting.figure(6.0, 6.4 + 0.1 * min(len(shown), 10), rows=2)
    beyond: list[str] = []
    for (key, factor, name), axis in zip(_ROWS, axes[:, 0], strict=True):
        drawn: list[float] = []
        for group, style in zip(shown, look.each, strict=True):
            drawn += _draw_group(axis, group, key, factor, against, style, crowded=look.are_many)
        beyond.append((loss_axis if key == "loss" else error_axis)(axis, drawn, name))
        axis.set_xlim(left=0)
        if drawn and all(_is_dot(line.get_xdata()) for line in axis.lines):
            axis.set_xlim(right=2 * max(line.get_xdata()[0] for line in axis.lines))  # not on the edge
    axes[1, 0].set_xlabel(_X_NAMES[against])
    if against != "seconds":
        axes[1, 0].xaxis.get_major_locator().set_params(integer=True)
    axes[0, 0].tick_params(labelbottom=False)
    axes[0, 0].sharex(axes[1, 0])
    look.add_legend(figure, [] if look.are_many else _width_handles(), axes=axes)
    alt = f"Loss and error of {len(shown)} groups of runs against {against}."
    caption = " ".join([*_sentences(shown, groups, look), *filter(None, beyond)])
    return Plot(f"curves_{against}", figure, caption, alt)


def same_steps_each_epoch(groups: Sequence[Group]) -> bool:
    """Whether curves against steps would differ from those against epochs only in the scale of the axis."""
    lines = [line for group in groups for run in group.runs for line in run.metrics]
    return len({line["step"] / line["epoch"] for line in lines if line["epoch"]}) <= 1


def curve(runs: Sequence[Run], key: str, against: Against, factor: float = 1.0) -> Curve | None:
    """The mean over runs of `key` at each evaluation that all of them have; None if there is none."""
    lines = [{line["epoch"]: line for line in run.metrics if line.get(key) is not None} for run in runs]
    lines = [found for found in lines if found]
    epochs = sorted(set.intersection(*(set(found) for found in lines))) if lines else []
    if not epochs:
        return None
    values = [[factor * found[epoch][key] for found in lines] for epoch in epochs]
    x = [statistics.fmean(found[epoch][_X_KEYS[against]] for found in lines) for epoch in epochs]
    return Curve(x, [statistics.fmean(v) for v in values], [min(v) for v in values], [max(v) for v in values])


def _draw_group(
    axis: "Axes", group: Group, key: str, factor: float, against: Against, style: Mapping[str, Any], *, crowded: bool
) -> list[float]:
    """Draw the curves of a group and return the values that they show."""
    runs = shown_runs(group)
    test = curve(runs, f"test_{key}", against, factor)
    train = None if crowded else curve(runs, f"train_{key}", against, factor)
    drawn = []
    if train is not None:
        marker = style["marker"] if _is_dot(train.x) else ""
        axis.plot(train.x, train.mean, **{**style, "marker": marker}, linewidth=_TRAIN_WIDTH, markersize=3)
        drawn += train.mean
    if test is not None:
        marker = (style["marker"] or ".") if _is_dot(test.x) else style["marker"]
        every = math.ceil(len(test.x) / _MOST_MARKED)  # not none, since the legend shows the marker
        width = _CROWDED_WIDTH if crowded and style.get("zorder", 0) < 3 else _TEST_WIDTH
        size = 6.5 if _is_dot(test.x) else 4.5
        axis.plot(test.x, test.mean, **{**style, "marker": marker}, linewidth=width, markersize=size, markevery=every)
        drawn += test.mean
        if len(runs) > 1 and not crowded:
            edge = 12 if _is_dot(test.x) else 0  # one point has no area to be filled
            axis.fill_between(test.x, test.low, test.high, color=style["color"], alpha=0.18, linewidth=edge)
            drawn += [*test.low, *test.high]
    return drawn


def _is_dot(x: Sequence[float]) -> bool:
    """Whether a curve is a single point, which a line would not show."""
    return len(x) == 1


def shown_runs(group: Group) -> list[Run]:
    """The runs with a result; if there are none, the others, as far as they came."""
    return group.done or list(group.runs)


def _width_handles() -> list[Any]:
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color="#555555", linewidth=_TEST_WIDTH, label="test (bold)"),
        Line2D([], [], color="#555555", linewidth=_TRAIN_WIDTH, label="training (thin)"),
    ]


def _sentences(shown: Sequence[Group], groups: Sequence[Group], look: Styles) -> Iterator[str]:
    if look.are_many:
        yield "Test figures alone."
    else:
        yield "Bold: test. Thin: training, the mean over each epoch while the weights moved."
        yield from _other_targets([run for group in shown for run in shown_runs(group)])
    seeds = sorted({len(shown_runs(group)) for group in shown})
    if seeds[-1] > 1:
        number = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        band = "" if look.are_many else "; the band reaches from the lowest to the highest test figure"
        yield f"Lines are means over {number} runs{band}."
    if any(len(run.metrics) == 1 for group in shown for run in shown_runs(group)):
        sizes = "" if look.are_many else ": large for test, small for training"
        yield f"A curve of one evaluation is a mark{sizes}."
    if look.sentence:
        yield look.sentence
    yield from _left_out(shown, groups)


def _other_targets(runs: Sequence[Run]) -> Iterator[str]:
    """Why a training loss may lie above the test loss, whose targets are always the labels."""
    found = [_targets(run) for run in runs]
    named = sorted(set().union(*found))
    if named:
        whose = "The" if all(found) else "In some of the runs the"
        both = " and " if all(of == set(named) for of in found if of) else " or "
        yield f"{whose} training loss is of {both.join(named)}; no test loss is."


def _targets(run: Run) -> set[str]:
    """How a run changes the labels that it trains on, in words."""
    found = set()
    if run.config.get("label_smoothing"):
        found.add("smoothed labels")
    if run.config.get("class_weights"):
        found.add("weighted classes")
    if run.config.get("augment._target_") in _MIXING:
        found.add("mixed pictures")
    return found


def _left_out(shown: Sequence[Group], groups: Sequence[Group]) -> Iterator[str]:
    """What a reader would miss: runs without a result, epochs that not all runs have."""
    lost = sum(run.status != DONE for group in groups for run in group.runs if group.done)
    if lost:
        yield f"Left out of the means: {counted(lost, 'run')} without a result."
    unfinished = [group.label for group in shown if not group.done]
    if unfinished:
        names = "; ".join(unfinished[:3]) + ("; …" if len(unfinished) > 3 else "")
        yield f"As far as the runs came, none of which has a result: {names}."
    if any(a != b for group in shown for a, b in pairwise(len(run.metrics) for run in shown_runs(group))):
        yield "Where runs of a group differ in length, its curve ends with the shortest."

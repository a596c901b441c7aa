"""A benchmark as a picture: horizontal bars of seconds, and the parts of one."""

import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepexp.bench.compare import Ratio
from deepexp.bench.text import short
from deepexp.disk.storage import named_by
from deepexp.errors import InputError
from deepexp.pages import plotting
from deepexp.text.suggest import did_you_mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ENDINGS = (".png", ".svg")
_WIDTH = 8.0  # inches
_BAR_HEIGHT, _MARGIN_HEIGHT, _STACK_HEIGHT = 0.45, 1.1, 2.7
_THICKNESS = 0.62  # of a bar, as a share of the distance to the next
_POINTS_SPREAD = 0.5  # share of a bar's thickness over which the points of its rounds are spread
_NARROW = 0.03  # share of a stack below which a part has no room for its number


@dataclass(frozen=True)
class Bar:
    """One contender: its seconds in each round, and deepexp's ratio to it; None for deepexp itself."""

    label: str
    seconds: Sequence[float]
    ratio: Ratio | None = None


@dataclass(frozen=True)
class Chart:
    """Contenders, deepexp first, and the machine's limit in seconds if there is one."""

    title: str
    bars: Sequence[Bar]
    limit: float | None = None


@dataclass(frozen=True)
class Stack:
    """A time and its parts in seconds, in the order in which they follow each other."""

    title: str
    parts: Mapping[str, float]


def check_path(path: str) -> Path:
    """The file to be written; `InputError` if it has another ending, or there is no folder to write it to."""
    file = Path(os.path.expanduser(path))
    if file.suffix not in ENDINGS:
        meant = did_you_mean(file.suffix, ENDINGS)
        raise InputError(f"plot: {path} is not allowed{meant}; a file that ends in {' or '.join(ENDINGS)}")
    if not file.absolute().parent.is_dir():
        raise InputError(f"plot: there is no folder {file.parent} for {file.name}; make it first")
    if file.is_dir():
        raise InputError(f"plot: {path} is a folder; give the name of a file")
    if not os.access(file.absolute().parent, os.W_OK):
        raise InputError(f"plot: the folder {file.parent} cannot be written to; choose another place for {file.name}")
    return file


def write(charts: Sequence[Chart | Stack], path: Path) -> None:
    """Draw the charts below each other into one file. Raises `RunFailed` if it cannot be written."""
    with named_by("plot=FILE", path):
        plotting.save(draw(charts), path.with_suffix(""), [path.suffix.removeprefix(".")])


def draw(charts: Sequence[Chart | Stack]) -> "Figure":
    """One panel for each chart, below each other."""
    heights = [_height(chart) for chart in charts]
    figure, axes = plotting.figure(_WIDTH, sum(heights), rows=len(charts))
    axes[0, 0].get_gridspec().set_height_ratios(heights)
    for chart, panel in zip(charts, axes[:, 0], strict=True):
        panel.set_title(chart.title, loc="left", fontsize=10.5, pad=18 if _limit(chart) else 8)
        if isinstance(chart, Chart):
            _draw_bars(panel, chart)
        else:
            _draw_stack(panel, chart)
    return figure


def _height(chart: Chart | Stack) -> float:
    return _STACK_HEIGHT if isinstance(chart, Stack) else _MARGIN_HEIGHT + _BAR_HEIGHT * len(chart.bars)


def _limit(chart: Chart | Stack) -> float | None:
    return chart.limit if isinstance(chart, Chart) else None


def _draw_bars(panel: "Axes", chart: Chart) -> None:
    longest = max(max(bar.seconds) for bar in chart.bars)
    scale = _label_seconds(panel, longest)
    for row, bar in enumerate(chart.bars):
        colour = plotting.COLOURS[0] if bar.ratio is None else plotting.GREY
        panel.barh(row, scale * statistics.median(bar.seconds), _THICKNESS, color=colour)
        _draw_rounds(panel, row, [scale * seconds for seconds in bar.seconds])
        end = scale * max(bar.seconds) + 0.015 * scale * longest
        panel.text(end, row, _said(bar), va="center", fontsize=9, gid=f"label-{row}")
    panel.set_yticks(range(len(chart.bars)), [bar.label for bar in chart.bars])
    panel.tick_params(axis="y", length=0)
    panel.grid(axis="y", visible=False)
    panel.set_ylim(len(chart.bars) - 0.5, -0.5)  # the first at the top
    panel.set_xlim(0, 1.6 * scale * longest)  # room for the words
    if chart.limit is not None:
        panel.axvline(scale * chart.limit, color="black", linestyle="--", linewidth=1.2)
        above: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
        words = f"limit of this machine {short(chart.limit)}"
        panel.annotate(words, (scale * chart.limit, 1), (0, 3), ha="left", va="bottom", fontsize=8.5, **above)


def _draw_rounds(panel: "Axes", row: int, seconds: Sequence[float]) -> None:
    """A point for each round, the first at the top."""
    count = len(seconds)
    spread = _POINTS_SPREAD * _THICKNESS
    heights = [row + spread * ((index + 0.5) / count - 0.5) for index in range(count)]
    panel.plot(seconds, heights, "o", markersize=3.6, color="white", markeredgecolor="black", markeredgewidth=0.8)


def _said(bar: Bar) -> str:
    median = short(statistics.median(bar.seconds))
    return median if bar.ratio is None else f"{median}, deepexp / this {bar.ratio.shown()}"


def _draw_stack(panel: "Axes", stack: Stack) -> None:
    """One bar; its parts are numbered, so that the key can be read without colours."""
    whole = sum(stack.parts.values())
    scale = _label_seconds(panel, whole)
    start = 0.0
    for number, (part, seconds) in enumerate(stack.parts.items(), start=1):
        colour = plotting.COLOURS[(number - 1) % len(plotting.COLOURS)]
        label = f"{number}  {part}, {short(seconds)}"
        panel.barh(0, scale * seconds, left=scale * start, color=colour, edgecolor="white", label=label)
        if seconds > _NARROW * whole:
            middle = scale * (start + seconds / 2)
            box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none"}
            panel.text(middle, 0, str(number), ha="center", va="center", fontsize=9, bbox=box)
        start += seconds
    panel.set_yticks([])
    panel.set_ylim(-0.6, 0.6)
    panel.set_xlim(0, scale * whole)
    panel.grid(visible=False)
    panel.legend(loc="upper left", bbox_to_anchor=(0, -0.5), ncols=2, frameon=False, fontsize=9, handlelength=1.2)


def _label_seconds(panel: "Axes", longest: float) -> float:
    """Label the axis with its unit; returns the factor from seconds to it."""
    in_milliseconds = longest < 1
    panel.set_xlabel("time in milliseconds" if in_milliseconds else "time in seconds")
    return 1e3 if in_milliseconds else 1.0

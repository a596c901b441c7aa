"""How several series share a plot: each in a style of its own, or by a colour map, or a few named and the rest grey."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from deepexp.pages import plotting
from deepexp.report.plots.plot import literal, needs_log, numbers, plain_numbers, shortened_labels

if TYPE_CHECKING:
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

MOST_STYLES = 10
"""Up to so many series are told apart by style, more by a colour map, or a few of them are named."""

_LEGEND_POINTS = 9  # size of its letters
_NAMED = 3  # of the best and of the worst
_LIGHTEST = 0.88  # of the colour map: what is lighter cannot be seen on white


@dataclass(frozen=True)
class Styles:
    """The styles of all series of a plot, and what explains them."""

    each: Sequence[Mapping[str, Any]]
    """For each series, colour and line and marker; `zorder` puts those in front that are named."""
    labels: Sequence[str | None]
    """For each series, its line in the legend, or None."""
    sentence: str = ""
    """For the caption: why some have no name."""
    colour_key: str | None = None
    """The key whose value is the colour."""
    values: Sequence[float] = field(default_factory=tuple)
    """The value of that key for each series."""

    @property
    def are_many(self) -> bool:
        """Whether the series are too many for bands, markers and training curves."""
        return len(self.each) > MOST_STYLES

    def add_legend(self, figure: "Figure", more: Sequence[Any] = (), *, axes: Any) -> None:
        """Explain the styles below the axes, or by a colour bar; `more` are further handles with labels."""
        from matplotlib.lines import Line2D

        named = [(style, label) for style, label in zip(self.each, self.labels, strict=True) if label is not None]
        room = int(figure.get_size_inches()[0] * 13)  # characters in a line
        labels = [_in_lines(label, room - 7) for label in shortened_labels([label for _, label in named])]
        lines = [
            Line2D([], [], **{**style, "linewidth": 2}, label=literal(label))
            for (style, _), label in zip(named, labels, strict=True)
        ]
        if handles := [*lines, *more]:
            longest = max(len(line) for handle in handles for line in str(handle.get_label()).splitlines())
            columns = max(1, min(len(handles), 4, room // (longest + 7)))
            figure.legend(
                handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=_LEGEND_POINTS
            )
            _make_room(figure, [str(handle.get_label()).count("\n") + 1 for handle in handles], columns)
        if self.colour_key is not None:
            bar = figure.colorbar(_mappable(self.values), ax=axes, label=literal(self.colour_key))
            if needs_log(self.values):
                bar.ax.yaxis.set_major_formatter(plain_numbers())


def _make_room(figure: "Figure", lines: Sequence[int], columns: int) -> None:
    """Make the figure higher by what its legend takes of it beyond a quarter; `lines`: of each of its entries."""
    entries = -(-len(lines) // columns)  # in a column
    inches = (sum(sorted(lines)[-entries:]) * 1.2 + entries * 0.5) * _LEGEND_POINTS / 72  # a line, and a gap
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + max(0.0, inches - height / 4))


def _in_lines(label: str, width: int) -> str:
    """A label in as many lines as it needs, broken between its settings where it can be."""
    return "\n".join(textwrap.wrap(label, width, break_on_hyphens=False)) or label


def styles(labels: Sequence[str], values: Sequence[Mapping[str, object]], scores: Sequence[float]) -> Styles:
    """Styles for series with these labels; `values`: what varies among them; `scores`: lower is better, NaN if none."""
    if len(labels) <= MOST_STYLES:
        return Styles(_styles_of_few(values), list(labels))
    key = _numeric_key(values)
    if key is not None:
        known = numbers(value[key] for value in values) or []
        colours = _mappable(known).to_rgba(np.array(known))  # (series, 4)
        each = [{"color": colour, "linestyle": "-", "marker": ""} for colour in colours]
        return Styles(each, [None] * len(labels), "", key, known)
    return _few_named(labels, scores)


def _styles_of_few(values: Sequence[Mapping[str, object]]) -> list[dict[str, Any]]:
    """With two keys, the colour is the value of one and the line that of the other."""
    keys = list(values[0]) if values else []
    found = [list(dict.fromkeys(repr(value[key]) for value in values)) for key in keys]
    if len(keys) != 2 or len(found[0]) > len(plotting.COLOURS) or not 1 < len(found[1]) <= 4 or len(found[0]) < 2:
        return [plotting.series_style(index) for index in range(len(values))]
    styles = []
    for value in values:
        first, second = (names.index(repr(value[key])) for names, key in zip(found, keys, strict=True))
        line = plotting.series_style(second)
        styles.append({**line, "color": plotting.series_style(first)["color"]})
    return styles


def _numeric_key(values: Sequence[Mapping[str, object]]) -> str | None:
    """The numeric key with the most values, if those are more than three."""
    counts = {key: len({repr(value[key]) for value in values}) for key in values[0]}
    numeric = [key for key in counts if counts[key] > 3 and numbers(value[key] for value in values) is not None]
    return max(numeric, key=lambda key: counts[key], default=None)


def _few_named(labels: Sequence[str], scores: Sequence[float]) -> Styles:
    order = [index for index in sorted(range(len(labels)), key=lambda i: scores[i]) if math.isfinite(scores[index])]
    named = list(dict.fromkeys([*order[:_NAMED], *order[-_NAMED:]]))
    grey = {"color": "#B8B8B8", "linestyle": "-", "marker": "", "zorder": 1.5}
    each: list[Mapping[str, Any]] = [grey] * len(labels)
    for place, index in enumerate(named):
        each[index] = {**plotting.series_style(place), "zorder": 3}
    shown = [label if index in named else None for index, label in enumerate(labels)]
    sentence = (
        f"The {_NAMED} lowest and the {_NAMED} highest final test errors of {len(labels):,} are named, the rest grey."
    )
    return Styles(each, shown, sentence)


def _mappable(values: Sequence[float]) -> "ScalarMappable":
    """The colour map from the smallest to the largest value, logarithmic if `needs_log`."""
    import matplotlib
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, LogNorm, Normalize

    scale = LogNorm if needs_log(values) else Normalize
    whole = matplotlib.colormaps[plotting.SEQUENTIAL]
    shades = ListedColormap([whole(_LIGHTEST * step / 255) for step in range(256)])
    return ScalarMappable(scale(min(values), max(values)), shades)

"""Runs over more than two keys: an axis for each key and one for the test error, a line through them for each group."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deepexp.pages import plotting
from deepexp.report.plots.plot import Missing, Plot, literal, needs_log, numbers, shortened
from deepexp.report.variation import Group, text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_AXES = 8
_MOST_TICKS = 7


@dataclass(frozen=True)
class Scale:
    """Where the values of a key lie on its axis, from 0 to 1, and which are written beside it."""

    places: list[float]
    ticks: list[tuple[float, str]]


def draw(groups: Sequence[Group], keys: Sequence[str]) -> Plot | Missing:
    """The parallel coordinates over more than two keys; the worst groups are drawn first, the best over them."""
    if len(keys) < 3:
        return Missing(f"parallel coordinates are for more than two keys, and {len(keys)} vary")
    shown = list(keys[:_MOST_AXES])
    errors = 100 * np.array([group.mean_or("test_error_rate", math.nan) for group in groups])
    known = errors[~np.isnan(errors)]
    if not len(known):
        return Missing("no run has a result")
    columns = [_scale([group.values[key] for group in groups]) for key in shown]
    last = _scale_of_errors(errors, known)
    figure, axes = plotting.figure(max(6.4, 1.35 * (len(shown) + 1)), 4.6)
    axis = axes[0, 0]
    places = np.array([scale.places for scale in [*columns, last]]).T  # (groups, axes)
    _draw_lines(axis, places, failed=np.isnan(errors))
    for index, scale in enumerate([*columns, last]):
        _draw_scale(axis, index, scale)
    names = [literal(shortened(key, 18)) for key in shown]
    axis.set_xticks(range(len(names) + 1), [*names, "test error (%)"])
    return Plot("parallel_coordinates", figure, _caption(errors, keys, shown), f"Test error over {', '.join(shown)}.")


def _caption(errors: np.ndarray, keys: Sequence[str], shown: Sequence[str]) -> str:
    caption = f"One line for each of {len(errors):,} groups, through its values to its mean test error, its colour too."
    if needs_log(errors[~np.isnan(errors)]):
        caption += " The axis of the error is logarithmic."
    if np.isnan(errors).any():
        caption += f" Dotted, to ×: {int(np.isnan(errors).sum()):,} groups without a result."
    if len(shown) < len(keys):
        caption += f" Left out: {', '.join(keys[len(shown) :])}."
    return caption


def _scale(values: Sequence[object]) -> Scale:
    """Numbers by their size (logarithmic if `needs_log`), anything else evenly in order of appearance."""
    known = numbers(values)
    if known is None:
        names = list(dict.fromkeys(text(value) for value in values))
        step = 1 / max(len(names) - 1, 1)
        written = [(index * step, name) for index, name in enumerate(names)]
        return Scale([names.index(text(value)) * step for value in values], _some(written))
    transform = np.log10 if needs_log(known) else np.asarray
    numeric = np.asarray(transform(np.array(known)), dtype=float)
    low, width = numeric.min(), float(np.ptp(numeric)) or 1.0
    places = ((numeric - low) / width).tolist()
    written = sorted({place: text(value) for place, value in zip(places, values, strict=True)}.items())
    return Scale(places, _some(written))


def _some(ticks: list[tuple[float, str]]) -> list[tuple[float, str]]:
    """No more ticks than can be read, evenly chosen, the first and the last among them."""
    if len(ticks) <= _MOST_TICKS:
        return ticks
    return [ticks[index] for index in np.linspace(0, len(ticks) - 1, _MOST_TICKS).round().astype(int)]


def _scale_of_errors(errors: np.ndarray, known: np.ndarray) -> Scale:
    """The axis of the error, low at the bottom; groups without one are above its top."""
    transform = np.log10 if needs_log(known) else np.asarray
    low, high = float(transform(known.min())), float(transform(known.max()))
    width = (high - low) or 1.0
    places = np.where(np.isnan(errors), 1.06, (transform(np.nan_to_num(errors, nan=known.min())) - low) / width)
    values = low + np.linspace(0, 1, 5) * width
    shown = 10**values if needs_log(known) else values
    ticks = [(place, f"{value:.3g}") for place, value in zip(np.linspace(0, 1, 5).tolist(), shown, strict=True)]
    return Scale(places.tolist(), ticks)


def _draw_lines(axis: "Axes", places: np.ndarray, *, failed: np.ndarray) -> None:
    import matplotlib
    from matplotlib.collections import LineCollection

    order = np.argsort(-places[:, -1])  # the lowest error last, and so on top
    colours = matplotlib.colormaps[plotting.SEQUENTIAL](0.9 * np.clip(places[:, -1], 0, 1))
    width = 1.6 if len(places) <= 60 else 0.9
    paths = [np.column_stack([np.arange(places.shape[1]), row]) for row in places]
    lines = LineCollection(
        [paths[index] for index in order],
        colors=[plotting.GREY if failed[index] else colours[index] for index in order],
        linestyles=[":" if failed[index] else "-" for index in order],
        linewidths=width,
        alpha=0.85,
    )
    axis.add_collection(lines)
    if failed.any():
        axis.text(places.shape[1] - 1, 1.06, "×", ha="center", va="center", fontsize=13)
    axis.set_xlim(-0.25, places.shape[1] - 1 + 0.25)
    axis.set_ylim(-0.05, 1.12)
    axis.set_yticks([])
    axis.spines[:].set_visible(False)
    axis.grid(visible=False)
    axis.tick_params(axis="x", length=0)


def _draw_scale(axis: "Axes", index: int, scale: Scale) -> None:
    axis.plot([index, index], [0, 1], color="black", linewidth=1, zorder=3)
    for place, name in scale.ticks:
        box = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 0.8}
        axis.text(index + 0.04, place, literal(shortened(name, 12)), fontsize=8, va="center", bbox=box, zorder=4)

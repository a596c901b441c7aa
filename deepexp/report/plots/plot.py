"""What every kind of plot returns, and what they share: axes of errors, numbers as labels, names that fit."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import Formatter

LOG_FROM = 20
"""The ratio of the largest to the smallest value from which on an axis is logarithmic."""

_EXPLODED = 1e4  # times the median loss
_EDGE = 1.25  # times the highest loss
_LONGEST_LABEL = 44
_TOP = 1.03  # of the axes' height: where a missing result is marked


@dataclass(frozen=True)
class Plot:
    """A picture with what has to be said about it."""

    name: str
    """The name of its files, without a suffix."""
    figure: "Figure"
    caption: str
    """What is drawn: which runs, means of what, what bands are, what was left out."""
    alt: str
    """What it shows, in words, for readers who cannot see it."""


@dataclass(frozen=True)
class Missing:
    """Why there is no plot: the runs do not have what it needs."""

    reason: str


def numbers(values: Iterable[object]) -> list[float] | None:
    """The values as floats; None if one of them is not a number, as true and false are not."""
    found = list(values)
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in found):
        return None
    return [float(value) for value in found]  # type: ignore[arg-type]


def needs_log(values: Iterable[float]) -> bool:
    """Whether a linear axis would hide the smaller values."""
    known = [value for value in values if math.isfinite(value)]
    return bool(known) and min(known) > 0 and max(known) > LOG_FROM * min(known)


def value_axis(axis: "Axes", values: Sequence[float], name: str) -> None:
    """Give the y axis its name and range: from zero, or logarithmic if `needs_log`."""
    if needs_log(values):
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(plain_numbers())
        axis.yaxis.set_minor_formatter(plain_numbers(minor=True))
        axis.set_ylabel(f"{name}, log scale")
        return
    axis.set_ylabel(name)
    if min(values, default=0) >= 0:
        axis.set_ylim(bottom=0, top=None if any(values) else 1)


def loss_axis(axis: "Axes", losses: Sequence[float], name: str) -> str:
    """As `value_axis`, but what has exploded lies beyond the axis; returns a sentence about that, or nothing."""
    highest = _highest_of_use(losses)
    if highest is None:
        value_axis(axis, losses, name)
        return ""
    usual = [loss for loss in losses if loss <= highest]
    value_axis(axis, usual, name)
    bottom = min(usual) / _EDGE if axis.get_yscale() == "log" else min(0.0, min(usual) * _EDGE)
    axis.set_ylim(bottom, highest * _EDGE)
    most = max(filter(math.isfinite, losses))
    return f"Losses above {highest:.3g}, up to {most:.0e}, lie beyond the upper edge."


def error_axis(axis: "Axes", errors: Sequence[float], name: str) -> str:
    """As `value_axis`, and logarithmic although some errors are 0; returns a sentence about those, or nothing."""
    positive = [error for error in errors if error > 0]
    if len(positive) == len(errors) or not needs_log(positive):
        value_axis(axis, errors, name)
        return ""
    value_axis(axis, positive, name)
    axis.set_ylim(min(positive) / _EDGE, max(filter(math.isfinite, positive)) * _EDGE)
    return "Errors of 0 lie beyond the lower edge."


def _highest_of_use(losses: Sequence[float]) -> float | None:
    """The highest loss to be shown, where some are so much higher that the others would all seem the same."""
    known = [loss for loss in losses if math.isfinite(loss)]
    limit = _EXPLODED * statistics.median(known) if known else 0.0
    usual = [loss for loss in known if loss <= limit]
    return max(usual) if limit > 0 and len(usual) < len(known) else None


def log_numbers(axis: "Axes") -> None:
    """Make the x axis logarithmic, with its numbers written out."""
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(plain_numbers())
    axis.xaxis.set_minor_formatter(plain_numbers(minor=True))


def mark_missing(axis: "Axes", places: Sequence[float], colour: Any) -> None:
    """Put a × at the top edge above each of these places on the x axis, where there is no result."""
    edge = axis.get_xaxis_transform()
    axis.plot(places, [_TOP] * len(places), "x", color=colour, transform=edge, clip_on=False, markeredgewidth=2)


def shortened(text: str, longest: int) -> str:
    """A label that leaves room for the picture; its middle is left out where it is longer."""
    if len(text) <= longest:
        return text
    half = (longest - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


def shortened_labels(labels: Sequence[str], longest: int = _LONGEST_LABEL) -> list[str]:
    """Labels of groups, shortened together: different ones stay different, if need be by staying long.

    Where one is too long, keys lose their group (`optim.lr=0.1` becomes `lr=0.1`) before something is left out.
    """
    if max(map(len, labels), default=0) <= longest:
        return list(labels)
    for made in ([_without_groups(label) for label in labels], list(labels)):
        fitting = [shortened(label, longest) for label in made]
        for shorter in (fitting, made):
            if len(set(shorter)) == len(set(labels)):
                return shorter
    return list(labels)


def _without_groups(label: str) -> str:
    parts = [part.partition("=") for part in label.split(", ")]
    names = [key.rpartition(".")[2] for key, _, _ in parts]
    if len(set(names)) < len(names):
        return label
    return ", ".join(f"{name}{equals}{value}" for name, (_, equals, value) in zip(names, parts, strict=True))


def literal(text: str) -> str:
    """A text escaped for matplotlib: dollar signs are shown as such, and bytes that are no text as numbers."""
    return text.encode(errors="backslashreplace").decode().replace("$", r"\$")


def plain_numbers(*, minor: bool = False) -> "Formatter":
    """`0.05` and not 5×10⁻²; of minor ticks, only those of 2 and 5 where the axis spans few decades."""
    from matplotlib.ticker import LogFormatter

    class Plain(LogFormatter):
        def __call__(self, x: float, pos: int | None = None) -> str:  # noqa: ARG002 - matplotlib's signature
            mantissa = x / 10 ** math.floor(math.log10(x) + 1e-9)
            if minor and (self._decades() > 2.5 or round(mantissa) not in (2, 5)):
                return ""
            if 1000 <= x < 1e6:
                return f"{x:,.0f}"
            return f"{x:.3g}" if 1e-4 <= x < 1000 else f"{x:.0e}".replace("e-0", "e-").replace("e+0", "e")

        def _decades(self) -> float:
            assert self.axis is not None
            low, high = sorted(self.axis.get_view_interval())
            return math.log10(high / low)

    return Plain(minor_thresholds=(math.inf, math.inf))

"""The house style of every plot: sizes, colours, lines, and how a figure becomes a file or a part of a page.

matplotlib is imported when something is drawn, takes no window and leaves its global state as it was. What a plot shows
is not decided here.
"""

import hashlib
import io
import re
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepexp.disk.storage import write_atomically

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from matplotlib.text import Text

COLOURS: tuple[str, ...] = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000")
"""Okabe and Ito (2008), told apart by colour-blind people, in an order in which neighbours differ in lightness too.

Their yellow is left out: lines of it cannot be seen on white paper."""

GREY = "#8A8A8A"
"""For what is in the background: grid-like lines, series that are not named."""

PIXELS_PER_INCH = 192
"""The resolution of PNG files: twice what a page shows, so that they stay sharp on fine screens and in print."""

FORMATS = ("png", "svg")
"""The formats of a saved picture, where no others are asked for; `pdf` is another."""

SEQUENTIAL = "viridis"
"""The colour map of a quantity; perceptually uniform, and lightness alone carries it in grey print."""

_LINES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)), (0, (3, 1, 1, 1, 1, 1)))
_MARKERS = ("o", "s", "^", "D", "v", "X", "P", "<")

# Settings that matplotlib reads when axes are made and when a figure is drawn. Others (line widths, titles) keep its
# defaults, or are set in the plots.
_STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Helvetica Neue", "Arial", "sans-serif"],
    "font.size": 10,
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.unicode_minus": True,
    "grid.color": "#D9D9D9",
    "grid.linewidth": 0.6,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "figure.facecolor": "white",
    "figure.autolayout": False,
    "figure.constrained_layout.use": False,
    "savefig.facecolor": "white",
    "mathtext.default": "regular",
    "pdf.fonttype": 42,  # TrueType: some publishers refuse Type 3
}
_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_REFERENCE = re.compile(r"#([A-Za-z][\w.-]*)")
_REFERRING = frozenset({f"{{{_XLINK}}}href", "style", "clip-path"})


def figure(
    width: float = 6.4, height: float = 4.0, *, rows: int = 1, columns: int = 1
) -> tuple["Figure", "np.ndarray"]:
    """A figure of `width` by `height` inches and its axes, an array of shape (rows, columns) always."""
    from matplotlib.figure import Figure

    with _style():
        drawn = Figure(figsize=(width, height), dpi=PIXELS_PER_INCH, layout="constrained")
        axes = drawn.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_prop_cycle(color=COLOURS)
    return drawn, axes


def series_style(index: int) -> dict[str, Any]:
    """Arguments of `Axes.plot` for series number `index`: colour, line and marker.

    35 combinations of colour and line, and 40 of line and marker, which remain without colour.
    """
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": _LINES[index % len(_LINES)],
        "marker": _MARKERS[index % len(_MARKERS)],
    }


def slant(labels: "Sequence[Text]", degrees: float) -> None:
    """Turn the labels below an axis so that each ends at its tick, where long ones have room."""
    for label in labels:
        label.set(rotation=degrees, ha="right", rotation_mode="anchor")


def save(figure: "Figure", path_without_suffix: Path, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Write the figure once for each format, as `NAME.png` and so on; the same figure gives the same bytes.

    Letters in an SVG are outlines, so that it looks the same wherever it is opened or printed; a PDF holds their font.
    Raises `RunFailed` if a file cannot be written.
    """
    written = []
    for suffix in formats:
        path = path_without_suffix.with_name(f"{path_without_suffix.name}.{suffix}")  # a name may have dots of its own
        write_atomically(path, _drawn(figure, suffix, letters="path"))
        written.append(path)
    return written


def as_png(figure: "Figure") -> bytes:
    """The figure as the content of a PNG file."""
    return _drawn(figure, "png")


def as_svg(figure: "Figure") -> str:
    """The figure as an `<svg>` element that can stand in one HTML page with others.

    Letters stay letters, which can be searched and copied. Its identifiers are its own, and its style does not apply to
    other elements.
    """
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    content = _drawn(figure, "svg", letters="none")
    root = ElementTree.fromstring(content)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    root.set("style", "stroke-linejoin: round; stroke-linecap: butt")  # as the removed element said
    _rename_identifiers(root, f"f{hashlib.sha256(content).hexdigest()[:8]}-")
    return ElementTree.tostring(root, encoding="unicode")


def _rename_identifiers(root: ElementTree.Element, prefix: str) -> None:
    """Give the identifiers that something refers to a prefix, and drop all others."""
    names = {element.get("id") for element in root.iter()}
    used: set[str] = set()

    def prefixed(found: re.Match[str]) -> str:
        if found[1] not in names:  # a colour
            return found[0]
        used.add(found[1])
        return f"#{prefix}{found[1]}"

    for element in root.iter():
        for key in _REFERRING.intersection(element.keys()):
            element.set(key, _REFERENCE.sub(prefixed, element.attrib[key]))
    for element in root.iter():
        name = element.attrib.pop("id", None)
        if name in used:
            element.set("id", f"{prefix}{name}")


def _drawn(figure: "Figure", suffix: str, letters: str = "path") -> bytes:
    """The content of the figure's file, without a date or a version in it."""
    unsaid = {
        "png": {"Software": None},
        "svg": {"Date": None, "Creator": None},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    }
    buffer = io.BytesIO()
    with _style({"svg.fonttype": letters, "svg.hashsalt": "deepexp"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)  # a box is drawn in its place
        _lay_out(figure)
        figure.savefig(buffer, format=suffix, dpi=PIXELS_PER_INCH, metadata=unsaid.get(suffix, {}))
    return buffer.getvalue()


def _lay_out(figure: "Figure") -> None:
    """Find the places of axes and legends, which takes as long as drawing, once for all formats."""
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()
        figure.set_layout_engine(None)  # that is none: the style has no other one


@contextmanager
def _style(more: Mapping[str, str] | None = None) -> Iterator[None]:
    import matplotlib

    settings: Any = _STYLE | dict(more or {})
    with matplotlib.rc_context(settings):
        yield

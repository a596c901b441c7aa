"""Figures of a benchmark in words and columns."""

from collections.abc import Iterator, Sequence

from deepexp.units import duration


def short(seconds: float) -> str:
    """`0.153 ms`, `7.62 ms`, `12.3 s`: what is short needs its digits."""
    return f"{1e3 * seconds:.3g} ms" if seconds < 1 else duration(seconds)


def table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Columns as wide as they need to be, figures to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for first, *figures in rows:
        cells = [figure.rjust(width) for figure, width in zip(figures, widths[1:], strict=True)]
        yield "   ".join([first.ljust(widths[0]), *cells]).rstrip()

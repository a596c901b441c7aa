"""Figures of a benchmark in words."""

from deepexp.text.units import duration


def short(seconds: float) -> str:
    """`0.153 ms`, `7.62 ms`, `12.3 s`: three digits below a second."""
    return f"{1e3 * seconds:.3g} ms" if seconds < 1 else duration(seconds)

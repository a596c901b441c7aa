"""Contenders in turns, so that a machine that is busy with other things slows them all alike."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
Measured = dict[str, list[float]]
"""Contender → its figure in each round."""


@dataclass(frozen=True)
class Ratio:
    """The ratio of two contenders within a round: its median over the rounds, the lowest and the highest."""

    median: float
    lowest: float
    highest: float

    def shown(self) -> str:
        """`0.33 (0.25–0.40)`; without the range where there was one round only."""
        several = f" ({self.lowest:.2f}–{self.highest:.2f})" if self.lowest != self.highest else ""
        return f"{self.median:.2f}{several}"


def rounds(contenders: dict[str, T], measure: Callable[[T], float], count: int, tell: Callable[[], None]) -> Measured:
    """Measure each contender once in each round, beginning each time with the next one; `tell` after each turn."""
    figures: Measured = {name: [] for name in contenders}
    names = list(contenders)
    for turn in range(count):
        for name in _rotated(names, turn):
            figures[name].append(measure(contenders[name]))
            tell()
    return figures


def ratio(figures: Measured, of: str, to: str) -> Ratio:
    """`of` over `to`, round by round, so that what slows down a whole round cancels out."""
    ratios = [ours / theirs for ours, theirs in zip(figures[of], figures[to], strict=True)]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios))


def ratios(figures: Measured, of: str) -> dict[str, Ratio]:
    """The ratio of `of` to each of the others."""
    return {name: ratio(figures, of, name) for name in figures if name != of}


def medians(figures: Measured) -> dict[str, float]:
    """The median of each contender's figures over the rounds."""
    return {name: statistics.median(values) for name, values in figures.items()}


def _rotated(names: Sequence[str], turn: int) -> Iterable[str]:
    start = turn % len(names)
    return [*names[start:], *names[:start]]

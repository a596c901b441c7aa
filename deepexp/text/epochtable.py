"""The columns of the lines that the console prints for each epoch."""

from collections.abc import Callable
from dataclasses import dataclass

from deepexp.metrics import EpochMetrics
from deepexp.text.units import amount, duration, percent

_SEPARATOR = "  "


@dataclass(frozen=True)
class _Column:
    title: str
    width: int
    rank: int  # where there is little room, the columns of highest rank are left out
    text: Callable[[EpochMetrics], str]


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if value < 1000 else f"{value:.3g}"


def _rate(value: float | None) -> str:
    return "-" if value is None else percent(value)


_VALIDATION = (
    _Column("val loss", 8, 8, lambda m: _number(m.val_loss)),
    _Column("val err", 7, 3, lambda m: _rate(m.val_error_rate)),
)


class EpochTable:
    """Lines of one width with the most useful columns that `width` has room for."""

    def __init__(self, epochs: int, width: int, *, has_validation: bool) -> None:
        digits = len(str(epochs))
        columns = (
            _Column("epoch", max(5, 2 * digits + 1), 0, lambda m: f"{m.epoch:>{digits}}/{epochs}"),
            _Column("train loss", 10, 2, lambda m: _number(m.train_loss)),
            _Column("train err", 9, 5, lambda m: _rate(m.train_error_rate)),
            *(_VALIDATION if has_validation else ()),
            _Column("test loss", 9, 4, lambda m: _number(m.test_loss)),
            _Column("test err", 8, 1, lambda m: _rate(m.test_error_rate)),
            _Column("errors", 6, 3, lambda m: _count(m.test_errors)),
            _Column("samples/s", 9, 7, lambda m: amount(m.samples_per_second)),
            _Column("time", 7, 6, lambda m: duration(m.train_seconds + m.test_seconds)),
            _Column("lr", 9, 9, lambda m: f"{m.lr:.3g}"),
            _Column("grad norm", 9, 10, lambda m: _number(m.grad_norm)),
            _Column("elapsed", 7, 11, lambda m: duration(m.elapsed_seconds)),
        )
        self._columns = _fitting(columns, width)
        self.has_title = False

    def title(self) -> str:
        """The names of the columns."""
        self.has_title = True
        return _SEPARATOR.join(f"{c.title:>{c.width}}" for c in self._columns)

    def line(self, metrics: EpochMetrics) -> str:
        """One epoch's figures, below their names."""
        return _SEPARATOR.join(f"{c.text(metrics):>{c.width}}" for c in self._columns)


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _fitting(columns: tuple[_Column, ...], width: int) -> list[_Column]:
    """The columns of lowest rank, in their order, that fit into `width`."""
    kept = list(columns)
    while len(kept) > 1 and sum(c.width + len(_SEPARATOR) for c in kept) - len(_SEPARATOR) > width:
        kept.remove(max(kept, key=lambda column: column.rank))
    return kept

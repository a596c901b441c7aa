"""Where an update spends its time, as a table; `operations.py` finds it out."""

from dataclasses import dataclass

from deepexp.bench.text import short
from deepexp.text.text_table import Table
from deepexp.text.units import percent

_ROWS = 12
_NAME_WIDTH = 46  # so that the table fits in 80 columns


@dataclass(frozen=True)
class Operation:
    """An operation: its calls in an update, and the seconds of all of them without the operations that they call."""

    name: str
    calls: float
    seconds: float


@dataclass(frozen=True)
class Breakdown:
    """Where an update spends its time; `seconds`: of the whole update, the profiler's own work included."""

    seconds: float
    operations: list[Operation]
    """The longest first."""

    @property
    def outside(self) -> float:
        """Seconds in no operation: on a CPU Python's, on a GPU those in which it is idle."""
        return max(0.0, self.seconds - sum(operation.seconds for operation in self.operations))

    def table(self) -> Table:
        """The longest operations, and the rest in two rows."""
        shown, others = self.operations[:_ROWS], self.operations[_ROWS:]
        rows = [self._row(_fitted(one.name), one.calls, one.seconds) for one in shown]
        if others:
            calls, seconds = sum(one.calls for one in others), sum(one.seconds for one in others)
            rows.append(self._row(f"{len(others)} others", calls, seconds))
        rows.append(self._row("outside of these", None, self.outside))
        return Table(["where deepexp's step spends its time", "calls", "time", "share"], rows, frozenset({1, 2, 3}))

    def _row(self, name: str, calls: float | None, seconds: float) -> tuple[str, ...]:
        return name, "" if calls is None else f"{calls:.4g}", short(seconds), percent(seconds / self.seconds)


def _fitted(name: str) -> str:
    """The name, shortened: a kernel's has its types in it, and can be a page long."""
    for part in ("void ", "at::native::", "(anonymous namespace)::"):
        name = name.replace(part, "")
    return name if len(name) <= _NAME_WIDTH else f"{name[: _NAME_WIDTH - 1]}…"

"""What a run shows on the terminal: a header, a progress bar, a line for each epoch, and how it ended.

Results go to standard output, progress and warnings to standard error: each of the two is shown
with colours and a live bar if it is a terminal, and as plain lines without control characters if
not. Sentences and columns are made here; how a stream is written to, in `terminal.py`.
"""

import contextlib
import contextvars
import io
import logging
import math
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal

from deepexp.metrics import EpochMetrics, Summary
from deepexp.text.epochtable import EpochTable
from deepexp.text.terminal import StatusLine, Stream, line_with_bar, printable
from deepexp.text.units import amount, clock, counted, duration, percent

Mode = Literal["auto", "plain", "quiet"]

_REDRAW_SECONDS = 0.1
_WIDE = 100  # columns, from where on units are written out
_PLAIN_SECONDS = 60.0  # between lines of progress where there is no bar
_current: contextvars.ContextVar["Console | None"] = contextvars.ContextVar("console", default=None)


@dataclass(frozen=True)
class Header:
    """What a run is, in words."""

    model: str
    parameters: int
    data: str
    device: str
    directory: Path
    more: Mapping[str, str] = field(default_factory=dict)

    def rows(self) -> dict[str, str]:
        """Names and values in the order in which they are shown."""
        return {
            "model": f"{self.model}, {counted(self.parameters, 'parameter')}",
            "data": self.data,
            "device": self.device,
            **self.more,
            "run directory": short_path(self.directory),
        }


@dataclass(frozen=True)
class Horizon:
    """How far a run goes and where it stands, counted in updates."""

    epochs: int
    steps_per_epoch: int
    total_steps: int
    step: int = 0  # updates made before the run was resumed
    seconds: float | None = None  # that are left to it, if its time is limited


class Console:
    """Shows one run. As a context it also shows the warnings of deepexp's loggers.

    `mode`: `auto` as described above; `plain` without colours and bars, as a sweep's job has it; `quiet`: nothing.
    """

    def __init__(self, mode: Mode = "auto") -> None:
        self.mode = mode
        self._out, self._err = Stream(sys.stdout), Stream(sys.stderr)
        if mode != "auto":
            for stream in (self._out, self._err):
                stream.is_terminal = stream.has_colour = False
        self._status = StatusLine(self._err)
        self._handler = _WarningHandler(self)
        self._epochs: EpochTable | None = None
        self._horizon = Horizon(0, 1, 0)
        self._began: float | None = None
        self._first_step = 0
        self._next_progress = math.inf
        self._samples = 0
        self._loss: float | None = None
        self._samples_per_second: float | None = None
        self._test_error_rate: float | None = None
        self._token: contextvars.Token[Console | None] | None = None

    @property
    def handler(self) -> logging.Handler:
        """Shows the warnings of any logger that it is added to."""
        return self._handler

    def __enter__(self) -> "Console":
        self._token = _current.set(self)
        logging.getLogger("deepexp").addHandler(self._handler)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end_progress()
        logging.getLogger("deepexp").removeHandler(self._handler)
        if self._token is not None:
            _current.reset(self._token)

    def header(self, header: Header) -> None:
        """Say what is being trained."""
        if self.mode == "quiet":
            return
        rows = {name: printable(value) for name, value in header.rows().items()}
        if self._out.is_terminal:
            self._write(_panel(rows, self._out))
        else:
            width = max(map(len, rows))
            self._write("".join(f"{name:<{width}}  {value}\n" for name, value in rows.items()))

    def begin(self, horizon: Horizon, *, has_validation: bool) -> None:
        """Start the progress bar, and choose the columns of the epochs' lines."""
        self._horizon = horizon
        if self.mode == "quiet":
            return
        self._epochs = EpochTable(horizon.epochs, self._out.width, has_validation=has_validation)
        self._next_progress = 0.0

    def tick(self, step: int, samples: int) -> None:
        """After each update, of `samples` samples: the `step` reached. Costs under a microsecond."""
        self._samples += samples
        if time.perf_counter() >= self._next_progress:
            self._show_progress(step)

    def reading(self, loss: float, samples_per_second: float) -> None:
        """The latest figures, for the progress bar."""
        self._loss, self._samples_per_second = loss, samples_per_second

    def epoch(self, metrics: EpochMetrics) -> None:
        """Print the line of an epoch, which stays."""
        self._test_error_rate = metrics.test_error_rate
        if self._epochs is None:
            return
        if not self._epochs.has_title:
            self.print(self._epochs.title(), style="bold")
        self.print(self._epochs.line(metrics))

    def finish(self, summary: Summary, early: str | None, directory: Path, logdir: Path) -> None:
        """Print the result, what ended the run before all of its epochs (`early`), and how to look further."""
        self._end_progress()
        errors = f"{summary.test_errors:,} of {summary.test_samples:,}"
        result = f"test error {percent(summary.test_error_rate)} ({errors})"
        epochs = counted(summary.epochs, "epoch")
        if early:
            epochs = f"{summary.epochs} of {counted(self._horizon.epochs, 'epoch')} ({early})"
        if summary.epochs == 0:
            epochs = f"{counted(summary.steps, 'update')} ({early})"
        took = f"after {epochs}, {duration(summary.total_seconds)}"
        self.print(f"done: {result} {took}", style="good")
        self.print(f"run directory: {short_path(directory)}")
        self.print(f"curves and pictures: tensorboard --logdir {shlex.quote(short_path(logdir))}")

    def stopped(self, reason: str, directory: Path, *, can_go_on: bool) -> None:
        """Print why a run ended before its time, and the command that resumes it, if any."""
        self._end_progress()
        self.print(printable(reason), style="bad")
        if can_go_on:
            resume = shlex.quote(f"resume={short_path(directory)}")
            self.print(f"go on with: deepexp train {resume}")

    def print(self, text: str, style: str = "") -> None:
        """A line on standard output that stays, above the progress bar."""
        if self.mode != "quiet":
            self._write(f"{self._out.styled(text, style)}\n")

    @property
    def width(self) -> int | None:
        """See `Stream.columns`."""
        return self._out.columns

    def warn(self, text: str) -> None:
        """A warning on standard error, above the progress bar."""
        if self.mode == "quiet":
            return
        self._status.hide()
        lines = "\n".join(printable(line) for line in text.splitlines())
        self._err.write(self._err.styled(f"warning: {lines}", "warning") + "\n")
        self._status.show()

    def status(self, lines: Callable[[Stream], Sequence[str]]) -> None:
        """Draw lines below everything else, in place of those before; nothing where there is no terminal."""
        if self._err.is_terminal and self.mode == "auto":
            self._status.draw("\n".join(lines(self._err)))

    def _write(self, text: str) -> None:
        self._status.hide()
        self._out.write(text)
        self._status.show()

    def _end_progress(self) -> None:
        self._next_progress = math.inf
        self._status.clear()

    def _show_progress(self, step: int) -> None:
        now = time.perf_counter()
        if self._began is None:  # the first update: what went before it does not count for the pace
            self._began, self._first_step, self._samples = now, step, 0
        fraction = step / max(self._horizon.total_steps, 1)
        parts = self._progress_parts(step, now - self._began)
        if self._err.is_terminal:
            self._status.draw(line_with_bar(self._err, fraction, parts))
            self._next_progress = now + _REDRAW_SECONDS
        else:
            if step > self._first_step:
                self._err.write(f"{fraction:.0%}, {', '.join(parts)}\n")
            self._next_progress = now + _PLAIN_SECONDS

    def _progress_parts(self, step: int, elapsed: float) -> list[str]:
        """What is shown beside the bar, the most important first."""
        horizon, steps = self._horizon, step - self._first_step
        left = elapsed / max(steps, 1) * max(horizon.total_steps - step, 0)
        if horizon.seconds is not None:
            left = min(left, max(horizon.seconds - elapsed, 0))
        per_second = self._samples_per_second or self._samples / max(elapsed, 1e-9)
        parts = [f"epoch {math.ceil(step / horizon.steps_per_epoch)}/{horizon.epochs}"]
        if self._loss is not None:
            parts.append(f"loss {self._loss:.4f}")
        if self._test_error_rate is not None:
            parts.append(f"test {percent(self._test_error_rate)}")
        unit = " samples/s" if self._err.width >= _WIDE else "/s"
        if steps:
            parts += [f"eta {clock(left)}", f"{amount(per_second)}{unit}"]
        return parts


class Progress:
    """Counts work done; `progress` makes it."""

    def __init__(self, description: str, total: int | None, unit: str, stream: Stream, status: StatusLine) -> None:
        self._description, self._total, self._unit = printable(description), total, unit
        self._stream, self._status = stream, status
        self._done = 0
        self._began = self._next = time.perf_counter()

    def advance(self, steps: int) -> None:
        """Note that `steps` more are done."""
        self._done += steps
        now = time.perf_counter()
        if self._stream.is_terminal and now >= self._next:
            self._next = now + _REDRAW_SECONDS
            self._status.draw(self._line(now))

    def announce(self) -> None:
        """Where no bar can be drawn, say what begins."""
        if not self._stream.is_terminal:
            total = f": {amount(self._total, self._unit)}" if self._total is not None else ""
            self._stream.write(f"{self._description}{total}\n")

    def finish(self) -> None:
        """Leave one line that says what was done."""
        self._status.clear()
        took = duration(time.perf_counter() - self._began)
        done = amount(self._done, self._unit)
        self._stream.write(f"{self._description}: {done} in {took}\n")

    def _line(self, now: float) -> str:
        rate = self._done / max(now - self._began, 1e-9)
        done = amount(self._done, self._unit)
        if self._total is None:
            return line_with_bar(self._stream, None, [self._description, done])
        left = clock((self._total - self._done) / max(rate, 1e-9))
        parts = [self._description, f"{done} of {amount(self._total)}", f"eta {left}"]
        return line_with_bar(self._stream, self._done / max(self._total, 1), parts)


@contextlib.contextmanager
def progress(description: str, total: int | None, unit: str) -> Iterator[Progress]:
    """Show the progress of work on standard error: a bar on a terminal, else a line before and after.

    `total` in `unit` (a plural, or `B` for bytes), None if it is not known. Within a console that is quiet, nothing is
    shown; within one that is plain, as a sweep's job has it, the lines alone.
    """
    console = _current.get() or Console()
    shown = Progress(description, total, unit, console._err, console._status)
    if console.mode == "quiet":
        yield shown
        return
    shown.announce()
    try:
        yield shown
    except BaseException:
        console._status.clear()
        raise
    shown.finish()


def short_path(path: Path) -> str:
    """The path as one would type it here: relative to the working directory if it lies in it."""
    path = path.absolute()
    here = Path.cwd()
    return printable(str(path.relative_to(here) if path.is_relative_to(here) else path))


class _WarningHandler(logging.Handler):
    """Shows warnings and errors in the console."""

    def __init__(self, console: Console) -> None:
        super().__init__(level=logging.WARNING)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        # Python's warnings quote the line of code that gave them, which the log file keeps.
        self._console.warn(text.splitlines()[0] if record.name == "py.warnings" else text)


def _panel(rows: Mapping[str, str], stream: Stream) -> str:
    """The header in a frame, as text for `stream`."""
    from rich import box
    from rich.console import Console as RichConsole
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(Text(name, style="dim"), Text(value))
    frame = box.ROUNDED if stream.has_lines else box.ASCII
    buffer = io.StringIO()
    RichConsole(
        file=buffer,
        width=min(stream.width, 100),
        force_terminal=True,
        no_color=not stream.has_colour,
        color_system="standard" if stream.has_colour else None,
    ).print(Panel(table, title=Text("deepexp"), title_align="left", box=frame))
    return buffer.getvalue()

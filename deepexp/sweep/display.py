"""What is shown of a sweep while it runs.

A line for each job that has ended and, on a terminal, a bar for each that runs and one for all of them.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deepexp.sweep.worker import Ending, Progress, Task
from deepexp.text.console import Console, short_path
from deepexp.text.terminal import Stream, line_with_bar, printable
from deepexp.text.units import clock, counted, duration, percent

_REDRAW_SECONDS = 0.2


class Display:
    """Shows the jobs of one or more batches on a console."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._total = self._done = self._failed = self._interrupted = 0
        self._running: dict[str, Progress] = {}
        self._began = time.monotonic()
        self._worked = 0.0
        """How many jobs this process has seen done, fractions included; the time left is estimated from it."""
        self._next_draw = 0.0

    def begin(self, directory: Path, total: int, done: int, slots: int, how: str = "") -> None:
        """A batch of `total` jobs begins, `done` of them finished; `how`: how they are chosen, or how far they go."""
        if not self._total:
            self._console.print(f"sweep directory: {short_path(directory)}")
        self._total += total
        self._done += done
        skipped = f", {done} of them done before" if done else ""
        self._console.print(f"{counted(total, 'job')}{skipped}, {slots} at a time{how and f', {how}'}")

    def look(self, total: int, done: int, how_far: str) -> None:
        """After a look, the best `total` jobs go on; `done` of them have been trained that far before."""
        self._total, self._done, self._failed, self._interrupted = total, done, 0, 0
        skipped = f", {done} of them done before" if done else ""
        self._console.print(f"the best go on {how_far}: {counted(total, 'job')}{skipped}")

    def started(self, task: Task) -> None:
        """A try has begun."""
        self._running[task.name] = Progress(0.0, 0, None)
        self._draw()

    def progress(self, task: Task, progress: Progress) -> None:
        """A job has reported how far it is."""
        before = self._running[task.name]
        if before.epoch:  # what a resumed job reports first was done earlier
            self._worked += max(progress.fraction - before.fraction, 0.0)
        self._running[task.name] = progress

    def ended(self, task: Task, ending: Ending, figures: Mapping[str, Any] | None, *, again: bool) -> None:
        """A try has ended; `figures`: its summary, or its latest evaluation if it paused; None if it has no result."""
        progress = self._running.pop(task.name)
        if figures is not None:
            self._worked += 1.0 - progress.fraction
            errors = f"{figures['test_errors']:,}"
            if "test_samples" in figures:
                errors += f" of {figures['test_samples']:,}"
            validated = figures.get("val_error_rate")
            first = f"val error {percent(validated)}, " if validated is not None else ""
            text, style = f"{first}test error {percent(figures['test_error_rate'])} ({errors})", ""
        else:
            style = "" if ending.state == "interrupted" else "bad"
            text = f"{ending.state}: {printable(str(ending.reason))}"
        self._done += figures is not None
        if ending.state == "interrupted":  # there is nothing wrong with it
            self._interrupted += 1
        elif figures is None:
            self._failed += not again
        more = "; tried again" if again else ""
        count = f"[{self._done + self._failed}/{self._total}]"
        self._console.print(f"{count} {printable(task.name)}: {text}, {duration(ending.seconds)}{more}", style=style)
        self._draw()

    def tick(self) -> None:
        """Draw again, if it is time to."""
        if time.monotonic() >= self._next_draw:
            self._draw()

    def end(self) -> None:
        """A batch has ended: take the bars away."""
        self._running.clear()
        self._console.status(lambda _: [])

    def _draw(self) -> None:
        self._next_draw = time.monotonic() + _REDRAW_SECONDS
        self._console.status(self._lines)

    def _lines(self, stream: Stream) -> list[str]:
        shares = sum(progress.fraction for progress in self._running.values())
        ended = self._done + self._failed
        queued = self._total - ended - self._interrupted - len(self._running)
        counts = {
            "done": self._done,
            "running": len(self._running),
            "queued": queued,
            "failed": self._failed,
            "interrupted": self._interrupted,
        }
        parts = [", ".join(f"{number} {what}" for what, number in counts.items() if number or what == "done")]
        if self._worked > 0:
            pace = (time.monotonic() - self._began) / self._worked
            parts.append(f"eta {clock(pace * (self._total - ended - shares))}")
        lines = [line_with_bar(stream, (ended + shares) / max(self._total, 1), parts)]
        return lines + [_job_line(stream, name, progress) for name, progress in self._running.items()]


def _job_line(stream: Stream, name: str, progress: Progress) -> str:
    room = max(stream.width // 2 - 8, 8)
    shown = printable(name)
    parts = [shown if len(shown) <= room else f"…{shown[1 - room :]}"]
    if progress.epoch:
        parts.append(f"epoch {progress.epoch}")
    if progress.test_error_rate is not None:
        parts.append(f"test {percent(progress.test_error_rate)}")
    return line_with_bar(stream, progress.fraction, parts)

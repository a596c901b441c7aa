"""How long a process takes from the command that starts it to its first update, told to the process that started it.

Standard library only: what is measured begins with Python itself, and nothing may be imported before its time.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn


class Stopwatch:
    """Seconds since the command was given, and those of each part of the way.

    Time counts for exactly one part, the innermost that was begun, so that the parts add up to the whole.
    """

    def __init__(self, began: float, part: str = "all") -> None:
        self.parts: dict[str, float] = {}
        self._began = self._since = began
        self._going_on = [part]

    @contextlib.contextmanager
    def during(self, part: str) -> Iterator[None]:
        """Count the time of the block for `part`."""
        self._turn()
        self._going_on.append(part)
        try:
            yield
        finally:
            self._turn()
            self._going_on.pop()

    def go_on_with(self, part: str) -> None:
        """From here on, count time outside of `during` for `part`."""
        self._turn()
        self._going_on[0] = part

    def read(self) -> float:
        """Seconds since the command was given."""
        self._turn()
        return self._since - self._began

    def _turn(self) -> None:
        now = time.perf_counter()
        part = self._going_on[-1]
        self.parts[part] = self.parts.get(part, 0.0) + now - self._since
        self._since = now


def given(part: str = "all") -> tuple[Stopwatch, Path, list[str]]:
    """(a stopwatch that runs since the command was given, the file for `report`, the other words of the command).

    `time.perf_counter` is the same clock in all processes of a machine, on Linux, macOS and Windows.
    """
    began, answer, *words = sys.argv[1:]
    return Stopwatch(float(began), part), Path(answer), words


def report(answer: Path, began: float, watch: Stopwatch) -> NoReturn:
    """Write when the first update began, and that it is made now; the process ends at once."""
    done = watch.read()
    content = {"began_seconds": began, "done_seconds": done, "parts_seconds": watch.parts}
    answer.write_text(json.dumps(content), encoding="utf-8")
    os._exit(0)

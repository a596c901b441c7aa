"""Kills the process at one write point of its checkpoints, by wrapping the functions that write to the disk."""

import builtins
import io
import os
import signal
from pathlib import Path
from typing import Any


def install(point: str, name: str, count: int) -> None:
    """Have the process kill itself when `point` is reached for the `count`-th time by a checkpoint of this name.

    `point`: `half of the file written`, or `before` or `after` a function of `os`, such as `after fsync`.
    """
    if point == "half of the file written":
        _wrap_open(name, count)
        return
    when, function = point.split()
    original = getattr(os, function)
    left = [count]

    def wrapped(*arguments: Any, **options: Any) -> Any:
        subject = _path_of(arguments[0]) if function == "fsync" else Path(arguments[-1])
        hit = subject.parent.name == "checkpoints" and subject.name == name
        left[0] -= hit
        if hit and left[0] == 0 and when == "before":
            _die()
        result = original(*arguments, **options)
        if hit and left[0] == 0:
            _die()
        return result

    setattr(os, function, wrapped)


def _wrap_open(name: str, count: int) -> None:
    original, left = io.open, [count]

    def opened(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        stream = original(file, mode, *arguments, **options)
        if "w" in mode and Path(str(file)).name == name:
            left[0] -= 1
            if left[0] == 0:
                write = stream.write

                class Half:
                    def __enter__(self) -> "Half":
                        return self

                    def __exit__(self, *_: object) -> None: ...

                    def write(self, data: Any) -> None:
                        write(data[: len(data) // 2])
                        stream.flush()
                        _die()

                return Half()
        return stream

    io.open = builtins.open = opened  # type: ignore[assignment]


def _path_of(descriptor: int) -> Path:
    return Path(os.readlink(f"/proc/self/fd/{descriptor}"))


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)

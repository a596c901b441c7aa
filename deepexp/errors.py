"""The ways in which a command ends badly, and its exit status then; everything else that is raised is a bug.

They carry the text that the user reads, so it says what is wrong, where, and what to do about it.
"""

import errno
from collections.abc import Sequence
from pathlib import Path

FAILURE = 1
USAGE_ERROR = 2

# Trouble with the disk itself: then the run has failed, wherever the user told it to write.
DISK_TROUBLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO})


class DeepexpError(Exception):
    """Carries the text that the user reads; `shown` once a console has said it.

    `directory`: of the run that ended so; None if none had begun.
    """

    shown = False
    directory: Path | None = None

    def ended(self, directory: Path) -> None:
        """Name the run that ended so, in a traceback too: a quiet run from Python prints its directory nowhere else."""
        self.directory = directory
        self.add_note(f"run directory: {directory}")


class InputError(DeepexpError):
    """What the user gave (a config, a path, a file) cannot be used; the command exits with `USAGE_ERROR`."""


class RunFailed(DeepexpError):
    """The work was understood but could not be done; the command exits with `FAILURE`."""


class Interrupted(DeepexpError):
    """A signal ended the run after it was saved; the command exits with 128 + the signal's number."""

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.signal_number = signal_number

    def __reduce__(self) -> tuple[type, tuple[int, str]]:
        return type(self), (self.signal_number, str(self))


class Paused(DeepexpError):
    """A run has come as far as it was asked to for now, and was saved."""


def raise_any(lines: Sequence[str]) -> None:
    """Raise one `InputError` with all lines, each once; do nothing if there are none."""
    if lines:
        raise InputError("\n".join(dict.fromkeys(lines)))


def under(key: str, text: str) -> str:
    """The lines of a message, each beginning with the key that it is about."""
    return "\n".join(line if line.startswith(key) else f"{key}: {line}" for line in text.splitlines())


def in_short(error: BaseException) -> str:
    """The type of an error and the first line of its message, if it has one: `ValueError: …`.

    The second line, too, if the first ends with a colon: it says nothing alone.
    """
    lines = [line.strip() for line in str(error).strip().splitlines()]
    if not lines:
        return type(error).__name__
    shown = " ".join(lines[: 2 if lines[0].endswith(":") else 1])
    return f"{type(error).__name__}: {shown}"

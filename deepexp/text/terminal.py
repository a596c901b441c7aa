"""What a stream can show (width, colours, characters), and a line on it that is drawn over.

What is shown is decided in `console.py`.
"""

import io
import logging
import math
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import TextIO

from deepexp.errors import RunFailed
from deepexp.text.characters import PLAIN

log = logging.getLogger(__name__)

_STYLES = {"bold": "1", "faint": "2", "good": "32", "bad": "31", "warning": "33", "name": "36"}
_CLEAR_TO_END = "\x1b[K"
_UP = "\x1b[A"


class Stream:
    """Standard output or standard error, be it a terminal, a file, a pipe, or None, as in a process without a console.

    `is_everything`: the command does nothing but write this, so it has failed if that is not possible.
    """

    def __init__(self, file: TextIO | None, *, is_everything: bool = False) -> None:
        self._is_gone = file is None
        file = io.StringIO() if file is None else file
        self._file = file
        self._is_everything = is_everything
        self._encoding = getattr(file, "encoding", None) or "utf-8"
        dumb = os.environ.get("TERM", "").lower() in ("dumb", "unknown")
        self.is_terminal = hasattr(file, "isatty") and file.isatty() and not dumb
        self.has_colour = self.is_terminal and not os.environ.get("NO_COLOR")
        self.has_lines = _can_encode("━╸", self._encoding)

    @property
    def width(self) -> int:
        """Columns: `COLUMNS` where it is set, else the terminal's, else 80."""
        columns = os.environ.get("COLUMNS", "")
        if columns.isdecimal() and int(columns) > 0:
            return int(columns)
        if self.is_terminal:
            try:
                return os.get_terminal_size(self._file.fileno()).columns or 80
            except OSError:  # something that only says it is a terminal
                return 80
        return 80

    @property
    def columns(self) -> int | None:
        """The width of a terminal; None for a file or a pipe, whose lines may be long."""
        return self.width if self.is_terminal else None

    def styled(self, text: str, style: str) -> str:
        """The text in one of the styles of this module, if the stream has colours."""
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if self.has_colour and style else text

    def write(self, text: str) -> None:
        """Write and flush; for characters that the stream lacks, see `characters.py`.

        Once nobody reads any more (a closed pipe, a terminal that hung up), nothing is written: a
        long run should not die of a `| head`. Where it is everything, `BrokenPipeError` or `RunFailed`.
        """
        if self._is_gone:
            return
        try:
            self._file.write(text.encode(self._encoding, PLAIN).decode(self._encoding))
            self._file.flush()
        except OSError as error:
            self._is_gone = True
            self._divert()
            if self._is_everything:
                if isinstance(error, BrokenPipeError):
                    raise
                raise RunFailed(f"cannot write to standard output: {error.strerror or error}") from error
            log.warning("output can no longer be shown (%s); the rest is done without it", error.strerror)

    def write_lines(self, lines: Iterable[str]) -> None:
        """`write` all of them at once, each with a line break behind it."""
        self.write("".join(f"{line}\n" for line in lines))

    def _divert(self) -> None:
        """Discard what is left in the file's buffer, about which Python would complain when it exits."""
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, self._file.fileno())
        os.close(sink)


class StatusLine:
    """The last line or lines of a terminal, drawn over again and again; nothing on any other stream."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._text = ""
        self._is_shown = False

    def draw(self, text: str) -> None:
        """Show `text`, whose lines must be narrower than the stream."""
        if self._stream.is_terminal:
            if "\n" in self._text:
                self.hide()
            self._text, self._is_shown = text, bool(text)
            self._stream.write(f"\r{text}{_CLEAR_TO_END}")

    def hide(self) -> None:
        """Free the line for other output, until `show`."""
        if self._is_shown:
            self._is_shown = False
            above = f"{_UP}{_CLEAR_TO_END}" * self._text.count("\n")
            self._stream.write(f"\r{_CLEAR_TO_END}{above}")

    def show(self) -> None:
        """Draw again what `hide` took away."""
        if self._text and not self._is_shown:
            self.draw(self._text)

    def clear(self) -> None:
        """Take the line away for good."""
        self.hide()
        self._text = ""


def bar(stream: Stream, fraction: float, width: int) -> str:
    """A bar of `width` characters, of which `fraction` is filled."""
    fraction = min(max(fraction, 0.0), 1.0)
    filled = math.floor(fraction * width)
    if not stream.has_lines:
        return "#" * filled + "-" * (width - filled)
    half = "╸" if filled < width and fraction * width - filled >= 0.5 else ""
    # Without colours an unfilled part would look like a filled one.
    rest = ("━" if stream.has_colour else " ") * (width - filled - len(half))
    return stream.styled("━" * filled + half, "good") + stream.styled(rest, "faint")


def line_with_bar(stream: Stream, fraction: float | None, parts: Sequence[str]) -> str:
    """A bar and, behind it, as many of the parts as fit, the last ones being left out first.

    With a `fraction` of None (the end is not known), the parts alone.
    """
    room = stream.width - 3  # a full line would make some terminals begin a new one, as would the ^C behind it
    least = 0 if fraction is None else 12  # the number, and a bar worth looking at
    shown = list(parts)
    while shown and least + sum(len(part) + 2 for part in shown) > room:
        shown.pop()
    text = "  ".join(shown)
    if fraction is None:
        return text or parts[0][:room]
    width = min(40, room - 5 - 2 - len(text))
    return f"{fraction:4.0%} {bar(stream, fraction, max(width, 1))}  {text}"


def cut_to_terminal(line: str) -> str:
    """A line for standard output, cut where a terminal would break it; as it is for a file or a pipe."""
    columns = shutil.get_terminal_size().columns
    return line[: columns - 1] + "…" if sys.stdout.isatty() and len(line) > columns else line


def printable(text: str) -> str:
    """The text with line breaks and a terminal's control characters replaced."""
    return "".join(sign if sign.isprintable() else "�" for sign in text)


def _can_encode(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True

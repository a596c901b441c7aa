"""A terminal for tests that keeps what is on its screen."""

import io
import re


class Terminal(io.StringIO):
    """Text output that claims to be a terminal; `screen` gives what a terminal would show."""

    encoding = "utf-8"

    def isatty(self):
        return True

    def screen(self):
        """The lines that are visible at the end, without colours."""
        text = re.sub(r"\x1b\[[\d;]*m", "", self.getvalue())
        lines: list[list[str]] = [[]]
        row = column = 0
        for piece in re.findall(r"\x1b\[[KA]|.|\n", text):
            if piece == "\n":
                row, column = row + 1, 0
                lines += [[] for _ in range(row + 1 - len(lines))]
            elif piece == "\r":
                column = 0
            elif piece == "\x1b[A":
                row = max(row - 1, 0)
            elif piece == "\x1b[K":
                del lines[row][column:]
            else:
                lines[row] += " " * (column - len(lines[row]))
                lines[row][column : column + 1] = [piece]
                column += 1
        shown = ["".join(line) for line in lines]
        assert not re.search(r"[\x00-\x1f]", "".join(shown)), "an unknown control character"
        return shown

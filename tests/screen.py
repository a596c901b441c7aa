"""A terminal for tests, which can tell what stands on its screen."""

import io
import re


class Terminal(io.StringIO):
    """Says that it is a terminal, and can tell what one would show."""

    encoding = "utf-8"

    def isatty(self):
        return True

    def screen(self):
        """The lines as they stand in the end, without their colours."""
        text = re.sub(r"\x1b\[[\d;]*m", "", self.getvalue())
        lines, line, column = [], [], 0
        for piece in re.findall(r"\x1b\[K|.|\n", text):
            if piece == "\n":
                lines.append("".join(line))
                line, column = [], 0
            elif piece == "\r":
                column = 0
            elif piece == "\x1b[K":
                del line[column:]
            else:
                line[column : column + 1] = [piece]
                column += 1
        assert not re.search(r"[\x00-\x1f]", "".join(lines)), "an unknown control character"
        return [*lines, "".join(line)]

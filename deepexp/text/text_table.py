"""Tables of texts, and how they look in a terminal, in Markdown and as CSV; what stands in them is made elsewhere."""

import csv
import io
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from deepexp.text.terminal import printable

_GAP = "  "


@dataclass(frozen=True)
class Table:
    """Titles and rows of texts, as shown."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: frozenset[int] = field(default_factory=frozenset)
    """Columns that are set to the right."""
    caption: str = ""

    @classmethod
    def of_columns(cls, columns: Mapping[str, Sequence[str]], left: Collection[str], caption: str = "") -> "Table":
        """A table of columns by their titles; all but those in `left` are aligned to the right."""
        numeric = frozenset(index for index, title in enumerate(columns) if title not in left)
        return cls(list(columns), list(zip(*columns.values(), strict=True)), numeric, caption)

    def without(self, titles: Collection[str]) -> "Table":
        """The same table with some columns left out."""
        kept = [index for index, title in enumerate(self.header) if title not in titles]
        numeric = frozenset(place for place, index in enumerate(kept) if index in self.numeric)
        rows = [[row[index] for index in kept] for row in self.rows]
        return Table([self.header[index] for index in kept], rows, numeric, self.caption)

    def width(self) -> int:
        """Characters of its longest line."""
        return sum(self._widths()) + len(_GAP) * (len(self.header) - 1)

    def lines(self) -> Iterator[str]:
        """For a terminal: columns as wide as they need to be, the titles first."""
        widths = self._widths()
        for texts in [self.header, *self.rows]:
            cells = [
                f"{printable(text):>{width}}" if index in self.numeric else f"{printable(text):<{width}}"
                for index, (text, width) in enumerate(zip(texts, widths, strict=True))
            ]
            yield _GAP.join(cells).rstrip()

    def fitted(self, columns: int | None, expendable: Sequence[str]) -> tuple["Table", list[str]]:
        """(the table, what was left out): titles of `expendable` are left out, the first ones first, until it fits.

        With None for the columns, as of a file, everything fits.
        """
        dropped: list[str] = []
        table = self
        for title in expendable:
            if columns is None or table.width() <= columns:
                break
            if title in table.header:
                dropped.append(title)
                table = self.without(dropped)
        return table, dropped

    def markdown(self) -> Iterator[str]:
        """A table of GitHub's Markdown."""
        yield _markdown_row(self.header)
        yield _markdown_row(["---:" if index in self.numeric else "---" for index in range(len(self.header))])
        yield from (_markdown_row([escape_markdown(text) for text in row]) for row in self.rows)

    def latex(self) -> Iterator[str]:
        """A `tabular` of LaTeX, with the rules of the package booktabs."""
        alignment = "".join("r" if index in self.numeric else "l" for index in range(len(self.header)))
        yield rf"\begin{{tabular}}{{{alignment}}}"
        yield r"\toprule"
        yield _latex_row(self.header)
        yield r"\midrule"
        yield from map(_latex_row, self.rows)
        yield r"\bottomrule"
        yield r"\end{tabular}"

    def _widths(self) -> list[int]:
        columns = zip(self.header, *self.rows, strict=True)
        return [max(len(printable(text)) for text in column) for column in columns]


def as_csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """The text of a CSV file: numbers in full, and an empty field for None."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return buffer.getvalue()


def left_out_note(titles: Sequence[str], file: str) -> str:
    """The line below a table that `fitted` has made narrower: which columns to look for in the file that has all."""
    return f"(in {file} only: {', '.join(titles)})"


def escape_markdown(text: str) -> str:
    """A text that Markdown shows as it is, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>|~#])", r"\\\1", printable(text))


_OF_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "−": "$-$",
    "–": "--",
    "…": r"\dots{}",
}


def escape_latex(text: str) -> str:
    """A text that LaTeX sets as it is, on one line."""
    return "".join(_OF_LATEX.get(character, character) for character in printable(text))


def _latex_row(cells: Sequence[str]) -> str:
    return rf"{' & '.join(map(escape_latex, cells))} \\"


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"

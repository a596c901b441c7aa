"""A page of text, tables and pictures in one HTML file that needs nothing else: no network, no folder beside it.

What stands on a page is decided elsewhere. All text is escaped here; markup comes from here and `plotting.py` alone.
"""

import base64
import io
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from deepexp.disk.storage import write_text
from deepexp.pages import page_style, plotting

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LARGEST_SVG = 300_000
"""Bytes of an SVG element from which on a figure is embedded as PNG."""

_LONGEST_TABLE = 30  # rows; a longer one scrolls in its own box
_HEADINGS_WITHOUT_CONTENTS = 3
_SMALLEST_SCALE = 0.6  # of a picture on a narrow screen: its letters can still be read, and its box scrolls


@dataclass(frozen=True)
class Cell:
    """A cell of a table that is sorted by something else than its text, or looks unlike the others."""

    text: str
    key: float | str | None = None
    """What to sort by; None: the text, or its number in a numeric column."""
    mark: Literal["", "good", "bad", "muted"] = ""


class Page:
    """Built from top to bottom; the methods return the page, so that calls can be chained."""

    def __init__(self, title: str, subtitle: str = "") -> None:
        self._title = title
        self._subtitle = subtitle
        self._parts: list[_Part] = []
        self._headings: list[_Heading] = []
        self._sortable = False

    def heading(self, text: str, level: int = 2, anchor: str | None = None) -> "Page":
        """A heading, and its line in the contents; `anchor` is its address, made from the text if there is none."""
        taken = {heading.anchor for heading in self._headings}
        wanted = anchor or re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "part"
        name = next(
            name for name in (wanted, *(f"{wanted}-{n}" for n in range(2, len(taken) + 3))) if name not in taken
        )
        self._headings.append(_Heading(text, level, name))
        return self._add(f'<h{level} id="{escape(name)}">{escape(text)}</h{level}>')

    def paragraph(self, text: str) -> "Page":
        """A paragraph; an empty line in the text begins another."""
        return self._add("".join(f"<p>{escape(part)}</p>" for part in re.split(r"\n\s*\n", text.strip())))

    def bullets(self, lines: Sequence[str]) -> "Page":
        """A list, one line each."""
        return self._add("<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>")

    def note(self, text: str, kind: Literal["info", "warning"] = "info") -> "Page":
        """A paragraph set apart."""
        return self._add(f'<p class="note {kind}" role="note">{escape(text)}</p>')

    def code(self, text: str) -> "Page":
        """Lines as they are typed or printed."""
        return self._add(f'<div class="box" tabindex="0"><pre><code>{escape(text)}</code></pre></div>')

    def table(
        self,
        header: Sequence[str],
        rows: Sequence[Sequence[str | Cell]],
        *,
        numeric: Collection[int] = (),
        caption: str = "",
        sortable: bool = False,
    ) -> "Page":
        """A table; the columns `numeric` are aligned to the right. `sortable`: by a click on a column's head."""
        self._sortable |= sortable
        heads = "".join(_head(text, index in numeric, sortable) for index, text in enumerate(header))
        body = "".join(
            "<tr>" + "".join(_cell(cell, index in numeric) for index, cell in enumerate(row)) + "</tr>" for row in rows
        )
        title = f"<caption>{escape(caption)}</caption>" if caption else ""
        kind = ' class="sortable"' if sortable else ""
        tall = " tall" if len(rows) > _LONGEST_TABLE else ""
        markup = f"<table{kind}>{title}<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"
        return self._add(f'<div class="box{tall}" tabindex="0">{markup}</div>')

    def figure(self, content: "Figure | str | bytes", caption: str, alt: str) -> "Page":
        """A picture: a matplotlib figure, the markup of `plotting.as_svg`, or the content of an image file.

        `alt` says in words what the picture shows, for readers who cannot see it. Pictures that follow each other stand
        side by side where there is room.
        """
        box = f'<div class="box" tabindex="0">{_picture(content, alt)}</div>'
        return self._add(f"<figure>{box}<figcaption>{escape(caption)}</figcaption></figure>", is_figure=True)

    def html(self) -> str:
        """The page as a whole document."""
        subtitle = f'<p class="subtitle">{escape(self._subtitle)}</p>' if self._subtitle else ""
        header = f"<header><h1>{escape(self._title)}</h1>{subtitle}</header>"
        script = f"<script>{page_style.SORT_BY_COLUMN}</script>" if self._sortable else ""
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{page_style.NOTHING_FROM_OUTSIDE}">\n'
            f"<title>{escape(self._title)}</title>\n<style>{page_style.CSS}</style>\n</head>\n"
            f"<body>\n<main>\n{header}\n{self._contents()}\n{self._body()}\n</main>\n{script}\n</body>\n</html>\n"
        )

    def write(self, path: Path) -> None:
        """Replace the file `path` by the page; raises `RunFailed` if it cannot be written."""
        write_text(path, self.html())

    def _add(self, markup: str, *, is_figure: bool = False) -> "Page":
        self._parts.append(_Part(markup, is_figure))
        return self

    def _contents(self) -> str:
        if len(self._headings) <= _HEADINGS_WITHOUT_CONTENTS:
            return ""
        lines = "".join(
            f'<li class="level{heading.level}"><a href="#{escape(heading.anchor)}">{escape(heading.text)}</a></li>'
            for heading in self._headings
        )
        return f'<nav aria-label="Contents"><ul>{lines}</ul></nav>'

    def _body(self) -> str:
        """The parts, with pictures that follow each other in one box."""
        lines = []
        in_figures = False
        for part in self._parts:
            if part.is_figure != in_figures:
                lines.append('<div class="figures">' if part.is_figure else "</div>")
                in_figures = part.is_figure
            lines.append(part.markup)
        return "\n".join([*lines, "</div>"] if in_figures else lines)


@dataclass(frozen=True)
class _Part:
    markup: str
    is_figure: bool


@dataclass(frozen=True)
class _Heading:
    text: str
    level: int
    anchor: str


def _head(text: str, is_numeric: bool, sortable: bool) -> str:
    kind = ' class="numeric"' if is_numeric else ""
    content = f'<button type="button">{escape(text)}</button>' if sortable else escape(text)
    return f'<th scope="col"{kind}>{content}</th>'


def _cell(cell: str | Cell, is_numeric: bool) -> str:
    cell = Cell(cell) if isinstance(cell, str) else cell
    kinds = " ".join([*(["numeric"] if is_numeric else []), *([cell.mark] if cell.mark else [])])
    kind = f' class="{kinds}"' if kinds else ""
    key = f' data-key="{escape(str(cell.key))}"' if cell.key is not None else ""
    return f"<td{kind}{key}>{escape(cell.text)}</td>"


def _picture(content: "Figure | str | bytes", alt: str) -> str:
    if not isinstance(content, str | bytes):
        figure, content = content, plotting.as_svg(content)
        if len(content) > LARGEST_SVG:
            content = plotting.as_png(figure)
    if isinstance(content, bytes):
        return _image(content, alt)
    width = re.search(r'\bwidth="([\d.]+)pt"', content)
    least = f' style="min-width: {float(width[1]) / 72 * 96 * _SMALLEST_SCALE:.0f}px"' if width else ""
    return f'<div role="img" aria-label="{escape(alt)}"{least}>{content}</div>'


def _image(content: bytes, alt: str) -> str:
    """An image file, in the size that its resolution gives it (96 pixels an inch if it says none)."""
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        kind, width, dots = image.get_format_mimetype(), image.width, image.info.get("dpi", (96, 96))[0]
    shown = width * 96 / dots
    data = base64.b64encode(content).decode()
    size = f"width: {shown:.0f}px; min-width: {shown * _SMALLEST_SCALE:.0f}px"
    return f'<img alt="{escape(alt)}" style="{size}" src="data:{kind};base64,{data}">'

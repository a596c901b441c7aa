"""What a demonstration returns, and how that is printed and written; each demonstration is in the file of its name."""

import re
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from deepexp.disk.storage import named_by, storage_errors, write_atomically
from deepexp.text.text_table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Scale = Literal["quick", "standard"]
"""`quick`: some seconds on two cores; `standard`: the sizes of the slides."""


def table(header: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> Table:
    """A table; columns that hold nothing but figures are aligned to the right."""
    columns = enumerate(zip(*rows, strict=True))
    return Table(header, rows, frozenset(index for index, cells in columns if all(map(_is_figure, cells))), caption)


@dataclass(frozen=True)
class Picture:
    """A figure, the name of its files, and what to see in it."""

    name: str
    figure: "Figure"
    caption: str


@dataclass(frozen=True)
class Demonstration:
    """The result of a demonstration."""

    title: str
    text: str
    """What it shows, in two or three sentences."""
    tables: tuple[Table, ...]
    pictures: tuple[Picture, ...]
    facts: Mapping[str, float] = field(default_factory=dict)
    """What the text claims, as numbers that a test can check."""
    animations: Mapping[str, bytes] = field(default_factory=dict)
    """Content of animated pictures, by the name of the file."""

    def lines(self) -> Iterator[str]:
        """All of it but the pictures, for a terminal."""
        yield self.title
        yield ""
        yield from textwrap.wrap(self.text, min(shutil.get_terminal_size().columns, 120))
        for shown in self.tables:
            yield ""
            if shown.caption:
                yield f"{shown.caption}:"
            yield from (f"  {line}" for line in shown.lines())

    def write(self, folder: Path) -> list[Path]:
        """Write the pictures into a folder, as PNG and SVG, and return their paths."""
        from deepexp.pages import plotting

        make_folder(folder)
        written: list[Path] = []
        with named_by("to=DIR", folder):
            for picture in self.pictures:
                written += plotting.save(picture.figure, folder / picture.name)
            for name, content in self.animations.items():
                write_atomically(folder / name, content)
                written.append(folder / name)
        return written


def check_sizes(**sizes: int | Sequence[int] | None) -> None:
    """`ValueError` for the first of the named numbers, or lists of them, that has one below 1; None is allowed."""
    for name, size in sizes.items():
        numbers = [] if size is None else [size] if isinstance(size, int) else size
        if any(number < 1 for number in numbers):
            raise ValueError(f"{name}: {size} is not allowed; at least 1")


def make_folder(folder: Path) -> None:
    """Make the folder that the user chose for results, unless it is there; `InputError` if it cannot be made."""
    with storage_errors(folder, chosen_by_user=True, option="to=DIR"):
        folder.mkdir(parents=True, exist_ok=True)


def figures(value: float, digits: int = 3) -> str:
    """A number with so many significant figures: `0.0123`, `12,300`, `1.23e-08`."""
    if value == 0:
        return "0"
    rounded = abs(float(f"{value:.{digits - 1}e}"))  # 999.7 becomes 1,000, which is a figure too many for `g`
    if 1e-3 <= rounded < 10**digits:
        return f"{value:.{digits}g}"
    if 1 <= abs(value) < 1e7:
        return f"{value:,.0f}"
    return f"{value:.{digits - 1}e}"


def _is_figure(cell: str) -> bool:
    """`1.5 ms`, `-3`, `12%` and the dash that stands for no value, but not `2/n` or a sentence."""
    return cell in ("", "–") or re.fullmatch(r"[-−+<≤≈]?[\d.,]+(e[-+]?\d+)?( ?\D{1,5})?", cell) is not None

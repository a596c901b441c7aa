"""Which picture files a table names, and of which class and split each is. No picture is opened here."""

import csv
import io
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from deepexp.data.decode import show
from deepexp.data.folder_scan import Listing, PictureFile, drawn_split
from deepexp.errors import InputError
from deepexp.text.suggest import did_you_mean
from deepexp.text.units import counted, first_few

_SPLIT = "split"
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
}
"""What the column of splits may say → the split, as `Listing.splits` names it."""


class Columns(NamedTuple):
    """The names of the columns that are read; None: see `ImageTable`."""

    path: str | None
    label: str | None
    split: str | None


class _Row(NamedTuple):
    line: int
    path: str
    label: str
    split: str | None
    """None where the table has no column for it."""


def scan(root: Path, table: str, columns: Columns, files: str, test_fraction: float, split_seed: int) -> Listing:
    """List the pictures of a table below `root`; `files` has `{}` where the column's text goes.

    Classes are sorted, as numbers where all are whole numbers. `InputError` names the line that cannot be used: no such
    file, no class, a picture that another line names already, an unknown split; or a class without training pictures.
    """
    place = root / table
    rows = list(_rows(place, columns))
    if not rows:
        raise InputError(f"{show(place)}: has no rows below its line of names; needed is one for each picture")
    names = _classes(rows)
    found = _files_of(rows, root, files, {name: label for label, name in enumerate(names)}, place)
    if rows[0].split is None:
        train, test = drawn_split([file for _, file in found], test_fraction, split_seed, place)
        return Listing(names, train, test, split=(test_fraction, split_seed), table=table)
    splits = {name: _of_split(found, name) for name in ("train", "test", "val")}
    _check_splits(splits, names, place)
    return Listing(names, splits["train"], splits["test"], splits["val"], table=table)


def _rows(place: Path, columns: Columns) -> Iterator[_Row]:
    """The rows in the order of the file. `InputError` for a column that is not there, and a line without a value."""
    text = _read(place)
    first = text.partition("\n")[0]
    delimiter = max("\t;,", key=first.count)  # commas where there is none of them
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        places = _places(place, header, columns)
        for values in reader:
            if any(value.strip() for value in values):
                yield _row(place, reader.line_num, header, values, places)
    except csv.Error as error:
        raise InputError(f"{show(place)}, line {reader.line_num}: cannot be read ({error})") from error


def _read(place: Path) -> str:
    try:
        return place.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(
            f"data.table: there is no file {show(place)}; give the table's path below data.root, a CSV file with the "
            "paths and classes of the pictures"
        ) from None
    except UnicodeDecodeError:
        raise InputError(f"{show(place)}: is no text in UTF-8; save the table as CSV in UTF-8") from None
    except OSError as error:
        raise InputError(f"{show(place)}: cannot be read ({error.strerror})") from error


def _places(place: Path, header: Sequence[str], columns: Columns) -> dict[str, int]:
    """Role → position of its column."""
    if len(header) < 2:
        raise InputError(f"{show(place)}: needs at least two columns, with paths and classes, and their names above")
    for role, name in columns._asdict().items():
        if name is not None and header.count(name) != 1:
            there = "is there more than once" if name in header else f"is not there{did_you_mean(name, header)}"
            raise InputError(f"data.{role}_column: {name!r} {there}; {show(place)} has {', '.join(header)}")
    found = {
        "path": 0 if columns.path is None else header.index(columns.path),
        "label": 1 if columns.label is None else header.index(columns.label),
    }
    split = columns.split or (_SPLIT if _SPLIT in header else None)
    if split is not None:
        found["split"] = header.index(split)
    if len(set(found.values())) < len(found):
        named = ", ".join(f"{role} {header[position]}" for role, position in found.items())
        raise InputError(f"{show(place)}: one column has two roles ({named}); set data.path_column, data.label_column")
    return found


def _row(place: Path, line: int, header: Sequence[str], values: Sequence[str], places: Mapping[str, int]) -> _Row:
    if len(values) != len(header):
        raise InputError(f"{show(place)}, line {line}: has {len(values)} values for {counted(len(header), 'column')}")
    given = {role: values[position].strip() for role, position in places.items()}
    for role, value in given.items():
        if not value:
            raise InputError(
                f"{show(place)}, line {line}: has no {header[places[role]]}; fill it in, or remove the line"
            )
    split = given.get("split")
    if split is not None and split.lower() not in _SPLITS:
        raise InputError(
            f"{show(place)}, line {line}: {split!r} is no split{did_you_mean(split, _SPLITS)}; train, test or val"
        )
    return _Row(line, given["path"], given["label"], None if split is None else _SPLITS[split.lower()])


def _classes(rows: Sequence[_Row]) -> tuple[str, ...]:
    names = {row.label for row in rows}
    are_numbers = all(name.removeprefix("-").isdecimal() for name in names)
    return tuple(sorted(names, key=int)) if are_numbers else tuple(sorted(names))


def _files_of(
    rows: Sequence[_Row], root: Path, pattern: str, labels: Mapping[str, int], place: Path
) -> list[tuple[_Row, PictureFile]]:
    found: list[tuple[_Row, PictureFile]] = []
    missing: list[str] = []
    lines: dict[str, int] = {}
    for row in rows:
        path = os.path.join(root, pattern.replace("{}", row.path))
        if (before := lines.setdefault(os.path.normpath(path), row.line)) != row.line:  # ./a.png is a.png
            raise InputError(
                f"{show(place)}, line {row.line}: {row.path} is in line {before} already; remove one of them"
            )
        try:
            status = os.stat(path)
        except (OSError, ValueError):  # ValueError: a null character in it
            missing.append(f"{show(path)} (line {row.line})")
            continue
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{show(place)}, line {row.line}: {show(path)} is not a file")
        found.append((row, PictureFile(path, labels[row.label], status.st_size, status.st_mtime_ns)))
    if missing:
        count = f"{counted(len(missing), 'picture')} of {len(rows):,}"
        raise InputError(
            f"{show(place)}: {count} cannot be found: {first_few(missing)}; "
            "data.files says how paths below data.root follow from the table, for example data.files=train/{}.jpg"
        )
    return found


def _of_split(found: Sequence[tuple[_Row, PictureFile]], name: str) -> list[PictureFile]:
    return sorted((file for row, file in found if row.split == name), key=lambda file: (file.label, file.path))


def _check_splits(splits: Mapping[str, Sequence[PictureFile]], names: Sequence[str], place: Path) -> None:
    for name in ("train", "test"):
        if not splits[name]:
            raise InputError(
                f"{show(place)}: has no row for {name}; needed are rows for train and test, or no column of splits"
            )
    untrained = sorted(set(range(len(names))) - {file.label for file in splits["train"]})
    if untrained:
        those = first_few([names[label] for label in untrained], most=8)
        raise InputError(f"{show(place)}: has no row for train of {counted(len(untrained), 'class')} ({those})")

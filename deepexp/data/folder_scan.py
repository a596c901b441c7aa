"""Which picture files a folder holds, and of which class each is. No file is opened here."""

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch

from deepexp.data.decode import show
from deepexp.data.stratified import stratified_choice
from deepexp.errors import InputError

_EXTENSIONS = frozenset(
    ".avif .bmp .dib .gif .jfif .jp2 .jpe .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split()
)
_COUNTED = f"picture files end in {', '.join(sorted(_EXTENSIONS))}"
_NAMES_OF_SPLITS = frozenset("train training test testing val valid validation eval".split())
_NEEDED = "needed is a folder with a folder of pictures for each class, or with train/ and test/ that each have those"


class PictureFile(NamedTuple):
    """A file, with what shows whether it was changed."""

    path: str
    label: int
    size_bytes: int
    modified_ns: int


@dataclass(frozen=True)
class Listing:
    """The files of each split, sorted by class and then by path."""

    classes: tuple[str, ...]
    train: list[PictureFile]
    test: list[PictureFile]
    val: list[PictureFile] = field(default_factory=list)
    """Of a folder beside `train/` and `test/`; none: there is no such folder, or it is not used."""
    split: tuple[float, int] | None = None
    """`test_fraction` and `split_seed` where the split was made here; None: the folder has one of its own"""
    table: str | None = None
    """The name of the table that names them, if one does."""

    def splits(self) -> dict[str, list[PictureFile]]:
        """Name → files: `train`, `test` and, if there are any, `val`."""
        return {"train": self.train, "test": self.test} | ({"val": self.val} if self.val else {})

    def digest(self, root: Path) -> str:
        """Changes when any file is added, removed, renamed, moved to another class or split, or written to."""
        start = len(os.fsencode(root))
        sha256 = hashlib.sha256()
        for name, files in self.splits().items():
            lines = (
                b"%s\0%s\0%d\0%d\0%d\n" % (name.encode(), os.fsencode(path)[start:], label, size_bytes, modified_ns)
                for path, label, size_bytes, modified_ns in files
            )
            sha256.update(b"".join(lines))
        return sha256.hexdigest()


def scan(root: Path, test_fraction: float, split_seed: int, own_validation: bool = False) -> Listing:
    """List `root/train/CLASS/…` and `root/test/CLASS/…`, or `root/CLASS/…` with a stratified split of our own.

    Class folders may have folders in them. `own_validation`: list `root/val/CLASS/…`, too, if it is there beside
    `train/` and `test/`; it may have another name of `validation_folders`. `InputError` if there are no classes, a
    class has no training pictures, or a class of the other folders is no training class.
    """
    if not root.exists():
        raise InputError(f"data.root: there is no folder {show(root)}; {_NEEDED}")
    if not root.is_dir():
        raise InputError(f"data.root: {show(root)} is a file; {_NEEDED}")
    try:
        if _folders(root / "train"):
            if not _folders(root / "test"):
                held_out = validation_folders(root)
                remedy = f" (to test models on {held_out[0]}/, rename it to test/)" if held_out else ""
                raise InputError(
                    f"data.root: {show(root)} has train/ but no test/ with class folders{remedy}; {_NEEDED}"
                )
            return _train_and_test(root, own_validation)
        return _split(root, test_fraction, split_seed)
    except OSError as error:
        raise _unreadable(error, root) from error


def _unreadable(error: OSError, folder: Path) -> InputError:
    return InputError(f"{show(error.filename or folder)}: cannot be read ({error.strerror}); mend it, or remove it")


def validation_folders(root: Path) -> list[str]:
    """Names of the folders with class folders beside `train/` and `test/` that look like validation sets."""
    return [name for name in ("val", "valid", "validation", "eval") if _folders(root / name)]


def pictures_below(folder: Path) -> list[str]:
    """The paths of the picture files in a folder and the folders below it, sorted; `InputError` if it has none."""
    try:
        found = [file.path for file in sorted(_walk(folder, 0, frozenset()))]
    except OSError as error:
        raise _unreadable(error, folder) from error
    if not found:
        raise InputError(f"{show(folder)}: holds no pictures ({_COUNTED})")
    return found


def _train_and_test(root: Path, own_validation: bool) -> Listing:
    names = _class_names(root / "train")
    train = list(_pictures(root / "train", names))
    _check_classes(root / "train", names, train)
    held_out = validation_folders(root) if own_validation else []
    if len(held_out) > 1:
        raise InputError(
            f"data.root: {show(root)} has {_list(held_out)}, and validation data are in one folder; "
            "move the others elsewhere, or set data.own_validation=false"
        )
    test, *val = [_of_known_classes(root / name, names) for name in ("test", *held_out)]
    return Listing(tuple(map(show, names)), train, test, val[0] if val else [])


def _of_known_classes(folder: Path, names: list[str]) -> list[PictureFile]:
    foreign = sorted(set(_class_names(folder)) - set(names))
    if foreign:
        raise InputError(f"{show(folder / foreign[0])}: training has no such class ({_list(names)})")
    files = list(_pictures(folder, names))
    if not files:
        raise InputError(f"{show(folder)}: holds no pictures")
    return files


def _split(root: Path, test_fraction: float, split_seed: int) -> Listing:
    names = _class_names(root)
    if _NAMES_OF_SPLITS.issuperset(name.lower() for name in names):
        raise InputError(
            f"data.root: {show(root)} holds {_list(names)}, which are no classes; {_NEEDED}, in lower case"
        )
    files = list(_pictures(root, names))
    _check_classes(root, names, files)
    train, test = drawn_split(files, test_fraction, split_seed, root)
    return Listing(tuple(map(show, names)), train, test, split=(test_fraction, split_seed))


def drawn_split(
    files: Sequence[PictureFile], test_fraction: float, split_seed: int, place: Path
) -> tuple[list[PictureFile], list[PictureFile]]:
    """(training, test): of each class its share for testing, and at least one picture for training.

    Both are sorted by class and path; `InputError` if there are too few pictures for that in `place`.
    """
    files = sorted(files, key=lambda file: (file.label, file.path))
    count = max(1, round(test_fraction * len(files)))
    try:
        labels = torch.tensor([file.label for file in files])
        chosen = set(stratified_choice(labels, count, split_seed, leave=1).tolist())
    except ValueError as error:
        raise InputError(f"data.test_fraction: {test_fraction} of {show(place)}: {error}") from error
    train = [file for index, file in enumerate(files) if index not in chosen]
    return train, [file for index, file in enumerate(files) if index in chosen]


def _folders(folder: Path) -> list[str]:
    """Names of the folders in a folder, which need not exist itself."""
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in os.scandir(folder) if entry.name[0] != "." and entry.is_dir())


def _class_names(folder: Path) -> list[str]:
    names = _folders(folder)
    if not names:
        raise InputError(f"{show(folder)}: holds no class folders; {_NEEDED}")
    return names


def _check_classes(folder: Path, names: list[str], files: list[PictureFile]) -> None:
    filled = {file.label for file in files}
    empty = [name for label, name in enumerate(names) if label not in filled]
    if empty:
        raise InputError(
            f"{show(folder / empty[0])}: a folder in {show(folder)} is a class, and this one has no pictures; "
            f"fill it or move it elsewhere, or set data.root to the folder of your pictures ({_COUNTED})"
        )


def _pictures(folder: Path, names: list[str]) -> Iterator[PictureFile]:
    above = frozenset(map(_place, (folder, *folder.absolute().parents)))
    for label, name in enumerate(names):
        if (folder / name).is_dir():
            yield from sorted(_walk(folder / name, label, above))


def _place(folder: Path) -> tuple[int, int]:
    """(device, inode), which identify a folder whatever links lead to it."""
    status = folder.stat()
    return status.st_dev, status.st_ino


def _walk(folder: Path, label: int, above: frozenset[tuple[int, int]]) -> Iterator[PictureFile]:
    """Files below a folder; a link that leads back to a folder above it is not followed."""
    here = _place(folder)
    if here in above:
        return
    for entry in os.scandir(folder):
        if entry.name[0] == ".":
            continue
        if entry.is_dir():
            yield from _walk(Path(entry.path), label, above | {here})
        elif os.path.splitext(entry.name)[1].lower() in _EXTENSIONS:
            status = entry.stat()
            if not stat.S_ISREG(status.st_mode):
                raise InputError(f"{show(entry.path)}: is not a file")
            yield PictureFile(entry.path, label, status.st_size, status.st_mtime_ns)


def _list(names: list[str]) -> str:
    return ", ".join(map(show, names[:8])) + (" …" if len(names) > 8 else "")

"""Pictures that a table names: which lines are read, how they are split, and what is said of wrong ones."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from deepexp.data.image_folder import ImageFolder
from deepexp.data.image_table import ImageTable
from deepexp.errors import InputError

DEFAULTS: dict[str, Any] = {
    "table": "labels.csv", "files": "{}", "path_column": None, "label_column": None, "split_column": None,
    "size": None, "channels": None, "test_fraction": 0.25, "split_seed": 0, "cache": None,
}  # fmt: skip

Write = Callable[..., Path]


def source(root: Path, **changes: Any) -> ImageTable:
    return ImageTable(root=root, **DEFAULTS | changes)


@pytest.fixture
def write(tmp_path: Path, save_picture: Callable[..., None]) -> Write:
    """Writes `labels.csv` into a folder with the pictures 0.png … 11.png, and returns the folder."""
    root = tmp_path / "scans"
    for number in range(12):
        save_picture(root / f"{number}.png", seed=number)

    def write(text: str, name: str = "labels.csv", encoding: str = "utf-8") -> Path:
        (root / name).write_text(text, encoding=encoding)
        return root

    return write


def lines(*more: str, splits: bool = True) -> str:
    """Rows 0 … 11 of two classes in turns, of which 8 are for training, 2 for testing and 2 for validation."""
    names = [*["train"] * 8, "test", "test", "val", "val"]
    rows = [f"{n}.png,{'ab'[n % 2]}" + (f",{names[n]}" if splits else "") for n in range(12)]
    return "\n".join(["image,kind,split" if splits else "image,kind", *rows, *more, ""])


def pictures(root: Path, *numbers: int) -> torch.Tensor:
    arrays = [np.array(Image.open(root / f"{number}.png")) for number in numbers]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)


def test_a_table_says_what_is_for_training_testing_and_validation(write: Write) -> None:
    root = write(lines())
    info = source(root).info()
    assert (info.classes, info.train_samples, info.test_samples, info.val_samples) == (("a", "b"), 8, 2, 2)
    for _ in range(2):  # decoded, and from the cache
        train, test, val = source(root).load()
        assert train.labels.tolist() == [0] * 4 + [1] * 4
        assert torch.equal(train.pictures(torch.arange(8)), pictures(root, 0, 2, 4, 6, 1, 3, 5, 7))
        assert torch.equal(test.pictures(torch.arange(2)), pictures(root, 8, 9)) and test.labels.tolist() == [0, 1]
        assert torch.equal(val.pictures(torch.arange(2)), pictures(root, 10, 11))
    assert source(root).test_files() == [str(root / "8.png"), str(root / "9.png")]


def test_without_splits_each_class_is_split_as_in_a_folder(write: Write, tmp_path: Path) -> None:
    root = write(lines(splits=False))
    for number in range(12):
        place = tmp_path / "folder" / "ab"[number % 2] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes((root / f"{number}.png").read_bytes())
    common = {key: DEFAULTS[key] for key in ("size", "channels", "test_fraction", "split_seed", "cache")}
    expected = ImageFolder(root=tmp_path / "folder", **common).load()
    for mine, theirs in zip(source(root).load(), expected, strict=True):
        assert torch.equal(mine.images, theirs.images) and torch.equal(mine.labels, theirs.labels)
    other = source(root, split_seed=3).load()
    assert [len(split) for split in other] == [9, 3] and not torch.equal(other[0].images, expected[0].images)


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        (lines().replace(",", ";"), {}),
        (lines().replace(",", "\t"), {}),
        ("\ufeff" + lines().replace("\n", "\r\n"), {}),
        (lines().replace("image,", '"image",').replace("train", " Training "), {}),
        (lines().replace(".png", "").replace("\n", "\n\n"), {"files": "{}.png"}),
        (lines().replace("split", "set"), {"split_column": "set"}),
        ("".join(",".join(line.split(",")[::-1]) + "\n" for line in lines().splitlines()),
         {"path_column": "image", "label_column": "kind"}),
    ],
)  # fmt: skip
def test_tables_as_other_programs_write_them(write: Write, text: str, changes: dict[str, str]) -> None:
    root = write(text)
    train, test, val = source(root, **changes).load()
    assert torch.equal(train.images, pictures(root, 0, 2, 4, 6, 1, 3, 5, 7))
    assert (len(test), len(val)) == (2, 2)


def test_a_column_that_is_not_asked_for_is_no_split(write: Write) -> None:
    assert source(write(lines().replace("split", "set"))).info().test_samples == 3


def test_classes_that_are_numbers_are_sorted_as_such(write: Write) -> None:
    rows = "".join(f"{n}.png,{[9, 10, -1][n % 3]}\n" for n in range(12))
    assert source(write(f"file,grade\n{rows}")).info().classes == ("-1", "9", "10")


@pytest.mark.parametrize(
    ("text", "changes", "message"),
    [
        (lines("7.png,a,test"), {}, r"labels\.csv, line 14: 7\.png is in line 9 already; remove one of them$"),
        (lines("../scans/0.png,c,test"), {}, r"line 14: \.\./scans/0\.png is in line 2 already"),
        (lines("./7.png,a,test"), {}, r"labels\.csv, line 14: \./7\.png is in line 9 already"),
        (lines("x.png,a,test"), {}, r"1 picture of 13 cannot be found: .*x\.png \(line 14\); data\.files says how"),
        (lines("\0,a,test"), {}, r"1 picture of 13 cannot be found"),
        (lines(".,a,test"), {}, r"line 14: .* is not a file$"),
        (lines("0.png,,test"), {}, r"line 14: has no kind; fill it in, or remove the line$"),
        (lines("0.png,a"), {}, r"line 14: has 2 values for 3 columns$"),
        (lines("0.png,a,tset"), {}, r"line 14: 'tset' is no split \(did you mean 'test'\?\); train, test or val$"),
        (lines('"0.png,a,test'), {}, r"line 14: cannot be read \(unexpected end of data\)$"),
        (lines().replace("test", "val"), {}, r"has no row for test; needed are rows for train and test, or no column"),
        (lines().replace("8.png,a", "8.png,c"), {}, r"has no row for train of 1 class \(c\)$"),
        (lines(), {"label_column": "knid"}, r"^data\.label_column: 'knid' is not there \(did you mean 'kind'\?\); "),
        (lines().replace("kind", "image"), {"path_column": "image"}, r"^data\.path_column: 'image' is there more than"),
        (lines(), {"label_column": "image"}, r"one column has two roles \(path image, label image, split split\)"),
        (lines(), {"table": "lables.csv"}, r"^data\.table: there is no file .*lables\.csv; give the table's path be"),
        ("image,kind\n", {}, r"has no rows below its line of names"),
        ("image\n0.png\n", {}, r"needs at least two columns"),
        ("", {}, r"needs at least two columns"),
        ("image,kind\n0.png,a\n1.png,b\n", {}, r"^data\.test_fraction: 0\.25 of .*labels\.csv: 1 of 2 samples are"),
    ],
)  # fmt: skip
def test_a_wrong_table_is_told_in_one_line(write: Write, text: str, changes: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        source(write(text), **changes).info()
    assert len(str(caught.value).splitlines()) == 1


def test_a_table_that_is_no_text_is_told(write: Write) -> None:
    root = write("bild,art\nü.png,ä\n", encoding="latin-1")
    with pytest.raises(InputError, match="is no text in UTF-8; save the table as CSV in UTF-8"):
        source(root).info()
    with pytest.raises(InputError, match=r"^.*scans: cannot be read \(Is a directory\)$"):
        source(root, table=".").info()


@pytest.mark.parametrize("files", ["train/.jpg", "{}/{}.jpg", ""])
def test_a_wrong_pattern_is_refused(tmp_path: Path, files: str) -> None:
    with pytest.raises(ValueError, match=r"files: .* is not allowed; a path with one {} in it, such as train/{}\.jpg"):
        source(tmp_path, files=files)


def test_two_tables_of_a_folder_have_a_cache_each(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    root = write(lines())
    write(lines().replace("val", "train"), "more.csv")
    sizes = {table: [len(split) for split in source(root, table=table).load()] for table in ("labels.csv", "more.csv")}
    assert sizes == {"labels.csv": [8, 2, 2], "more.csv": [10, 2]}
    with caplog.at_level("INFO"):
        for table, expected in sizes.items():
            assert [len(split) for split in source(root, table=table).load()] == expected
    assert "decoded, once" not in caplog.text

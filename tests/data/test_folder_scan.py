import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from deepexp.data.folder_scan import scan
from deepexp.errors import InputError


def listing(root: Path, test_fraction: float = 0.2, split_seed: int = 0):  # type: ignore[no-untyped-def]
    return scan(root, test_fraction, split_seed)


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def test_train_and_test_folders_become_splits(picture_root: Path) -> None:
    found = listing(picture_root)
    assert found.classes == ("ant", "bee")
    assert [Path(file.path).relative_to(picture_root).as_posix() for file in found.test] == [
        f"test/{name}/{index}.png" for name in ("ant", "bee") for index in range(3)
    ]
    assert [file.label for file in found.train] == [0] * 6 + [1] * 6


def test_one_folder_is_split_by_class(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{name}/{index}.jpg" for name in "abc" for index in range(20)))
    found = listing(tmp_path)
    assert [sum(file.label == label for file in found.test) for label in range(3)] == [4, 4, 4]
    paths = {file.path for file in found.train} | {file.path for file in found.test}
    assert len(paths) == 60 == len(found.train) + len(found.test)
    assert listing(tmp_path) == found
    assert listing(tmp_path, split_seed=1).test != found.test
    assert len(listing(tmp_path, test_fraction=0.5).test) == 30


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{name}/{index}.jpg" for name in ("plane", "train") for index in range(5)))
    assert listing(tmp_path).classes == ("plane", "train")


def test_nested_pictures_count_and_hidden_or_other_files_do_not(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "a/x/1.JPG",
        "a/2.png",
        "a/.3.png",
        "a/notes.txt",
        ".hidden/4.png",
        "b/5.webp",
        "b/6.tif",
        "b/x.y/7.bmp",
    )
    found = listing(tmp_path)
    names = sorted(Path(file.path).name for file in found.train + found.test)
    assert names == ["1.JPG", "2.png", "5.webp", "6.tif", "7.bmp"]


@pytest.mark.parametrize("name", ["a b", "ü", "x=1,y", "(1)", "#"])
def test_any_name_works(tmp_path: Path, name: str) -> None:
    touch(tmp_path, *(f"{name}/{name}/{index}{name}.png" for index in range(5)))
    assert listing(tmp_path / name).classes == (name,)


def test_names_that_are_not_unicode_work(tmp_path: Path) -> None:
    try:
        touch(tmp_path, *(f"a\udcff/{index}.png" for index in range(5)))
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    found = listing(tmp_path)
    assert found.classes == ("a�",)
    assert len(found.digest(tmp_path)) == 64


def test_digest_sees_every_change(picture_root: Path, save_picture: Callable[..., None]) -> None:
    def digest() -> str:
        return listing(picture_root).digest(picture_root)

    seen = [digest()]
    assert digest() == seen[0]
    path = picture_root / "train" / "ant" / "0.png"
    os.utime(path, ns=(0, 0))
    seen.append(digest())
    path.write_bytes(path.read_bytes() + b"x")
    os.utime(path, ns=(0, 0))
    seen.append(digest())
    path.rename(path.with_name("9.png"))
    seen.append(digest())
    (picture_root / "train" / "ant" / "9.png").rename(picture_root / "train" / "bee" / "9.png")
    seen.append(digest())
    (picture_root / "train" / "bee" / "9.png").rename(picture_root / "test" / "bee" / "9.png")
    seen.append(digest())
    (picture_root / "test" / "bee" / "9.png").unlink()
    seen.append(digest())
    save_picture(picture_root / "test" / "bee" / "10.png")
    seen.append(digest())
    assert len(set(seen)) == len(seen)


def test_digest_does_not_depend_on_where_the_data_lie(picture_root: Path) -> None:
    before = listing(picture_root).digest(picture_root)
    moved = picture_root.rename(picture_root.with_name("moved"))
    assert listing(moved).digest(moved) == before


def test_a_missing_root_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.root: there is no folder .*absent; needed is a folder"):
        listing(tmp_path / "absent")


def test_a_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "file")
    with pytest.raises(InputError, match=r"data\.root: .*file is a file"):
        listing(tmp_path / "file")


def test_a_root_without_classes_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "1.png")
    with pytest.raises(InputError, match="holds no class folders"):
        listing(tmp_path)


def test_train_without_test_is_refused(picture_root: Path) -> None:
    (picture_root / "test").rename(picture_root.parent / "elsewhere")
    with pytest.raises(InputError, match="has train/ but no test/ with class folders; needed is"):
        listing(picture_root)
    (picture_root.parent / "elsewhere").rename(picture_root / "val")
    with pytest.raises(InputError, match=r"folders \(to test models on val/, rename it to test/\); needed"):
        listing(picture_root)


@pytest.mark.parametrize("names", [("Train", "Test"), ("Testing", "Training"), ("valid", "TEST", "Train")])
def test_misnamed_split_folders_are_not_taken_for_classes(picture_root: Path, names: tuple[str, ...]) -> None:
    for name in names:
        shutil.copytree(picture_root / "train", picture_root / "other" / name)
    with pytest.raises(InputError, match=r"holds .*, which are no classes; .*train/ and test/ .*, in lower case"):
        scan(picture_root / "other", 0.2, 0)


def test_empty_class_is_named(picture_root: Path) -> None:
    touch(picture_root, "train/cow/readme.txt")
    with pytest.raises(InputError, match=r"cow: a folder in .*train is a class, .* set data.root .*\(.*\.png"):
        listing(picture_root)


def test_test_class_without_training_is_named(picture_root: Path) -> None:
    touch(picture_root, "test/cow/1.png")
    with pytest.raises(InputError, match=r"test.cow: training has no such class \(ant, bee\)"):
        listing(picture_root)


def test_an_empty_test_folder_is_refused(picture_root: Path) -> None:
    for path in (picture_root / "test").glob("*/*"):
        path.unlink()
    with pytest.raises(InputError, match="test: holds no pictures"):
        listing(picture_root)


def test_the_only_picture_of_a_class_is_for_training(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "b/1.png", "b/2.png", "b/3.png")
    found = listing(tmp_path)
    assert {file.label for file in found.train} == {0, 1} and len(found.test) == 1
    touch(tmp_path / "single", "a/1.png")
    with pytest.raises(InputError, match=r"data\.test_fraction: 0\.2 of"):
        listing(tmp_path / "single")


def test_links_in_a_circle_end(picture_root: Path) -> None:
    before = listing(picture_root).train
    (picture_root / "train" / "ant" / "up").symlink_to("..", target_is_directory=True)
    (picture_root / "train" / "ant" / "here").symlink_to(".", target_is_directory=True)
    (picture_root / "train" / "ant" / "top").symlink_to("../..", target_is_directory=True)
    assert listing(picture_root).train == before, "no picture of another class or of the test set"


def test_link_to_itself_is_named(picture_root: Path) -> None:
    (picture_root / "train" / "ant" / "loop.png").symlink_to("loop.png")
    with pytest.raises(InputError, match=r"loop\.png: cannot be read \(Too many levels of symbolic links\)"):
        listing(picture_root)


def test_dangling_link_is_named(picture_root: Path) -> None:
    (picture_root / "train" / "ant" / "gone.png").symlink_to("absent.png")
    with pytest.raises(InputError, match=r"gone\.png: cannot be read \(.*\); mend it, or remove it"):
        listing(picture_root)


def test_linked_pictures_count(picture_root: Path) -> None:
    (picture_root / "train" / "ant" / "link.png").symlink_to("0.png")
    assert len(listing(picture_root).train) == 13


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipe_is_no_picture(picture_root: Path) -> None:
    os.mkfifo(picture_root / "train" / "ant" / "pipe.png")
    with pytest.raises(InputError, match=r"pipe\.png: is not a file"):
        listing(picture_root)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_unreadable_folder_is_named(picture_root: Path) -> None:
    (picture_root / "train" / "ant").chmod(0)
    with pytest.raises(InputError, match="ant: cannot be read"):
        listing(picture_root)

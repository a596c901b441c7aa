import concurrent.futures
import contextlib
import hashlib
import json
import logging
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import torch
from PIL import Image

from deepexp.data import picture_cache
from deepexp.data.image_folder import ImageFolder
from deepexp.errors import InputError, RunFailed

from ..processes import ends_soon

DEFAULTS: dict[str, Any] = {"size": None, "channels": None, "test_fraction": 0.2, "split_seed": 0, "cache": None}


def source(root: Path, **changes: Any) -> ImageFolder:
    return ImageFolder(root=root, **DEFAULTS | changes)


def caches(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.rglob("manifest.json"))


def test_pictures_come_back_sorted_by_class_and_path(picture_root: Path) -> None:
    train, test = source(picture_root).load()
    info = source(picture_root).info()
    assert info.shape == train.shape == test.shape == (3, 8, 8)
    assert (info.classes, info.train_samples, info.test_samples) == (("ant", "bee"), 12, 6)
    assert info.is_mapped and train.file is not None and test.file is not None
    for split, name in ((train, "train"), (test, "test")):
        files = sorted((picture_root / name).glob("*/*.png"))
        expected = np.stack([np.asarray(Image.open(path)) for path in files])
        assert np.array_equal(split.images.permute(0, 2, 3, 1).numpy(), expected)
        assert split.labels.tolist() == [int(path.parent.name == "bee") for path in files]


def test_second_start_decodes_nothing(
    picture_root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    first, _ = source(picture_root).load()
    (cache,) = caches(picture_root.parent / ".deepexp-cache")
    assert f"decoded, once, into {cache}" in caplog.text
    monkeypatch.setattr(picture_cache, "_build", lambda *args: pytest.fail("decoded again"))
    second, _ = source(picture_root).load()
    assert f"read from {cache}" in caplog.text
    assert torch.equal(first.images, second.images)
    assert second.file == cache / "train.npy"


def test_the_cache_is_beside_the_data_root(picture_root: Path) -> None:
    before = {path.name for path in picture_root.iterdir()}
    source(picture_root).load()
    assert {path.name for path in picture_root.iterdir()} == before


def test_data_cache_sets_the_folder_of_the_cache(picture_root: Path, tmp_path: Path) -> None:
    source(picture_root, cache=str(tmp_path / "c ü")).load()
    assert len(caches(tmp_path / "c ü")) == 1 and not (picture_root.parent / ".deepexp-cache").exists()


def test_a_file_in_the_place_of_the_cache_is_refused_in_one_line(
    picture_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be kept in \S*file: not writable; set data\.cache to a folder"):
        source(picture_root, cache=str(tmp_path / "file")).load()
    assert not caplog.records, "that a cache there cannot be used goes without saying"


def test_the_users_cache_is_used_where_none_can_be_beside_the_data(
    picture_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (picture_root.parent / ".deepexp-cache").write_text("")  # no folder can be made there
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source(picture_root).load()
    assert len(caches(tmp_path / "cache" / "deepexp")) == 1
    monkeypatch.setenv("XDG_CACHE_HOME", str(picture_root.parent / ".deepexp-cache"))
    with pytest.raises(InputError, match=r"cannot be kept in .*: not writable; set data\.cache"):
        source(picture_root, size=4).load()


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX users")
def test_a_user_without_a_home_needs_none(picture_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs with the number of a user that it does not know."""
    import pwd

    def unknown(number: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    source(picture_root).load()
    assert len(caches(picture_root.parent / ".deepexp-cache")) == 1


def test_a_changed_file_is_decoded_again_and_the_old_cache_removed(
    picture_root: Path, save_picture: Callable[..., None]
) -> None:
    source(picture_root).load()
    path = picture_root / "train" / "ant" / "0.png"
    save_picture(path, seed=77)
    os.utime(path, ns=(1, 1))
    train, _ = source(picture_root).load()
    assert np.array_equal(train.images[0].permute(1, 2, 0).numpy(), np.asarray(Image.open(path)))
    assert len(caches(picture_root.parent / ".deepexp-cache")) == 1


def test_caches_of_several_sizes_are_kept(picture_root: Path) -> None:
    for size in (None, 4, [3, 5]):
        train, _ = source(picture_root, size=size).load()
    assert train.shape == (3, 3, 5)
    assert len(caches(picture_root.parent / ".deepexp-cache")) == 3


def test_caches_of_several_splits_are_kept(
    picture_root: Path, save_picture: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    root, splits = picture_root / "train", [{"split_seed": 0}, {"split_seed": 1}, {"test_fraction": 0.4}]
    for changes in splits * 2:
        source(root, **changes).load()
    assert caplog.text.count("decoded, once") == 3
    before = caches(picture_root / ".deepexp-cache")
    save_picture(root / "ant" / "0.png", seed=77)
    os.utime(root / "ant" / "0.png", ns=(1, 1))
    source(root, split_seed=1).load()
    after = caches(picture_root / ".deepexp-cache")
    assert len(before) == len(after) == 3 and len(set(before) & set(after)) == 2


def test_a_cache_of_an_older_version_is_removed(picture_root: Path) -> None:
    source(picture_root / "train").load()
    (cache,) = caches(picture_root / ".deepexp-cache")
    cache.rename(cache.with_name("0123456789abcdef"))
    source(picture_root / "train").load()
    assert caches(picture_root / ".deepexp-cache") == [cache]


def test_a_cache_removed_before_it_is_opened_is_made_again(picture_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = source(picture_root).load()[1].images.clone()
    (cache,) = caches(picture_root.parent / ".deepexp-cache")
    digest = hashlib.file_digest

    def last_then_gone(file: BinaryIO, kind: str) -> Any:
        found = digest(file, kind)
        if file.name == str(cache / "test.npy"):
            monkeypatch.undo()
            shutil.rmtree(cache)
        return found

    monkeypatch.setattr(hashlib, "file_digest", last_then_gone)
    assert torch.equal(source(picture_root).load()[1].images, expected)


@pytest.mark.parametrize("name", ["train.npy", "test.npy", "manifest.json"])
def test_damaged_cache_is_made_again(picture_root: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    expected = source(picture_root).load()[0].images.clone()
    (cache,) = caches(picture_root.parent / ".deepexp-cache")
    content = bytearray((cache / name).read_bytes())
    content[-5] ^= 255
    (cache / name).write_bytes(content)
    train, _ = source(picture_root).load()
    assert torch.equal(train.images, expected)
    assert "decoded again" in caplog.text and str(cache) in caplog.text


def test_manifest_of_another_kind_is_no_cache(picture_root: Path) -> None:
    source(picture_root).load()
    (cache,) = caches(picture_root.parent / ".deepexp-cache")
    for content in ("[]", "{}", '{"sha256": []}', '{"sha256": {"train.npy": 3}}', "null"):
        (cache / "manifest.json").write_text(content)
        source(picture_root).load()
    assert "sha256" in json.loads((cache / "manifest.json").read_text())


def test_leftovers_of_a_killed_process_are_removed(picture_root: Path) -> None:
    source(picture_root).load()
    (cache,) = caches(picture_root.parent / ".deepexp-cache")
    (cache.parent / "building-x").mkdir()
    (cache.parent / "building-x" / "train.npy").write_bytes(b"half")
    (cache / "manifest.json").unlink()
    source(picture_root).load()
    assert {path.name for path in cache.parent.iterdir()} == {"lock", cache.name}


def test_all_broken_pictures_are_named_and_no_cache_is_left(picture_root: Path) -> None:
    for index in range(2):
        (picture_root / "train" / "bee" / f"{index}.png").write_bytes(b"no picture")
    with pytest.raises(InputError) as caught:
        source(picture_root).load()
    message = str(caught.value)
    assert message.startswith("2 pictures cannot be read; replace or remove them:\n")
    for index in range(2):
        assert f"{picture_root}/train/bee/{index}.png: not a picture" in message
    assert not caches(picture_root.parent) and not list(picture_root.parent.rglob("building-*"))


def test_a_broken_picture_is_named_in_one_line(picture_root: Path) -> None:
    (picture_root / "test" / "bee" / "1.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"bee.1\.png: not a picture.*; replace or remove this picture$"):
        source(picture_root).load()


def test_more_broken_pictures_than_fit_are_counted(picture_root: Path) -> None:
    for path in (picture_root / "train").glob("*/*.png"):
        if path.name != "0.png":
            path.write_bytes(b"")
    with pytest.raises(InputError, match=r"^10 pictures(.|\n)*… and 5 more$"):
        source(picture_root).load()


def test_first_picture_that_is_broken_is_named_by_info(picture_root: Path) -> None:
    (picture_root / "train" / "ant" / "0.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"ant.0\.png: .*; replace or remove this picture"):
        source(picture_root).info()


def test_grey_first_picture_makes_all_grey_with_a_warning(
    picture_root: Path, save_picture: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    save_picture(picture_root / "train" / "ant" / "0.png", mode="L")
    train, _ = source(picture_root).load()
    assert train.shape == (1, 8, 8)
    assert "11 of 12 train pictures are in colour and become grey" in caplog.text
    caplog.clear()
    assert source(picture_root, channels=3).load()[0].shape == (3, 8, 8)
    assert not caplog.records


def test_transparency_that_is_left_out_is_counted(
    picture_root: Path, save_picture: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    save_picture(picture_root / "train" / "ant" / "1.png", mode="RGBA")
    source(picture_root).load()
    assert "1 of 12 train pictures are transparent in places, which is left out" in caplog.text


def test_an_unused_folder_of_validation_pictures_is_mentioned(
    picture_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(picture_root / "test", picture_root / "val")
    train, test = source(picture_root).load()
    assert "val/ is not read, as data.own_validation is false" in caplog.text
    shutil.rmtree(picture_root / "val")
    caplog.clear()
    without = source(picture_root).load()
    assert not caplog.records and [len(train), len(test)] == [len(split) for split in without]


def test_a_class_without_test_pictures_is_mentioned(picture_root: Path, caplog: pytest.LogCaptureFixture) -> None:
    for path in (picture_root / "test" / "bee").iterdir():
        path.unlink()
    source(picture_root).load()
    assert "no test pictures of 1 class (bee)" in caplog.text


def _load(root: Path) -> int:
    return int(source(root).load()[0].images.long().sum())


def test_two_processes_at_once_decode_once(picture_root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    context = multiprocessing.get_context("fork" if hasattr(os, "fork") else "spawn")
    with concurrent.futures.ProcessPoolExecutor(3, context) as pool:
        sums = list(pool.map(_load, [picture_root] * 3))
    assert len(set(sums)) == 1 and len(caches(picture_root.parent)) == 1
    assert capfd.readouterr().err.count("decoding train pictures: 12 pictures\n") == 1


def _load_some(task: tuple[Path, int]) -> int:
    root, first = task
    return sum(len(source(root, split_seed=(first + step) % 3).load()[0]) for step in range(8))


def test_processes_with_other_splits_keep_each_others_caches(
    picture_root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    context = multiprocessing.get_context("fork" if hasattr(os, "fork") else "spawn")
    with concurrent.futures.ProcessPoolExecutor(3, context) as pool:
        samples = list(pool.map(_load_some, [(picture_root / "train", first) for first in range(3)]))
    assert samples == [80] * 3
    assert capfd.readouterr().err.count("decoding train pictures: 10 pictures\n") == 3


def test_a_killed_decoding_process_is_reported(picture_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_cache.decode, "decode_many", _die)
    with pytest.raises(RunFailed, match="a process that decoded pictures was killed"):
        source(picture_root).load()
    assert not list(picture_root.parent.rglob("building-*"))


def _die(*args: object) -> None:
    os._exit(9)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells them of its end")
def test_decoding_processes_end_when_their_parent_is_killed() -> None:
    """Otherwise they would wait for ever, and keep their memory."""
    reading, writing = os.pipe()
    killed = os.fork()
    if not killed:
        os.setpgid(0, 0)
        with picture_cache._processes() as pool:
            os.write(writing, str(pool.submit(os.getpid).result()).encode())
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(killed, 0)
    ended = ends_soon(int(os.read(reading, 20)))
    with contextlib.suppress(ProcessLookupError):
        os.killpg(killed, signal.SIGKILL)
    assert ended


def test_a_full_disk_is_reported_before_decoding(picture_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_cache.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 100}))
    with pytest.raises(InputError, match=r"decoded pictures need .* kB and 100 B are free; set data\.cache"):
        source(picture_root).load()


def test_a_disk_that_fills_up_is_reported(picture_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(picture_cache, "_decode_split", full)
    with pytest.raises(InputError, match=r"cannot be written there \(No space left on device\)"):
        source(picture_root).load()
    assert not list(picture_root.parent.rglob("building-*"))


@pytest.mark.parametrize("name", ["a b", "ü", "x=1,y", "(1)", "#", "~d"])
def test_any_root_name_works(picture_root: Path, name: str) -> None:
    root = picture_root.rename(picture_root.with_name(name))
    source(root).load()
    assert len(source(root).load()[0]) == 12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 0}, "^size: 0 is not allowed"),
        ({"size": 1.5}, "^size: 1.5 is not allowed"),
        ({"size": ["a", "b"]}, r"^size: \['a', 'b'\] is not allowed"),
        ({"size": [1, 2, 3]}, r"^size: \[1, 2, 3\] is not allowed; a side in pixels, \[height, width\] or null"),
        ({"channels": 2}, "^channels: 2"),
        ({"test_fraction": 1.0}, "^test_fraction: 1.0 is not allowed; above 0 and below 1"),
        ({"split_seed": -1}, "^split_seed: -1"),
    ],
)
def test_impossible_arguments_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        source(tmp_path, **change)


@pytest.mark.slow
def test_real_photographs_have_the_known_mean_and_deviation(real_root: Path, tmp_path: Path) -> None:
    root = real_root / "cifar10-jpeg"
    if not root.exists():
        pytest.skip(f"there are no photographs in {root}")
    source(root, cache=str(tmp_path)).load()
    began = time.perf_counter()
    train, test = source(root, cache=str(tmp_path)).load()
    assert time.perf_counter() - began < 10
    assert train.images.shape == (50_000, 3, 32, 32) and test.images.shape == (10_000, 3, 32, 32)
    assert train.labels.bincount().tolist() == [5000] * 10
    # The mean and standard deviation that everyone uses for CIFAR-10; these are JPEGs of it.
    pixels = train.images[::10].double() / 255
    assert (pixels.mean((0, 2, 3)) - torch.tensor([0.4914, 0.4822, 0.4465])).abs().max() < 0.01

import hashlib
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from deepexp.data import mnist
from deepexp.errors import InputError

from .conftest import Served
from .samples import idx_arrays, idx_bytes, packed

IMAGES = "train-images-idx3-ubyte"
LABELS = "train-labels-idx1-ubyte"
Root = tuple[Path, dict[str, np.ndarray]]


def source(root: Path) -> mnist.IdxSource:
    return mnist.mnist(root=root, download=False)


def test_files_become_splits(idx_root: Root) -> None:
    root, arrays = idx_root
    train, test = source(root).load()
    for split, part in ((train, "train"), (test, "t10k")):
        assert np.array_equal(split.images.squeeze(1).numpy(), arrays[f"{part}-images-idx3-ubyte"])
        assert split.labels.tolist() == arrays[f"{part}-labels-idx1-ubyte"].tolist()
        assert split.images.dtype == torch.uint8 and split.labels.dtype == torch.int64
    info = source(root).info()
    assert (info.train_samples, info.test_samples, info.shape) == (30, 12, (1, 28, 28))


def test_packed_files_give_the_same(idx_root: Root) -> None:
    root, _ = idx_root
    before, info = source(root).load(), source(root).info()
    for path in (root / "MNIST" / "raw").iterdir():
        path.with_name(f"{path.name}.gz").write_bytes(packed(path.read_bytes()))
        path.unlink()
    after = source(root).load()
    assert source(root).info() == info
    for one, other in zip(before, after, strict=True):
        assert torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)


def test_files_with_other_contents_than_published_are_reported(
    idx_root: Root, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        source(idx_root[0]).load()
    assert f"{IMAGES} is not the published file (30 samples)" in caplog.text


def test_info_without_files_is_that_of_the_published_data(tmp_path: Path) -> None:
    for make in (mnist.mnist, mnist.fashion_mnist):
        info = make(root=tmp_path / "absent").info()
        assert (info.train_samples, info.test_samples, info.shape) == (60_000, 10_000, (1, 28, 28))
        assert len(info.classes) == 10


@pytest.mark.parametrize("name", ["a b", "ü", "x=1,y", "(1)", "#", "~d"])
def test_any_folder_name_works(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for file, array in idx_arrays().items():
        (folder / file).write_bytes(idx_bytes(array))
    assert len(source(tmp_path / name).load()[0]) == 30


def damage(root: Path, name: str, change: object) -> Path:
    path = root / "MNIST" / "raw" / name
    content = path.read_bytes()
    path.write_bytes(change(content))  # type: ignore[operator]
    return path


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (IMAGES, lambda content: content[:-1], r"damaged \(23535 bytes, and its header promises 23536\)"),
        (IMAGES, lambda content: content + b"x", r"damaged \(23537 bytes"),
        (IMAGES, lambda content: content[:9], r"damaged \(it does not begin as an IDX file"),
        (IMAGES, lambda content: b"", r"damaged \(it does not begin as an IDX file"),
        (IMAGES, lambda content: b"<html>" + content, r"damaged \(it does not begin as an IDX file"),
        (IMAGES, lambda content: content[:4] + b"\xff" * 4 + content[8:], r"header promises \d{13}"),
        (IMAGES, lambda content: content[:4] + bytes(4) + content[8:], r"promises an empty array"),
        (LABELS, lambda content: content[:7] + b"\x1f" + content[8:], r"damaged \(38 bytes"),
        (LABELS, lambda content: content[:-1] + b"\x0a", r"holds the label 10; 0 to 9 are allowed"),
        (LABELS, lambda content: idx_bytes(np.zeros(29, np.uint8)), r"29 labels, and .* has 30 pictures"),
    ],
)
def test_damaged_file_is_named(idx_root: Root, name: str, change: object, message: str) -> None:
    path = damage(idx_root[0], name, change)
    with pytest.raises(InputError, match=message) as caught:
        source(idx_root[0]).load()
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("cut", [5, 200, -1])
def test_damaged_packed_file_is_named(idx_root: Root, cut: int) -> None:
    path = idx_root[0] / "MNIST" / "raw" / IMAGES
    packed_path = path.with_name(f"{IMAGES}.gz")
    packed_path.write_bytes(packed(path.read_bytes())[:cut])
    path.unlink()
    with pytest.raises(InputError, match="damaged") as caught:
        source(idx_root[0]).load()
    assert str(packed_path) in str(caught.value)


def test_flipped_bit_in_a_packed_file_is_noticed(idx_root: Root) -> None:
    path = idx_root[0] / "MNIST" / "raw" / IMAGES
    content = bytearray(packed(path.read_bytes()))
    content[len(content) // 2] ^= 1
    path.with_name(f"{IMAGES}.gz").write_bytes(content)
    path.unlink()
    with pytest.raises(InputError, match="damaged"):
        source(idx_root[0]).load()


def test_flipped_bit_in_a_published_file_is_noticed(idx_root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mnist, "_SAMPLES", {"train": 30, "t10k": 12})  # as if these were the published ones
    damage(idx_root[0], IMAGES, lambda content: content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(InputError, match="its MD5 is not that of the published file"):
        source(idx_root[0]).load()


def test_a_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("")
    for call in (source(tmp_path / "root").info, source(tmp_path / "root").load):
        with pytest.raises(InputError, match=r"data\.root: .* is a file"):
            call()


def test_missing_file_without_download_is_named(idx_root: Root) -> None:
    (idx_root[0] / "MNIST" / "raw" / LABELS).unlink()
    with pytest.raises(InputError, match=rf"{LABELS}.gz is missing, and data\.download is false.*data=digits"):
        source(idx_root[0]).load()


def published(url: str, contents: dict[str, bytes]) -> mnist.Published:
    def md5(content: bytes) -> str:
        return hashlib.md5(content).hexdigest()

    checksums = {name: (md5(packed(content)), md5(content)) for name, content in contents.items()}
    return mnist.Published("MNIST", mnist.MNIST.classes, (url,), checksums)


def test_missing_files_are_downloaded(server: Served, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    arrays = idx_arrays()
    contents = {name: idx_bytes(array) for name, array in arrays.items()}
    server.files = {f"{name}.gz": packed(content) for name, content in contents.items()}
    made = mnist.IdxSource(published(server.url, contents), tmp_path, download=True)
    train, _ = made.load()
    assert np.array_equal(train.images.squeeze(1).numpy(), arrays[IMAGES])
    assert sorted(server.requests) == sorted(server.files)
    made.load()
    assert len(server.requests) == 4  # the second time the files are there
    assert not caplog.records  # the published files need no warning


def test_checksums_are_those_of_torchvision() -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    for ours, theirs in ((mnist.MNIST, datasets.MNIST), (mnist.FASHION_MNIST, datasets.FashionMNIST)):
        assert {f"{name}.gz": md5 for name, (md5, _) in ours.checksums.items()} == dict(theirs.resources)
        assert ours.folder == theirs.__name__
        assert set(theirs.mirrors) <= set(ours.mirrors)


def test_real_mnist_equals_torchvisions(real_root: Path, caplog: pytest.LogCaptureFixture) -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    splits = mnist.mnist(root=real_root).load()
    assert not caplog.records
    for split, is_train in zip(splits, (True, False), strict=True):
        if (real_root / "MNIST" / "raw" / IMAGES).exists():  # torchvision reads unpacked files only
            reference = datasets.MNIST(real_root, train=is_train)
            assert torch.equal(split.images.squeeze(1), reference.data)
            assert torch.equal(split.labels, reference.targets)
    assert len(splits[0]) == 60_000 and len(splits[1]) == 10_000
    # The mean and standard deviation that everyone uses for MNIST.
    pixels = splits[0].images.double() / 255
    assert abs(pixels.mean() - 0.1307) < 5e-5 and abs(pixels.std() - 0.3081) < 5e-5


def test_truncated_real_mnist_is_refused(real_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for path in (real_root / "MNIST" / "raw").iterdir():
        (folder / path.name).symlink_to(path.absolute())
    name = "t10k-images-idx3-ubyte"
    if not (folder / name).exists():
        pytest.skip("MNIST is there in packed files only")
    content = (folder / name).read_bytes()
    (folder / name).unlink()
    (folder / name).write_bytes(content[:1_000_000])
    with pytest.raises(InputError, match=rf"{name}: damaged \(1000000 bytes, and its header promises 7840016\)"):
        source(tmp_path).load()
    flipped = bytearray(content)
    flipped[5_000_000] ^= 16
    (folder / name).write_bytes(flipped)
    with pytest.raises(InputError, match=rf"{name}: damaged \(its MD5"):
        source(tmp_path).load()

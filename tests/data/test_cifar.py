import hashlib
import io
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest

from deepexp.data import cifar
from deepexp.errors import InputError

from .conftest import Served


def python2_pickle(pixels: np.ndarray, labels: list[int], label_key: bytes) -> bytes:
    """A batch as Python 2 and NumPy 1 wrote the published files: protocol 2, byte strings, `numpy.core.multiarray`."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value  # SHORT_BINSTRING

    raw = pixels.tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n"
        + b"cnumpy\nndarray\n" + b"K\x00\x85" + text(b"b") + b"\x87R"  # (ndarray, (0,), 'b')
        + b"(K\x01" + b"M" + struct.pack("<H", pixels.shape[0]) + b"M" + struct.pack("<H", pixels.shape[1]) + b"\x86"
        + b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R"
        + b"(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        + b"\x89" + b"T" + struct.pack("<i", len(raw)) + raw + b"tb"
    )  # fmt: skip
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(label_key) + numbers + b"u."


def batch(samples: int, seed: int) -> tuple[np.ndarray, list[int]]:
    random = np.random.RandomState(seed)
    return random.randint(0, 256, (samples, 3072)).astype(np.uint8), random.randint(0, 10, samples).tolist()


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


BATCHES = {"data_batch_1": batch(7, 1), "data_batch_2": batch(5, 2), "test_batch": batch(4, 3)}
FILES = {name: python2_pickle(*made, b"labels") for name, made in BATCHES.items()}


def archive(files: dict[str, bytes], folder: str = "cifar-10-batches-py") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def published(url: str, packed: bytes, files: dict[str, bytes] = FILES) -> cifar.Published:
    checksums = {name: md5(content) for name, content in files.items()}
    test = {"test_batch": checksums.pop("test_batch")}
    name, folder, label_key, classes = "CIFAR-10", "cifar-10-batches-py", b"labels", cifar.CIFAR10.classes
    return cifar.Published(name, f"{url}set.tar.gz", md5(packed), folder, checksums, test, label_key, classes, 12, 4)


def write(root: Path, files: dict[str, bytes] = FILES) -> Path:
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def test_made_up_pickle_is_read_by_the_ordinary_unpickler() -> None:
    loaded = pickle.loads(FILES["data_batch_1"], encoding="bytes")
    assert np.array_equal(loaded[b"data"], BATCHES["data_batch_1"][0])
    assert loaded[b"labels"] == BATCHES["data_batch_1"][1]


def test_unpacked_files_become_splits(tmp_path: Path) -> None:
    write(tmp_path)
    train, test = cifar.CifarSource(published("", b""), tmp_path, download=False).load()
    expected = np.concatenate([BATCHES["data_batch_1"][0], BATCHES["data_batch_2"][0]]).reshape(-1, 3, 32, 32)
    assert np.array_equal(train.images.numpy(), expected)
    assert train.labels.tolist() == BATCHES["data_batch_1"][1] + BATCHES["data_batch_2"][1]
    assert np.array_equal(test.images.numpy(), BATCHES["test_batch"][0].reshape(-1, 3, 32, 32))
    assert train.images.permute(0, 2, 3, 1).is_contiguous()


def test_archive_is_downloaded_and_unpacked(server: Served, tmp_path: Path) -> None:
    server.files["set.tar.gz"] = archive(FILES)
    source = cifar.CifarSource(published(server.url, server.files["set.tar.gz"]), tmp_path, download=True)
    train, _ = source.load()
    assert len(train) == 12
    source.load()
    assert server.requests == ["set.tar.gz"]
    assert {path.name for path in (tmp_path / "cifar-10-batches-py").iterdir()} == set(FILES)


def test_an_existing_archive_is_used_without_a_network(tmp_path: Path) -> None:
    (tmp_path / "set.tar.gz").write_bytes(archive(FILES))
    train, _ = cifar.CifarSource(published("", b""), tmp_path, download=False).load()
    assert len(train) == 12


def test_archive_cannot_write_elsewhere(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    evil = FILES | {"../../outside": b"x", "extra": b"y"}
    (root / "set.tar.gz").write_bytes(archive(evil))
    cifar.CifarSource(published("", b""), root, download=False).load()
    assert {path.name for path in tmp_path.iterdir()} == {"root"}
    assert {path.name for path in (root / "cifar-10-batches-py").iterdir()} == set(FILES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (archive(FILES)[:-2000], "set.tar.gz: damaged"),
        (b"no archive", "set.tar.gz: damaged"),
        (archive({"test_batch": b"x"}), "set.tar.gz: damaged"),
        (archive(FILES | {"test_batch": b"x"}), "test_batch in it is not the published file"),
    ],
    ids=[
        "cut off",
        "none",
        "files missing",
        "another file",
    ],  # the parametrized bytes contain the time, and make no stable ids
)
def test_damaged_archive_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "set.tar.gz").write_bytes(content)
    with pytest.raises(InputError, match=message):
        cifar.CifarSource(published("", b""), tmp_path, download=False).load()


def test_damaged_file_is_named(tmp_path: Path) -> None:
    path = write(tmp_path) / "data_batch_2"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"data_batch_2: damaged \(its MD5 is not that of the published file\)"):
        cifar.CifarSource(published("", b""), tmp_path, download=False).load()


def test_missing_files_without_download_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cifar-10-batches-py.data_batch_1 is missing.*data=digits"):
        cifar.cifar10(root=tmp_path, download=False).load()


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.path,)  # type: ignore[return-value]


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    # Its MD5 is right, so that only the unpickler can refuse it.
    bomb = pickle.dumps({"data": Bomb(tmp_path / "went off")}, protocol=2)
    files = FILES | {"data_batch_1": bomb}
    write(tmp_path, files)
    with pytest.raises(pickle.UnpicklingError, match="not allowed in a data file"):
        cifar.CifarSource(published("", b"", files), tmp_path, download=False).load()
    assert not (tmp_path / "went off").exists()
    pickle.loads(bomb)
    assert (tmp_path / "went off").exists()  # an ordinary unpickler runs the code


def test_urls_checksums_and_classes_are_those_of_torchvision() -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    for ours, theirs in ((cifar.CIFAR10, datasets.CIFAR10), (cifar.CIFAR100, datasets.CIFAR100)):
        assert (ours.url, ours.archive_md5, ours.folder) == (theirs.url, theirs.tgz_md5, theirs.base_folder)
        assert ours.train_files == dict(theirs.train_list) and ours.test_files == dict(theirs.test_list)
    assert len(cifar.CIFAR10.classes) == 10
    assert len(set(cifar.CIFAR100.classes)) == 100 and list(cifar.CIFAR100.classes) == sorted(cifar.CIFAR100.classes)


def test_info_is_constant(tmp_path: Path) -> None:
    for make, classes in ((cifar.cifar10, 10), (cifar.cifar100, 100)):
        info = make(root=tmp_path).info()
        assert (info.shape, info.train_samples, info.test_samples) == ((3, 32, 32), 50_000, 10_000)
        assert len(info.classes) == classes

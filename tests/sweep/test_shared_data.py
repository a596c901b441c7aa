"""Data that a sweep loads once for all its jobs."""

import errno
import importlib
import json
import logging
import multiprocessing
import os
import resource
import sys
import textwrap
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
import torch

import deepexp
from deepexp import build, cli
from deepexp.data.source import DataInfo, Split
from deepexp.errors import InputError
from deepexp.sweep import ledger, server
from deepexp.sweep.directory import Choices
from deepexp.sweep.points import Point, check_points, settled
from deepexp.sweep.shared_data import SharedData, SharedSource

from ..data.samples import idx_arrays, idx_bytes, random_split
from ..same_run import assert_same_run
from .conftest import SMALL, Sweeper

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is shared on Linux only")

COUNTED = """
    import os
    from deepexp.data.synthetic import Synthetic


    class Counted(Synthetic):
        def __init__(self, *, colour):
            super().__init__(channels=3, height=9, width=8, classes=4, train_samples=300, test_samples=80, noise=90,
                             seed=colour)

        def load(self):
            with open("loads", "a") as file:
                print(os.getpid(), file=file)
            if os.path.exists("interrupt"):
                raise KeyboardInterrupt
            return super().load()
"""

LOOKING = """
    import re


    def look(source, pipe):
        train, test = source.load()
        while (asked := pipe.recv()) != "end":
            if asked == "write":
                train.images.fill_(7)
                test.labels.fill_(1)
            pipe.send((int(train.images.sum()) + int(test.images.sum()), test.labels.sum().item(), mapping()))


    def mapping():
        blocks = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", open("/proc/self/smaps").read(), flags=re.MULTILINE)
        (block,) = [block for block in blocks if "memfd:deepexp-data" in block.partition("\\n")[0]]
        kilobytes = {name: int(size) for name, size in re.findall(r"^(\\w+): +(\\d+) kB", block, flags=re.MULTILINE)}
        return kilobytes | {"inode": int(block.split()[4])}
"""


@pytest.fixture
def counted(folder: Path) -> Path:
    """The option `data=counted`; returns the file to which each load appends its process id."""
    (folder / "counted_data.py").write_text(textwrap.dedent(COUNTED))
    (folder / "conf" / "data").mkdir()
    (folder / "conf" / "data" / "counted.yaml").write_text(
        "# counts how often it is loaded\n_target_: counted_data.Counted\ncolour: 0\n"
    )
    return folder / "loads"


def loads(file: Path) -> list[int]:
    """The process of each load."""
    return [int(line) for line in file.read_text().splitlines()] if file.exists() else []


def points(*words: list[str]) -> list[Point]:
    return [settled(point, Choices(None, 1, "resident")) for point in check_points(words, (), needs_validation=False)]


def held() -> list[str]:
    """Anonymous files in memory that this process has open or mapped."""
    links = [os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
    maps = Path("/proc/self/maps").read_text().splitlines()
    return [line for line in [*links, *maps] if "memfd:deepexp" in line]


@pytest.fixture
def shared() -> Iterator[SharedSource]:
    """Pictures of 600 kB in shared memory; the rows of training samples are in reverse order."""
    train, test = random_split(2000, (3, 10, 9), 5), random_split(70, (3, 10, 9), 5, seed=1)
    rows = torch.arange(2000).flip(0)
    info = DataInfo((3, 10, 9), tuple("abcde"), 2000, 70)
    source = SharedSource.of("key", info, Split(train.images, train.labels, rows), test)
    yield source
    source.close()


def test_shared_data_equal_the_original(shared: SharedSource) -> None:
    train, test = shared.load()
    expected = random_split(2000, (3, 10, 9), 5), random_split(70, (3, 10, 9), 5, seed=1)
    for split, original in zip((train, test), expected, strict=True):
        assert torch.equal(split.images, original.images) and torch.equal(split.labels, original.labels)
        assert split.images.stride() == original.images.stride() and split.images.dtype == torch.uint8
        assert split.labels.dtype == torch.int64 and split.file is None
    assert train.rows is not None and train.rows.tolist() == list(range(1999, -1, -1)) and test.rows is None


def test_shared_memory_cannot_be_written(shared: SharedSource) -> None:
    one, _ = shared.load()
    one.images.zero_()
    one.labels.fill_(3)
    other, _ = shared.load()
    assert torch.equal(other.images, random_split(2000, (3, 10, 9), 5).images) and other.labels.max() == 4
    for attack in (lambda: os.pwrite(shared.descriptor, b"x", 0), lambda: os.truncate(shared.descriptor, 10)):
        with pytest.raises(PermissionError):
            attack()


def test_processes_share_one_copy_of_the_pictures(
    shared: SharedSource, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "looking.py").write_text(textwrap.dedent(LOOKING))
    monkeypatch.syspath_prepend(str(folder))
    looking = importlib.import_module("looking")

    server.start()
    pipes: list[Connection] = []
    for _ in range(2):
        ours, theirs = multiprocessing.Pipe()
        server.context().Process(target=looking.look, args=(shared, theirs), daemon=True).start()
        pipes.append(ours)

    def ask(number: int, what: str) -> tuple[int, int, dict[str, int]]:
        pipes[number].send(what)
        assert pipes[number].poll(60)
        return pipes[number].recv()  # type: ignore[no-any-return]

    first, second = ask(0, "look"), ask(1, "look")
    pixels = sum(int(split.images.sum()) for split in shared.load())
    assert first[0] == second[0] == pixels
    inode = os.stat(shared.descriptor).st_ino
    for _, _, memory in (ask(0, "look"), ask(1, "look")):
        assert memory["inode"] == inode and memory["Rss"] > 500
        assert memory["Private_Dirty"] == memory["Private_Clean"] == 0
        assert memory["Pss"] <= 0.6 * memory["Rss"]
    labels = second[1]
    changed = ask(0, "write")
    assert changed[0] != pixels and changed[1] == 70 and changed[2]["Private_Dirty"] > 500
    assert ask(1, "look")[:2] == (pixels, labels)
    for pipe in pipes:
        pipe.send("end")


def test_a_failed_copy_leaves_no_memory_open(shared: SharedSource) -> None:
    before = held()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            SharedSource.of("key", shared.info(), *shared.load())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert held() == before


def test_jobs_share_data_loaded_once_and_equal_single_runs(sweep: Sweeper, counted: Path) -> None:
    words = ("data=counted", "dropout=0.5", "val_fraction=0.1", "epochs=2")
    result = sweep(*words, "seed=3,4", "data.mode=auto,streamed", "data.workers=1", quiet=True)
    assert result.failures == [] and loads(counted) == [os.getpid()]
    for row in result.rows:
        alone = deepexp.train([*SMALL, *words, f"seed={row.varying['seed']}", "output_dir=alone"], quiet=True)
        assert alone is not None and row.directory is not None
        job = deepexp.load_run(result.directory / row.directory)
        assert_same_run(job.directory, alone.directory)
        fingerprints = [
            json.loads((run.directory / "provenance.json").read_text())["data_fingerprint"] for run in (job, alone)
        ]
        assert fingerprints[0] == fingerprints[1]
    assert len(loads(counted)) == 1 + 4 and held() == []


def test_resumed_jobs_share_data_too(sweep: Sweeper, counted: Path) -> None:
    first = sweep("data=counted", "model=troubled", "model.trouble=raise", "seed=0,1", quiet=True)
    assert len(first.failures) == 2 and all(
        (first.directory / f"seed={seed}" / "status.json").exists() for seed in (0, 1)
    )
    second = sweep(f"resume={first.directory}", "model.trouble=raise", quiet=True)
    assert [row.tries for row in second.rows] == [2, 2] and [row.directory for row in second.rows] == [
        "seed=0",
        "seed=1",
    ]
    assert loads(counted) == [os.getpid()] * 2


def test_data_of_finished_jobs_are_not_loaded(sweep: Sweeper, counted: Path) -> None:
    first = sweep("data=counted", "seed=0,1", quiet=True)
    counted.unlink()
    assert sweep(f"resume={first.directory}", quiet=True).failures == []
    assert loads(counted) == []
    assert sweep(f"resume={first.directory}", "seed=0,1,2", quiet=True).failures == []
    (process,) = loads(counted)  # the one job that was added
    assert process != os.getpid()


def test_a_sweep_of_an_older_version_without_data_mode_is_resumed(sweep: Sweeper, counted: Path) -> None:
    first = sweep("data=counted", "seed=0,1", quiet=True)
    content = json.loads((first.directory / "sweep.json").read_text())
    assert content["choices"].pop("data_mode") == "resident"
    (first.directory / "sweep.json").write_text(json.dumps(content))
    second = sweep(f"resume={first.directory}", quiet=True)
    assert [(row.state, row.tries) for row in second.rows] == [("done", 1)] * 2


@pytest.fixture
def idx(folder: Path) -> Path:
    """The raw files of a small set in place of MNIST, below `data.root=data`."""
    raw = folder / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, array in idx_arrays(train=300, test=60).items():
        (raw / name).write_bytes(idx_bytes(array))
    return raw


def test_damaged_data_stop_a_sweep_before_it_begins(
    idx: Path, sweep: Sweeper, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = idx / "t10k-labels-idx1-ubyte"
    whole = labels.read_bytes()
    labels.write_bytes(whole[:-3])
    words = ("data=mnist", f"data.root={idx.parents[1]}", "seed=0,1,2", "model=troubled")
    assert cli.main(["train", "-m", *SMALL, *words]) == 2
    told = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning: ")]
    assert len(told) == 2 and told[1] == "deepexp: nothing was started"
    assert told[0].startswith(f"deepexp: all 3 points: {labels}: damaged (65 bytes")
    assert list(Path().rglob("sweep.json")) == [] and list(Path().rglob("seed=*")) == [] and held() == []
    labels.write_bytes(whole)
    failed = sweep(*words, "model.trouble=raise", quiet=True)
    assert len(failed.failures) == 3
    labels.unlink()
    before = (failed.directory / "ledger.jsonl").read_bytes()
    again = [f"resume={failed.directory}", "data.download=false"]
    with pytest.raises(InputError, match=r"all 3 points: .*t10k-labels-idx1-ubyte(.|\n)*nothing was started"):
        sweep(*again, "model.trouble=none")
    assert (failed.directory / "ledger.jsonl").read_bytes() == before
    labels.write_bytes(whole)
    assert sweep(*again, "model.trouble=none", quiet=True).failures == []
    assert len(ledger.read(failed.directory / "ledger.jsonl")) == 6


def test_problems_of_all_sources_are_reported(idx: Path) -> None:
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        (idx / name).write_bytes((idx / name).read_bytes()[:-1])
    fashion = ["data=fashion_mnist", "data.download=false"]
    root = f"data.root={idx.parents[1]}"
    jobs = [
        ["data=mnist", root, "seed=0"],
        ["data=mnist", root, "seed=1"],
        *([*fashion, root, f"seed={n}"] for n in (0, 1)),
    ]
    with pytest.raises(InputError) as caught:
        SharedData().load(points(*jobs))
    mnist, other, last = str(caught.value).splitlines()
    assert "data=mnist" in mnist and "train-images-idx3-ubyte: damaged" in mnist
    assert "data=fashion_mnist" in other and "FashionMNIST" in other and last == "nothing was started"


def test_ctrl_c_while_data_are_loaded_leaves_no_files(counted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("interrupt").touch()
    assert cli.main(["train", "-m", *SMALL, "data=counted", "seed=0,1"]) == 130
    assert "go on with" not in capsys.readouterr().out and list(Path("outputs").rglob("*/*/*")) == []


def test_data_of_a_single_job_are_not_loaded_by_the_sweep(counted: Path) -> None:
    data = SharedData()
    one, two, other = points(["data=counted"], ["data=counted", "seed=1"], ["data=counted", "data.colour=1"])
    data.load([one, other])
    assert loads(counted) == [] and data.of(one.config) is None
    data.load([two])  # a sweeper that hands over one point at a time
    data.load([two])
    assert loads(counted) == [os.getpid()] and data.of(other.config) is None
    source = data.of(one.config)
    assert source is not None and source is data.of(two.config) and source.key == build.source_key(two.config)
    data.close()
    assert held() == []


def test_without_memfd_each_job_loads_its_data(counted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    data = SharedData()
    both = points(["data=counted"], ["data=counted", "seed=1"])
    data.load(both)
    assert loads(counted) == [] and data.of(both[0].config) is None


def test_too_little_memory_is_reported_and_each_job_loads_its_data(
    sweep: Sweeper, counted: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(os, "memfd_create", refuse)
    with caplog.at_level(logging.WARNING):
        assert sweep("data=counted", "seed=0,1", quiet=True).failures == []
    assert "cannot be shared by the jobs (Cannot allocate memory)" in caplog.text
    assert len(set(loads(counted))) == 3


def test_picture_files_are_decoded_into_their_cache_and_not_shared(folder: Path) -> None:
    from PIL import Image

    for part, name in ((part, name) for part in ("train", "test") for name in "ab"):
        (folder / "own" / part / name).mkdir(parents=True)
        for number in range(3):
            pixels = np.full((6, 6, 3), 40 * number, np.uint8)
            Image.fromarray(pixels).save(folder / "own" / part / name / f"{number}.png")
    words = [
        "data=image_folder",
        f"data.root={folder / 'own'}",
        f"data.cache={folder / 'cache'}",
        "batch_size=3",
        "model=resnet",
    ]
    data = SharedData()
    both = points(words, [*words, "seed=1"])
    data.load(both)
    assert data.of(both[0].config) is None and held() == []
    assert len(list((folder / "cache").rglob("train.npy"))) == 1


def test_a_sweep_leaves_no_shared_memory_open(sweep: Sweeper, counted: Path) -> None:
    words = ("data=counted", "model=troubled", "model.trouble=none,raise")
    sweep(*words, quiet=True)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        sweep(*words, quiet=True)
    assert len(os.listdir("/proc/self/fd")) == before and held() == []

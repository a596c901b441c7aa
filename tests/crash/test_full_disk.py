"""A disk that is really full, at each file of a run directory; and two runs that begin in the same instant."""

import multiprocessing
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deepexp import checkpoint, cli, runlog
from deepexp.disk import storage
from deepexp.run.rundir import RunDirectory, make_unique_directory

RUN = ["epochs=2", "data.subset=60", "batch_size=20", "val_fraction=0.2", "threads=1", "device=cpu"]


@pytest.fixture
def disk(tmp_path):
    """A disk of 64 MB of its own."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root on Linux may mount a small disk")
    path = tmp_path / "disk"
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", path], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here (a container without CAP_SYS_ADMIN)")
    yield path
    subprocess.run(["umount", "-l", path], check=True)


FILES = ["config.yaml", "overrides.yaml", "hydra.yaml", "status.json", "provenance.json", "metrics.jsonl",
         "events.out.tfevents", "run.log", "last.pt", "best.pt", "predictions.npz", "summary.json"]  # fmt: skip


@pytest.mark.parametrize("later", [False, True], ids=["first write", "once there is a checkpoint"])
@pytest.mark.parametrize("name", FILES)
def test_a_disk_that_fills_up_at_any_file_fails_the_run_and_loses_nothing(disk, monkeypatch, capsys, name, later):
    """The disk is full from the first write to this file, or the first after a checkpoint."""
    is_full = []

    def fill_if_due(path: Path) -> None:
        if not is_full and path.name.startswith(name) and (not later or list(disk.glob("**/last.pt"))):
            fill(disk)
            is_full.append(path)

    write, append = storage.write_atomically, storage.AppendFile.write

    def atomically(path: Path, data: bytes) -> None:
        fill_if_due(path)
        write(path, data)

    def appended(self: storage.AppendFile, data: bytes) -> None:
        fill_if_due(self.path)
        append(self, data)

    for module in (storage, runlog, checkpoint):
        monkeypatch.setattr(module, "write_atomically", atomically, raising=False)
    monkeypatch.setattr(storage.AppendFile, "write", appended)
    status = cli.main(["train", *RUN, f"output_dir={disk}"])
    monkeypatch.undo()
    if not is_full:  # this file is never written after a checkpoint
        assert status == 0 and later
        return
    streams = capsys.readouterr()
    text = streams.out + streams.err
    assert status == 1 and "Traceback" not in text
    assert "No space left on device" in text and "MB free" in text and str(disk) in text
    (disk / "filler").unlink()
    for last in disk.glob("**/last.pt"):
        checkpoint.load(last)
        assert cli.main(["train", f"resume={last.parents[1]}"]) == 0


def fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while file.write(b"\0" * size):
                    pass
            except OSError:
                continue
    assert shutil.disk_usage(disk).free == 0


def _make(barrier, folder, found) -> None:
    for _ in range(50):
        barrier.wait(30)
        found.put(str(make_unique_directory(folder, "net")))


@pytest.mark.skipif(sys.platform == "win32", reason="no forks")
def test_two_processes_that_start_in_the_same_instant_get_two_directories(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, found = context.Barrier(2), context.Queue()
    both = [context.Process(target=_make, args=(barrier, tmp_path, found)) for _ in range(2)]
    for process in both:
        process.start()
    paths = [found.get(timeout=60) for _ in range(100)]
    for process in both:
        process.join(30)
    assert len(set(paths)) == 100 == len(list((tmp_path / "net").iterdir()))


def test_a_run_that_is_still_alive_is_not_resumed(tmp_path, capsys):
    assert cli.main(["train", *RUN, "max_steps=1", f"output_dir={tmp_path}"]) == 0
    (path,) = tmp_path.glob("*/*")
    run = RunDirectory.open(path)
    run.lock()
    try:
        assert cli.main(["train", f"resume={path}", "max_steps=null"]) == 2
    finally:
        run.unlock()
    assert "still alive" in capsys.readouterr().err

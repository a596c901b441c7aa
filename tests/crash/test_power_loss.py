"""What a loss of power leaves behind. Unlike a kill, it may lose whatever was not synced.

A run is recorded: after each call that changes a name or syncs, the tests note which names and contents are certainly
on the disk, and which only possibly. Each name and content that was not synced may be old or new, independently of all
others, which is the strictest reading of POSIX. A checkpoint whose `checkpoint.save` has returned must be there in
every possible state.
"""

import itertools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import deepexp
from deepexp import checkpoint

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="follows descriptors through /proc")

RUN = ["epochs=2", "data.subset=60", "batch_size=20", "threads=1", "device=cpu", "checkpoint.every_minutes=0.00001"]
GARBAGE = b"\0" * 1000


class Disk:
    """The possible states of the folders and files below `root` after a loss of power."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.possible: dict[Path, set[int | None]] = {}  # name → the inodes that it may lead to; None: absent
        self.durable: dict[int, bytes] = {}  # inode → synced content
        self._held: dict[int, int] = {}  # an open descriptor for each inode, so that no number is used twice

    def note(self, synced: Path | None = None) -> None:
        """Look at what has changed; `synced`: the file or folder for which an fsync has just returned."""
        present = dict(self._look())
        for path in {*present, *self.possible}:
            inode = present.get(path)
            if path.parent == synced:
                self.possible[path] = {inode}
            else:
                self.possible.setdefault(path, {None}).add(inode)
        if synced in present and synced is not None and synced.is_file():
            self.durable[present[synced]] = synced.read_bytes()

    def contents(self, path: Path) -> Iterator[bytes | None]:
        """The contents that a file of this name may have; None: there is no file."""
        for inode in self.possible.get(path, {None}):
            yield None if inode is None else self.durable.get(inode, GARBAGE)

    def close(self) -> None:
        for descriptor in self._held.values():
            os.close(descriptor)

    def _look(self) -> Iterator[tuple[Path, int]]:
        for folder, folders, files in os.walk(self.root):
            for path in (Path(folder, name) for name in (*folders, *files)):
                inode = path.stat().st_ino
                if inode not in self._held:
                    self._held[inode] = os.open(path, os.O_RDONLY)
                yield path, inode


class PowerLoss(AssertionError):
    """A possible state in which something is lost that was reported as saved."""


class Watch:
    """Records a run, and checks after each call what a loss of power would leave of it."""

    def __init__(self, root: Path, scratch: Path) -> None:
        self.disk = Disk(root)
        self.scratch = scratch
        self.saved_step: int | None = None
        self.points = self.states = 0
        self._judged: dict[tuple[bytes | None, bytes | None], dict[str, Any]] = {}

    def install(self, patch: pytest.MonkeyPatch, *, without: str | None = None) -> None:
        save = checkpoint.save

        def saved(path: Path, content: dict[str, Any], **options: Any) -> None:
            save(path, content, **options)
            self.saved_step = content["progress"]["step"]
            self.look()

        patch.setattr(checkpoint, "save", saved)
        watch_calls(patch, self.look, without=without)

    def look(self, synced: Path | None = None) -> None:
        self.disk.note(synced)
        if self.saved_step is not None:
            self.points += 1
            self._judge()

    def _judge(self) -> None:
        (checkpoints,) = self.disk.root.glob("**/checkpoints")
        run = checkpoints.parent
        for folder in (checkpoints, run / ".hydra", run, *run.parents):
            if folder.is_relative_to(self.disk.root) and folder != self.disk.root:
                self._need(folder)
        logs = {"metrics.jsonl": run / "metrics.jsonl", "events": next(run.glob("events.out.tfevents.*"))}
        for path in (run / ".hydra" / "config.yaml", run / "status.json", run / "provenance.json", *logs.values()):
            self._need(path)
        names = [list(self.disk.contents(checkpoints / name)) for name in ("last.pt", "previous.pt")]
        for last, previous in itertools.product(*names):
            self.states += 1
            content = self._load(last, previous)
            assert self.saved_step is not None
            if content["progress"]["step"] < self.saved_step:
                raise PowerLoss(f"step {content['progress']['step']} is left, and {self.saved_step} was saved")
            for name, path in logs.items():
                if any(len(left or b"") < content["logs"][name] for left in self.disk.contents(path)):
                    raise PowerLoss(f"{path} is shorter than when the checkpoint was written")

    def _need(self, path: Path) -> None:
        possible = self.disk.possible.get(path, {None})
        if None in possible or (path.is_file() and GARBAGE in self.disk.contents(path)):
            raise PowerLoss(f"{path} may be missing or empty")

    def _load(self, last: bytes | None, previous: bytes | None) -> dict[str, Any]:
        if (last, previous) not in self._judged:
            for name, content in (("last.pt", last), ("previous.pt", previous)):
                (self.scratch / name).unlink(missing_ok=True)
                if content is not None:
                    (self.scratch / name).write_bytes(content)
            try:
                self._judged[last, previous] = checkpoint.load_latest(self.scratch)[1]
            except Exception as error:
                raise PowerLoss(f"no checkpoint is left: {error}") from error
        return self._judged[last, previous]


def watch_calls(patch: pytest.MonkeyPatch, look: Callable[..., None], *, without: str | None = None) -> None:
    """Call `look` after each call that changes a name, and `look(path)` after each fsync.

    `without`: a kind of fsync that is not made.
    """
    fsync = os.fsync

    def synced(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if without is None or kind_of(path) != without:
            fsync(descriptor)
            look(path)

    def noted(function: Any) -> Any:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            result = function(*arguments, **options)
            look()
            return result

        return wrapped

    patch.setattr(os, "fsync", synced)
    for name in ("replace", "rename", "link", "unlink", "mkdir", "ftruncate"):
        patch.setattr(os, name, noted(getattr(os, name)))


def kind_of(path: Path) -> str:
    """The kind of an fsync of this path, as `without` names it."""
    if path.is_dir():
        return {"checkpoints": "the folder of checkpoints", ".hydra": "the folder of the config"}.get(
            path.name, "the folder of a run" if (path / "checkpoints").exists() else "the folders above a run"
        )
    return {"checkpoints": "a checkpoint", ".hydra": "the config"}.get(
        path.parent.name, "a log" if path.suffix != ".partial" else "a JSON file"
    )


def watched_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without: str | None = None) -> Watch:
    root, scratch = tmp_path / "disk", tmp_path / "scratch"
    root.mkdir()
    scratch.mkdir()
    watch = Watch(root, scratch)
    try:
        with monkeypatch.context() as patch:
            watch.install(patch, without=without)
            deepexp.train([*RUN, f"output_dir={root / 'outputs'}"], quiet=True)
    finally:
        watch.disk.close()
    return watch


def test_a_loadable_checkpoint_always_remains(tmp_path, monkeypatch):
    watch = watched_run(tmp_path, monkeypatch)
    print(f"{watch.points} points, {watch.states} states of the disk")
    assert watch.points > 50 and watch.states > watch.points


@pytest.mark.parametrize(
    "without",
    [
        "a checkpoint",
        "the folder of checkpoints",
        "a log",
        "a JSON file",
        "the config",
        "the folder of the config",
        "the folder of a run",
        "the folders above a run",
    ],
)
def test_each_fsync_is_needed(tmp_path, monkeypatch, without):
    with pytest.raises(Exception) as caught:
        watched_run(tmp_path, monkeypatch, without)
    assert "may be missing" in str(caught.value) or "left" in str(caught.value) or "shorter" in str(caught.value)


@pytest.fixture
def disk(tmp_path):
    """A disk with files that hold their own names, all synced."""
    root = tmp_path / "checkpoints"
    root.mkdir()
    disk = Disk(root)
    for name in ("last.pt", "best.pt", "best_earlier.pt"):
        (root / name).write_text(name)
        disk.note(root / name)
    disk.note(root)
    yield disk
    disk.close()


def left(disk, *names):
    """All combinations of contents that files of these names may have."""
    return set(itertools.product(*(disk.contents(disk.root / name) for name in names)))


@pytest.mark.parametrize("earlier", [b"best_earlier.pt", None])
def test_putting_back_the_earlier_best_never_loses_the_later_one(disk, monkeypatch, earlier):
    if earlier is None:
        (disk.root / "best_earlier.pt").unlink()
        disk.note(disk.root)

    def look(synced=None):
        disk.note(synced)
        assert all(b"best.pt" in found for found in left(disk, "best.pt", "best.step7.pt"))

    with monkeypatch.context() as patch:
        watch_calls(patch, look)
        checkpoint.put_back_best(disk.root, aside="best.step7.pt")
    assert left(disk, "best.pt", "best.step7.pt", "best_earlier.pt") == {(earlier, b"best.pt", None)}


def test_a_file_set_aside_stays_set_aside(disk, monkeypatch):
    with monkeypatch.context() as patch:
        watch_calls(patch, disk.note)
        checkpoint.set_aside(disk.root / checkpoint.LAST)
    assert left(disk, "last.pt", "last.pt.damaged") == {(None, b"last.pt")}
